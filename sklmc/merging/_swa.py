"""One training, many snapshots, one net."""

from __future__ import annotations

import contextlib
import copy
from numbers import Integral, Real

from sklearn.base import clone
from skorch.callbacks import LRScheduler
from tqdm.auto import tqdm

from sklmc._sklearn import FrozenEstimator, HasMethods, Interval, StrOptions, _num_samples
from sklmc._torch import seeded, single_thread
from sklmc._validation import LARGEST_RATE, check_sample_weight
from sklmc.estimators._members import Data
from sklmc.estimators._sample_weights import weight_argument
from sklmc.estimators._seeds import resolve_seed
from sklmc.estimators._wrapper import NetWrapper, check_net
from sklmc.merging._repairs._batch_norm import reestimate_statistics, tracked_norms
from sklmc.merging._reports._holdout import check_rows, leave_unweighted
from sklmc.merging._running_average import RunningAverage
from sklmc.merging._swa_callback import learning_rate_groups
from sklmc.models import view, with_provenance


class SWAEnsembler(NetWrapper):
    """Train a net, go on at a constant learning rate, and average the snapshots on the way.

    After ``max_epochs`` epochs as the net would train by itself, `n_snapshots` epochs follow at
    `swa_lr`, with a snapshot at the end of each. Stochastic weight averaging [1]_ keeps the mean
    of the snapshots, with batch-norm statistics that belong to it.

    Parameters
    ----------
    estimator : NetClassifier, NetRegressor, another skorch net, or FrozenEstimator of a fitted one
        The net. A ``FrozenEstimator(net)`` is not trained from scratch: a copy of it goes through
        the second part only, and the net itself stays as it is, byte for byte.
    n_snapshots : int, default=20
        Epochs of the second part, each of which ends in a snapshot.
    swa_lr : float, default=None
        Learning rate of the second part. None keeps the rate at which the first part ended.
        Learning rate schedulers among the net's callbacks act in the first part only.
    average : {"weights", "predictions"}, default="weights"
        What predicts: the net with the mean weights, or the mean of the snapshots' predictions
        (as an ensemble that costs as many nets).
    random_state : int, RandomState instance or None, default=None
        Seeds the net's training; not used for a frozen one.
    verbose : int, default=0
        1 shows a bar over the snapshots. The net is silent.

    Attributes
    ----------
    estimator_ : skorch net
        The net with the mean weights, whatever `average` is.
    snapshots_ : list of skorch nets
        The net after each epoch of the second part, as models:
        ``LMCScorer().pairwise(swa.snapshots_, X, y)`` shows how they are connected.
    classes_ : ndarray of shape (n_classes,)
        The labels, for classifiers.
    n_features_in_ : int
        Number of features, where the net knows it.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, where the net knows them.

    See Also
    --------
    sklmc.merging.StochasticWeightAveraging : The same as a callback of a skorch net.
    WeightAverager : Averages nets that were trained independently.

    Notes
    -----
    The mean of the weights is that of :class:`torch.optim.swa_utils.AveragedModel`, on the CPU to
    the bit. Batch-norm statistics are exact over X.

    References
    ----------
    .. [1] Izmailov et al., "Averaging weights leads to wider optima and better generalization",
       UAI 2018.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import NetClassifier, SWAEnsembler
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> net = NetClassifier(module__width=32, max_epochs=10)
    >>> swa = SWAEnsembler(net, n_snapshots=5, swa_lr=0.02, random_state=0).fit(X, y)
    >>> len(swa.snapshots_)
    5
    >>> bool(swa.score(X, y) > 0.8)
    True
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"])],
        "n_snapshots": [Interval(Integral, 1, None, closed="left")],
        "swa_lr": [Interval(Real, 0, LARGEST_RATE, closed="right"), None],
        "average": [StrOptions({"weights", "predictions"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator,
        *,
        n_snapshots=20,
        swa_lr=None,
        average="weights",
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.n_snapshots = n_snapshots
        self.swa_lr = swa_lr
        self.average = average
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None, sample_weight=None):
        """Train the net, go on, and average the snapshots.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As `estimator` takes it: array, list, DataFrame or torch tensor; a dict of these, or a
            Dataset whose items are pairs (X, y).
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, or target values; None where X is a Dataset that holds them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in training. Batch-norm statistics count all samples alike, but
            for those of weight zero, which are left out.

        Returns
        -------
        self
            The fitted ensembler.
        """
        self._validate_params()
        frozen = isinstance(self.estimator, FrozenEstimator)
        inner = self.estimator.estimator if frozen else self.estimator
        check_net(inner, "SWAEnsembler")
        X, y = check_rows(X, y, "SWAEnsembler")
        seed = resolve_seed(self.random_state)
        sample_weight = check_sample_weight(sample_weight, _num_samples(y), "SWAEnsembler")
        weights = weight_argument(inner, sample_weight, "SWAEnsembler")
        # a plain skorch net has no seed of its own
        plain = "random_state" not in inner.get_params(deep=False)
        if frozen:
            view(inner, caller="SWAEnsembler", name="estimator")  # must be fitted
            net = copy.deepcopy(inner)
        else:
            net = clone(inner).set_params(verbose=0, **({} if plain else {"random_state": seed}))
        with seeded(seed) if plain else contextlib.nullcontext(), single_thread():
            if not frozen:
                net.fit(X, y, **weights)
            average, self.snapshots_ = self._go_on(net, X, y, weights)
        first = view(net, caller="SWAEnsembler", name="estimator")
        state = average.state_for(first.original)
        if tracked_norms(first.module):
            counted = leave_unweighted(Data(X, y, sample_weight))
            state = reestimate_statistics(first, state, first.to_input(counted.X))
        snapshots = [view(net, caller="SWAEnsembler") for net in self.snapshots_]
        self.estimator_ = with_provenance(first.rebuild(state), snapshots, "SWAEnsembler")
        self._remember_features()
        return self

    def _go_on(self, net, X, y, weights: dict) -> tuple[RunningAverage, list]:
        """Train the second part; return the mean of the weights and the snapshots."""
        n_epochs, verbose = net.max_epochs, net.verbose
        groups = learning_rate_groups(net, "SWAEnsembler")
        rates = [group["lr"] if self.swa_lr is None else self.swa_lr for group in groups]
        schedulers = [pair for pair in net.callbacks_ if isinstance(pair[1], LRScheduler)]
        net.callbacks_ = [pair for pair in net.callbacks_ if pair not in schedulers]
        net.max_epochs, net.verbose = 1, 0
        average = RunningAverage()
        snapshots = []
        with tqdm(total=self.n_snapshots, desc="SWAEnsembler", disable=self.verbose < 1) as bar:
            for _ in range(self.n_snapshots):
                for group, rate in zip(groups, rates, strict=True):
                    group["lr"] = rate
                net.partial_fit(X, y, **weights)
                average.update(net.module_)
                look = view(net, caller="SWAEnsembler")
                snapshot = look.rebuild(look.state)
                snapshot.max_epochs, snapshot.verbose = n_epochs, verbose
                snapshots.append(snapshot)
                bar.set_postfix(train_loss=f"{net.history[-1, 'train_loss']:.4f}")
                bar.update()
        net.max_epochs, net.verbose = n_epochs, verbose
        return average, snapshots

    def _predicting_nets(self) -> list:
        """Return the net with the mean weights, or the snapshots."""
        return [self.estimator_] if self.average == "weights" else self.snapshots_
