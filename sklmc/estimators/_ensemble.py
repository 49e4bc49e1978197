"""Many nets that differ by seed only."""

from __future__ import annotations

import functools
from dataclasses import replace

from sklmc.estimators._cache_dir import PopulationFolders, check_cache_seed
from sklmc.estimators._cell import plan_population
from sklmc.estimators._members import Data, last_loss, report_diverged, run_parallel
from sklmc.estimators._seeds import draw_seeds
from sklmc.estimators._wrapper import POPULATION_CONSTRAINTS, NetWrapper


class DeepEnsemble(NetWrapper):
    """Train nets that differ by seed only, and predict with their mean.

    Each member is a clone of `estimator` with a seed of its own, trained on all of the data:
    initial weights and order of the samples differ, nothing else [1]_. The members stand in
    ``estimators_`` as ordinary fitted nets.

    Parameters
    ----------
    estimator : estimator
        NetClassifier, NetRegressor, a Pipeline that ends in one, or any other classifier or
        regressor with a ``random_state``. A plain skorch net has none: it is trained while the
        generators of torch, numpy and random are seeded for it (and put back afterwards).
    n_estimators : int, default=10
        Number of members.
    vectorize : {"auto", True, False}, default="auto"
        Whether training is vectorized: members together, in chunks, instead of one by one; the
        same nets, up to the rounding of sums. "auto" decides by the shapes, the optimizer and
        the device alone (see Notes), True refuses what cannot be vectorized and names it.
    cache_dir : str or path, default=None
        Folder where every finished member is stored at once, and from where a fit that was cut
        off, even killed, goes on: it ends with the same bytes as an undisturbed one. As for
        ModelGrid; for a skorch net itself.
    n_jobs : int, default=None
        Members trained at the same time. None means 1 unless in a joblib context, -1 all
        processors.
    random_state : int, RandomState instance or None, default=None
        Where the seeds of the members come from, drawn in their order: a larger ensemble begins
        with the members of a smaller one. `cache_dir` needs an int.
    verbose : int, default=0
        1 shows a bar over the members, 2 also a line for each. The members are silent.

    Attributes
    ----------
    estimators_ : list of estimators
        The fitted members.
    seeds_ : list of int
        The ``random_state`` of each member.
    vectorized_ : bool
        Whether the training of the members was vectorized.
    diverged_ : list of int
        Members whose weights are not finite; predictions leave them out.
    classes_ : ndarray of shape (n_classes,)
        The labels, for classifiers.
    n_features_in_ : int
        Number of features, where the members know it.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, where the members know them.

    See Also
    --------
    NetClassifier : The usual `estimator`.
    NetRegressor : The usual `estimator` for regression.

    Notes
    -----
    Each member is trained on one thread, on numbers that depend on its seed alone: the members
    are the same for every `n_jobs` and every joblib backend.

    Vectorized training needs a NetClassifier or NetRegressor itself, data in arrays, an optimizer
    that treats every weight by itself (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, Adamax,
    NAdam, RAdam), a module that draws no random numbers in training, and of callbacks the
    default ones, LRScheduler (but for ReduceLROnPlateau), GradientNormClipping and EarlyStopping;
    with "auto" anything else is trained one by one. Chains of Linear, ReLU, LayerNorm and
    BatchNorm1d modules (``MLP``, ``torch.nn.Sequential``, a class of your own that calls such
    modules one after the other and does nothing else) are vectorized by hand, by "auto" from
    two members on: on one core it was 1.4 times faster for 2-512-512-512-2 and 784-512-10,
    2 to 4 times for 784-128-10, 25 times for 2-32-2. Any other module is mapped over by
    ``torch.func``, by "auto" from five members on where the module is small: no more than
    200,000 outputs of layers per step and 200,000 weights. A chunk holds 4 to 50 members, as many
    as stay in cache, so that memory does not grow with `n_estimators`. Bits depend on what stands
    in a chunk, hence on the member's position, and not on `n_jobs`.

    A bias in front of batch norm has no gradient but rounding, which Adam and its kin blow up to
    steps of full size. Such nets are not the same twice unless every sum is rounded alike: "auto"
    trains them one by one (but for SGD); leave the bias out, or set True, to have them vectorized.

    References
    ----------
    .. [1] Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty
       estimation using deep ensembles", 2017.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import DeepEnsemble, NetClassifier
    >>> X, y = make_moons(100, noise=0.1, random_state=0)
    >>> net = NetClassifier(module__width=8, max_epochs=5)
    >>> ensemble = DeepEnsemble(net, n_estimators=3, random_state=0).fit(X, y)
    >>> len(ensemble.estimators_)
    3
    >>> ensemble.predict_proba(X).shape
    (100, 2)
    """

    _parameter_constraints: dict = POPULATION_CONSTRAINTS

    def __init__(
        self,
        estimator,
        n_estimators=10,
        *,
        vectorize="auto",
        cache_dir=None,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.vectorize = vectorize
        self.cache_dir = cache_dir
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y, sample_weight=None):
        """Train all members on the same data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As `estimator` takes it.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels, or target values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, which every member gets in its fit.

        Returns
        -------
        self
            The fitted ensemble.
        """
        self._validate_params()
        seeds = draw_seeds(self.random_state, self.n_estimators)
        data = Data(X, y, sample_weight)
        tasks = plan_population(self.estimator, data, seeds, self.vectorize, "DeepEnsemble")
        vectorized = tasks[0].vectorized
        if self.cache_dir is not None:
            check_cache_seed(self.random_state, "DeepEnsemble")
            home = PopulationFolders(self.cache_dir, data, int(self.random_state), "DeepEnsemble")
            folder = home.make(self.estimator, {}, {}, ("DeepEnsemble", vectorized))
            tasks = [replace(task, folder=folder) for task in tasks]
        jobs = (functools.partial(task.run, data) for task in tasks)
        members = run_parallel(
            jobs, self.n_estimators, self.n_jobs, self.verbose, "DeepEnsemble", last_loss
        )
        self.diverged_ = report_diverged(members, "DeepEnsemble")
        self.estimators_ = members
        self.seeds_ = seeds
        self.vectorized_ = vectorized
        self._remember_features()
        return self

    def _fitted_net(self):
        """Return the first member; None before fit."""
        return getattr(self, "estimators_", [None])[0]

    def _predicting_nets(self) -> list:
        """Return the members whose weights are finite."""
        return [net for index, net in enumerate(self.estimators_) if index not in self.diverged_]
