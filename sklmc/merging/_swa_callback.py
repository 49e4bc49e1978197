"""Stochastic weight averaging inside a skorch training."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from numbers import Integral, Real

import torch
from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from torch.optim.swa_utils import AveragedModel

from sklmc._validation import LARGEST_RATE, check_flag, check_number
from sklmc.merging._repairs._batch_norm import reestimate_statistics, tracked_norms
from sklmc.models import Arrays, Inputs, view

ANNEAL_FROM, ANNEAL_TO = 0.5, 0.9  # parts of the epochs before averaging, as in the paper


class StochasticWeightAveraging(Callback):
    """Average the weights along the last part of a training; the net keeps the average.

    From epoch `start` on, the weights at the end of every `cycle`-th epoch enter a running mean
    [1]_ (or an exponential one). When training ends, the net gets the mean, and batch-norm
    statistics that belong to it; ``partial_fit`` goes on from the weights that training had
    reached, and so does the mean.

    Parameters
    ----------
    start : float or int, default=0.75
        When averaging begins: a part of the net's ``max_epochs`` below 1, or a number of epochs
        from 1 on.
    cycle : int, default=1
        Epochs between two snapshots.
    swa_lr : float, default=None
        Learning rate while averaging. The rate is left alone until half of `start`, moves
        linearly to `swa_lr` until nine tenths of it, and stays there [1]_. None leaves the rate
        to the optimizer and other callbacks; do not combine a number with another scheduler.
    decay : float, default=None
        None takes the plain mean. A number in [0, 1) takes the exponential moving average
        ``decay * mean + (1 - decay) * weights``.
    update_batch_norm : bool, default=True
        Whether running means and variances are replaced by those of all training samples.

    Attributes
    ----------
    n_averaged_ : int
        Number of snapshots in the mean.
    last_state_ : dict
        The tensors of the net where training ended, before it got the mean.

    See Also
    --------
    SWAEnsembler : The same as an estimator, which keeps the snapshots.

    Notes
    -----
    The mean is that of :class:`torch.optim.swa_utils.AveragedModel`, bit for bit. A training that
    ends before `start` leaves the net as it is.

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

    def __init__(self, start=0.75, *, cycle=1, swa_lr=None, decay=None, update_batch_norm=True):
        self.start = start
        self.cycle = cycle
        self.swa_lr = swa_lr
        self.decay = decay
        self.update_batch_norm = update_batch_norm

    def initialize(self):
        """Forget what was averaged; skorch calls this when a net is built anew.

        Returns
        -------
        self
            The callback.
        """
        self._check()
        self.n_averaged_ = 0
        self.last_state_ = None
        self._average = None
        self._first_rates = None
        return self

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Put the net back to where training had ended.

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
        if self.last_state_ is not None:
            write_tensors(net.module_, self.last_state_)
            self.last_state_ = None
        if self.swa_lr is not None:
            groups = learning_rate_groups(net, "StochasticWeightAveraging")
            if self._first_rates is None:
                self._first_rates = [group["lr"] for group in groups]

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Set the learning rate of the epoch.

        Parameters
        ----------
        net : skorch net
            The net in training.
        dataset_train : object, default=None
            Not used.
        dataset_valid : object, default=None
            Not used.
        **kwargs : object
            Not used.
        """
        if self.swa_lr is None:
            return
        part = (len(net.history) - 1) / max(self._start_epoch(net), 1)
        way = min(max((part - ANNEAL_FROM) / (ANNEAL_TO - ANNEAL_FROM), 0.0), 1.0)
        groups = learning_rate_groups(net, "StochasticWeightAveraging")
        for group, first in zip(groups, self._first_rates, strict=True):
            group["lr"] = (1 - way) * first + way * self.swa_lr

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Let the weights enter the mean.

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
        self._dataset = dataset_train
        past = len(net.history) - self._start_epoch(net)
        if past <= 0 or (past - 1) % self.cycle:
            return
        if self._average is None:
            rule = None if self.decay is None else functools.partial(_decay, self.decay)
            self._average = AveragedModel(net.module_, avg_fn=rule)
        self._average.update_parameters(net.module_)
        self.n_averaged_ += 1

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Give the net the mean, and batch-norm statistics that belong to it.

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
        dataset = self.__dict__.pop("_dataset", None)
        if self._average is None or dataset is None:
            return
        look = view(net.module_, caller="StochasticWeightAveraging", name="the net")
        self.last_state_ = {name: tensor.clone() for name, tensor in look.state.items()}
        mean = view(self._average.module, caller="StochasticWeightAveraging").state
        if self.update_batch_norm and tracked_norms(look.module):
            mean = reestimate_statistics(look, mean, _all_inputs(net, dataset))
        write_tensors(net.module_, mean)

    def _check(self) -> None:
        """Refuse parameters out of range."""
        whole = isinstance(self.start, Integral) and not isinstance(self.start, bool)
        part = isinstance(self.start, Real) and not whole and 0 < self.start < 1
        if not (part or (whole and self.start >= 1)):
            raise ValueError(
                "StochasticWeightAveraging: 'start' must be a part of max_epochs in (0, 1) or a "
                f"number of epochs from 1 on, got {self.start!r}."
            )
        if isinstance(self.cycle, bool) or not isinstance(self.cycle, Integral) or self.cycle < 1:
            raise ValueError(
                "StochasticWeightAveraging: 'cycle' must be a number of epochs from 1 on, got "
                f"{self.cycle!r}."
            )
        if self.swa_lr is not None:
            check_number(self.swa_lr, "StochasticWeightAveraging", "swa_lr", 0, LARGEST_RATE)
        check_flag(self.update_batch_norm, "StochasticWeightAveraging", "update_batch_norm")
        if self.decay is not None and not (isinstance(self.decay, Real) and 0 <= self.decay < 1):
            raise ValueError(
                "StochasticWeightAveraging: 'decay' must be None or a number in [0, 1), got "
                f"{self.decay!r}."
            )

    def _start_epoch(self, net) -> int:
        """Return the number of epochs before the first snapshot's."""
        if isinstance(self.start, Integral):
            return int(self.start)
        return int(self.start * net.max_epochs)


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


def write_tensors(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Copy values into a module's own tensors, so that its optimizer stays bound to them."""
    own = view(module, caller="write_tensors").state
    for name, tensor in own.items():
        tensor.copy_(state[name])


def _decay(decay: float, mean: torch.Tensor, new: torch.Tensor, count) -> torch.Tensor:
    """Return the exponential moving average after one more snapshot."""
    return decay * mean + (1 - decay) * new


def _all_inputs(net, dataset) -> Inputs:
    """Return the inputs of all samples of a dataset."""
    batches = [unpack_data(batch)[0] for batch in net.get_iterator(dataset, training=False)]
    if not all(isinstance(batch, torch.Tensor) for batch in batches):
        raise TypeError(
            "StochasticWeightAveraging: batch-norm statistics need inputs that are one tensor, got "
            f"{type(batches[0]).__name__}; set update_batch_norm=False."
        )
    return Arrays(torch.cat(batches).cpu())
