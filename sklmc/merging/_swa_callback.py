"""Stochastic weight averaging inside a skorch training."""

from __future__ import annotations

import torch

from sklmc._validation import LARGEST_RATE, check_number
from sklmc.merging._averaging_callback import AveragingCallback
from sklmc.merging._running_average import RunningAverage

ANNEAL_FROM, ANNEAL_TO = 0.5, 0.9  # parts of the epochs before averaging, as in the paper


class StochasticWeightAveraging(AveragingCallback):
    """Average the weights along the last part of a training; the net keeps the average.

    From epoch `start` on, the weights at the end of every `cycle`-th epoch (or after every
    `cycle`-th step) enter a running mean [1]_. Each epoch is validated *with the mean*
    (``valid_loss_avg`` in the history), and the net gets it, with batch-norm statistics that
    belong to it.

    Parameters
    ----------
    start : float or int, default=0.75
        When averaging begins: a part of the net's ``max_epochs`` below 1, or a number of epochs
        from 1 on.
    cycle : int, default=1
        Epochs (or steps, by `unit`) between two snapshots.
    unit : {"epoch", "step"}, default="epoch"
        Whether snapshots are taken at the end of epochs, or after steps.
    swa_lr : float, default=None
        Learning rate while averaging. The rate is left alone until half of `start`, moves
        linearly to `swa_lr` until nine tenths of it, and stays there [1]_. None leaves the rate
        to the optimizer and other callbacks; do not combine a number with another scheduler.
    update_batch_norm : bool, default=True
        Whether running means and variances are replaced by those of the training samples; see
        Notes. False leaves those that training had reached.

    Attributes
    ----------
    n_averaged_ : int
        Number of snapshots in the mean.
    last_state_ : dict
        The tensors of the net where training ended, before it got the mean.

    See Also
    --------
    SWAEnsembler : The same as an estimator, which keeps the snapshots.
    ExponentialMovingAverage : Averages all of a training, the latest weights the most.

    Notes
    -----
    The mean is that of :class:`torch.optim.swa_utils.AveragedModel`, on the CPU bit for bit. A
    training that ends before `start` leaves the net as it is, and until then ``valid_loss_avg`` is
    ``valid_loss``.

    From the end of every epoch until the next begins the net holds the mean. What stands
    *behind* this callback in the net's list therefore sees it: a Checkpoint saves it, an
    ``EpochScoring(..., use_caching=False)`` scores it, and EarlyStopping, Checkpoint and
    ``LRScheduler("ReduceLROnPlateau")`` may monitor ``valid_loss_avg`` (or
    ``valid_loss_avg_best``). What stands before sees the weights in training.

    ``partial_fit`` goes on from the weights that training had reached, and so does the mean.
    Other weights that the net was given in between (loaded ones, those of a merge) are kept, and
    averaging begins anew. A pickled net (``Checkpoint(f_pickle=...)``) goes on likewise; beside
    ``save_params`` keep the callback's :meth:`state_dict`.

    Batch-norm statistics cost a forward pass over 1,024 training samples (at even distances) in
    each epoch from `start` on, and are taken from all of them when training ends. Validating costs
    a second validation pass, averaging twice the memory of the weights.

    References
    ----------
    .. [1] Izmailov et al., "Averaging weights leads to wider optima and better generalization",
       UAI 2018.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import NetClassifier
    >>> from sklmc.merging import StochasticWeightAveraging
    >>> X, y = make_moons(100, noise=0.1, random_state=0)
    >>> swa = StochasticWeightAveraging(start=5)
    >>> net = NetClassifier(max_epochs=8, callbacks=[("swa", swa)], random_state=0).fit(X, y)
    >>> dict(net.callbacks_)["swa"].n_averaged_
    3
    """

    _first_rates: list[float] | None = None
    _least_start = 1

    def __init__(self, start=0.75, *, cycle=1, unit="epoch", swa_lr=None, update_batch_norm=True):
        self.start = start
        self.cycle = cycle
        self.unit = unit
        self.swa_lr = swa_lr
        self.update_batch_norm = update_batch_norm

    def _new_average(self) -> RunningAverage:
        return RunningAverage()

    def initialize(self):
        """Forget what was averaged; skorch calls this when a net is built anew.

        Returns
        -------
        self
            The callback.
        """
        self._first_rates = None
        return super().initialize()

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Look whether the other callbacks stand in the right order; note the learning rates.

        Parameters
        ----------
        net : skorch net
            The net in training.
        X : object, default=None
            Not used.
        y : object, default=None
            Not used.
        **kwargs : object
            Not used.
        """
        super().on_train_begin(net, X, y, **kwargs)
        if self.swa_lr is not None:
            groups = learning_rate_groups(net, "StochasticWeightAveraging")
            if self._first_rates is None:
                self._first_rates = [group["lr"] for group in groups]

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Put the net back to where training had ended, and set the learning rate of the epoch.

        Parameters
        ----------
        net : skorch net
            The net in training.
        dataset_train : object, default=None
            What batch-norm statistics will be taken from.
        dataset_valid : object, default=None
            Not used.
        **kwargs : object
            Not used.
        """
        super().on_epoch_begin(net, dataset_train, dataset_valid, **kwargs)
        if self.swa_lr is None:
            return
        part = (len(net.history) - 1) / max(self._start_epoch(net), 1)
        way = min(max((part - ANNEAL_FROM) / (ANNEAL_TO - ANNEAL_FROM), 0.0), 1.0)
        groups = learning_rate_groups(net, "StochasticWeightAveraging")
        for group, first in zip(groups, self._first_rates, strict=True):
            group["lr"] = (1 - way) * first + way * self.swa_lr

    def state_dict(self) -> dict:
        """Return what goes on in a later training: for ``torch.save``, beside the net's own files.

        Returns
        -------
        dict
            Numbers and tensors: the mean, the weights that training had reached, counts, and the
            learning rates of the beginning.
        """
        return {**super().state_dict(), "first_rates": self._first_rates}

    def load_state_dict(self, state):
        """Take over what `state_dict` returned, after ``net.initialize()``.

        Parameters
        ----------
        state : dict
            What `state_dict` returned.
        """
        super().load_state_dict(state)
        self._first_rates = state["first_rates"]

    def _check(self) -> None:
        if self.swa_lr is not None:
            check_number(self.swa_lr, "StochasticWeightAveraging", "swa_lr", 0, LARGEST_RATE)
        super()._check()


def learning_rate_groups(net, caller: str) -> list[dict]:
    """Return the optimizer's groups, each of which must have a learning rate."""
    groups = [
        group
        for value in vars(net).values()
        if isinstance(value, torch.optim.Optimizer)
        for group in value.param_groups
    ]
    if not groups or any("lr" not in group for group in groups):
        kind = type(getattr(net, "optimizer_", None)).__name__
        raise ValueError(
            f"{caller}: the optimizer ({kind}) has no learning rate 'lr' to set; leave 'swa_lr' at "
            "None, or use an optimizer of torch.optim."
        )
    return groups
