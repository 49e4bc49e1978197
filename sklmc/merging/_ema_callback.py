"""Exponential moving averages of weights inside a skorch training."""

from __future__ import annotations

from numbers import Real

from sklmc._validation import check_flag
from sklmc.merging._averaging_callback import AveragingCallback
from sklmc.merging._running_average import RunningAverage


class ExponentialMovingAverage(AveragingCallback):
    """Average the weights along a whole training, the latest the most; the net keeps the average.

    After each step the average becomes ``decay * average + (1 - decay) * weights`` [1]_: it
    smooths the noise of the steps, as a falling learning rate would, while training itself goes on
    undisturbed. Each epoch is validated *with the average* (``valid_loss_avg`` in the history).

    Parameters
    ----------
    decay : float, default=0.999
        How much of the average stays, in [0, 1): it looks back over some ``1 / (1 - decay)``
        updates. 0.999 suits thousands of steps; take less for fewer.
    warmup : bool, default=True
        Whether the decay starts small: after n updates it is at most ``(1 + n) / (10 + n)``, so
        that the weights of the beginning are soon forgotten. False keeps `decay` from the first
        update on, as :func:`torch.optim.swa_utils.get_ema_multi_avg_fn`.
    start : float or int, default=0
        When averaging begins: a part of the net's ``max_epochs`` below 1, or a number of epochs.
    cycle : int, default=1
        Steps (or epochs, by `unit`) from one update to the next.
    unit : {"step", "epoch"}, default="step"
        Whether the average is updated after steps, or at the end of epochs.
    update_batch_norm : bool, default=True
        Whether running means and variances are replaced by those of the training samples; see
        Notes. False leaves those that training had reached.

    Attributes
    ----------
    n_averaged_ : int
        Number of updates.
    last_state_ : dict
        The tensors of the net where training ended, before it got the average.

    See Also
    --------
    StochasticWeightAveraging : The plain mean of the last part of a training.

    Notes
    -----
    From the end of every epoch until the next begins the net holds the average. What stands
    *behind* this callback in the net's list therefore sees it: a Checkpoint saves it, an
    ``EpochScoring(..., use_caching=False)`` scores it, and EarlyStopping, Checkpoint and
    ``LRScheduler("ReduceLROnPlateau")`` may monitor ``valid_loss_avg`` (or
    ``valid_loss_avg_best``). What stands before sees the weights in training. While nothing is
    averaged yet, ``valid_loss_avg`` is ``valid_loss``.

    ``partial_fit`` goes on from the weights that training had reached, and so does the average.
    Other weights that the net was given in between (loaded ones, those of a merge) are kept, and
    averaging begins anew. A pickled net (``Checkpoint(f_pickle=...)``) goes on likewise; beside
    ``save_params`` keep the callback's :meth:`state_dict`.

    Batch-norm statistics cost a forward pass over 1,024 training samples (at even distances) in
    each epoch, and are taken from all of them when training ends. Validating costs a second
    validation pass, averaging twice the memory of the weights. Training is not disturbed: the
    weights that it reaches are, bit for bit, those without the callback.

    References
    ----------
    .. [1] Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", SIAM Journal
       on Control and Optimization 30, 1992.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from skorch.callbacks import EarlyStopping
    >>> from skorch.dataset import ValidSplit
    >>> from sklmc import NetClassifier
    >>> from sklmc.merging import ExponentialMovingAverage
    >>> X, y = make_moons(100, noise=0.1, random_state=0)
    >>> ema = ("ema", ExponentialMovingAverage(0.99))
    >>> stop = ("stop", EarlyStopping(monitor="valid_loss_avg", load_best=True))
    >>> net = NetClassifier(
    ...     max_epochs=8, train_split=ValidSplit(5), callbacks=[ema, stop], random_state=0
    ... )
    >>> dict(net.fit(X, y).callbacks_)["ema"].n_averaged_
    24
    >>> bool(net.history[-1, "valid_loss_avg"] < net.history[0, "valid_loss_avg"])
    True
    """

    def __init__(
        self, decay=0.999, *, warmup=True, start=0, cycle=1, unit="step", update_batch_norm=True
    ):
        self.decay = decay
        self.warmup = warmup
        self.start = start
        self.cycle = cycle
        self.unit = unit
        self.update_batch_norm = update_batch_norm

    def _new_average(self) -> RunningAverage:
        return RunningAverage(self.decay, self.warmup)

    def _check(self) -> None:
        caller = type(self).__name__
        real = isinstance(self.decay, Real) and not isinstance(self.decay, bool)
        if not (real and 0 <= self.decay < 1):
            raise ValueError(
                f"{caller}: 'decay' must be a number in [0, 1), got {self.decay!r}; 0.999 looks "
                "back over some 1,000 updates."
            )
        check_flag(self.warmup, caller, "warmup")
        super()._check()
