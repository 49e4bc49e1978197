"""Model soups: the mean of those nets of a grid that go well together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral, Real

import numpy as np
import pandas as pd
from sklearn.metrics import check_scoring
from sklearn.model_selection import ParameterGrid
from tqdm.auto import tqdm

from sklmc._sklearn import FrozenEstimator, HasMethods, Interval, StrOptions
from sklmc.alignment import ALIGNER_NAMES, check_aligner
from sklmc.estimators import ModelGrid
from sklmc.estimators._members import Data
from sklmc.estimators._seeds import resolve_seed
from sklmc.estimators._wrapper import NetWrapper, check_net
from sklmc.exceptions import ArchitectureMismatchError
from sklmc.merging._merge import align_models, merge_views
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._samples import Samples
from sklmc.merging._reports._holdout import check_rows, hold_out, leave_unweighted
from sklmc.merging._reports._scoring import call_scorer
from sklmc.models import check_compatible, describe, view, with_provenance


def greedy_selection(
    scores: Sequence[float], score_of: Callable[[list[int]], float]
) -> tuple[list[int], float]:
    """Return which members to average, and the score of their mean; greater is better.

    Members come in the order of their scores, the best first; each is kept if the score of the
    mean of those kept and itself is strictly higher than before.
    """
    values = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=-np.inf)
    order = np.argsort(-values, kind="stable")
    kept, best = [int(order[0])], float(values[order[0]])
    for index in order[1:]:
        score = score_of([*kept, int(index)])
        if score > best:
            kept, best = [*kept, int(index)], float(score)
    return kept, best


class GreedySoup(NetWrapper):
    """Train a grid of nets and average those that do better together than apart.

    The nets of a hyperparameter search are usually thrown away but for the best. A greedy soup
    [1]_ goes through them in the order of their held-out scores and keeps each whose weights,
    averaged with those kept before, raise the score: the result is one net, never worse on the
    held-out samples than the best single one.

    Parameters
    ----------
    estimator : NetClassifier, NetRegressor, another skorch net, or FrozenEstimator(ModelGrid)
        The net to train; or ``FrozenEstimator(grid)`` of a fitted :class:`ModelGrid`, whose nets
        are taken as they are: then all samples of fit are held-out samples.
    param_grid : dict or list of dicts, default=None
        Values by name, as for scikit-learn's ``ParameterGrid``. Nets of different architecture
        cannot be averaged: no width or depth in it. None only with a fitted grid.
    n_estimators : int, default=1
        Nets for each point of the grid, which differ by seed.
    scoring : str, callable or None, default=None
        What is held out for: greater is better, as in scikit-learn. None takes the net's own
        score (accuracy or R2).
    aligner : str, aligner object or None, default=None
        How all nets are aligned with the best one before they are averaged; see
        :func:`merge_models`. None averages them as they are, which suits nets that share their
        first part of training; nets with seeds of their own need an aligner.
    validation_fraction : float, default=0.2
        Part of the samples kept from training, to score nets and soups; twice that of
        WeightAverager, as these scores choose. Classes keep their shares, and the last sample of
        a class is never taken from training.
    n_jobs : int, default=None
        Nets trained at the same time. None means 1 unless in a joblib context, -1 all processors.
    random_state : int, RandomState instance or None, default=None
        Where the seeds of the nets and the held-out part come from.
    verbose : int, default=0
        1 shows a bar over the nets, and one over the soups.

    Attributes
    ----------
    estimator_ : skorch net
        The soup.
    estimators_ : list of skorch nets
        All nets of the grid that did not diverge, aligned, in the order of the grid.
    kept_ : list of int
        Which of them are in the soup, in the order in which they were kept.
    scores_ : ndarray of shape (n_nets,)
        Their held-out scores.
    soup_score_ : float
        The held-out score of the soup; at least the largest of `scores_`.
    uniform_score_ : float
        The held-out score of the mean of all nets.
    soup_report_ : DataFrame
        One row per net: its parameters, ``score``, and ``kept``.
    classes_ : ndarray of shape (n_classes,)
        The labels, for classifiers.
    n_features_in_ : int
        Number of features, where the nets know it.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, where the nets know them.

    See Also
    --------
    WeightAverager : Averages nets that differ by seed only.
    ModelGrid : Trains the nets.

    Notes
    -----
    Batch-norm statistics of every soup are estimated again, on the training samples (on those of
    fit, for a fitted grid).

    References
    ----------
    .. [1] Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models
       improves accuracy without increasing inference time", ICML 2022.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import GreedySoup, NetClassifier
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> net = NetClassifier(module__width=16, max_epochs=10)
    >>> soup = GreedySoup(net, {"lr": [0.01, 0.02]}, aligner="weight", random_state=0).fit(X, y)
    >>> bool(soup.soup_score_ >= soup.scores_.max())
    True
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit"])],
        "param_grid": [dict, list, tuple, ParameterGrid, None],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "scoring": [str, callable, None],
        "aligner": [StrOptions(set(ALIGNER_NAMES)), HasMethods(["fit", "transform"]), None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator,
        param_grid=None,
        *,
        n_estimators=1,
        scoring=None,
        aligner=None,
        validation_fraction=0.2,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.param_grid = param_grid
        self.n_estimators = n_estimators
        self.scoring = scoring
        self.aligner = aligner
        self.validation_fraction = validation_fraction
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None, sample_weight=None):
        """Train the grid and cook the soup.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As `estimator` takes it: array, list, DataFrame or torch tensor; a dict of these, or a
            Dataset whose items are pairs (X, y).
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, or target values; None where X is a Dataset that holds them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, in training and in the held-out scores. Aligners and batch-norm
            statistics count all samples alike, but for those of weight zero, which are left out.

        Returns
        -------
        self
            The fitted soup.
        """
        self._validate_params()
        check_aligner(self.aligner, "GreedySoup")
        grid = _find_fitted_grid(self.estimator)
        if grid is None:
            check_net(self.estimator, "GreedySoup")
        if (grid is None) == (self.param_grid is None):
            raise ValueError(
                "GreedySoup: 'param_grid' must be given for a net to train, and must be None for a "
                f"fitted ModelGrid; got {self.param_grid!r} for {type(self.estimator).__name__}."
            )
        X, y = check_rows(X, y, "GreedySoup")
        seed = resolve_seed(self.random_state)
        fraction = None if grid is not None else self.validation_fraction
        data = Data(X, y, sample_weight)
        train, judged, _ = hold_out(data, fraction, self.estimator, seed, "GreedySoup")
        if grid is None:
            grid = ModelGrid(
                self.estimator,
                self.param_grid,
                n_estimators=self.n_estimators,
                n_jobs=self.n_jobs,
                random_state=seed,
                verbose=self.verbose,
            ).fit(*train)
        train, judged = leave_unweighted(train), leave_unweighted(judged)
        params, nets = _members(grid)
        _check_cells(params, nets)
        scorer = check_scoring(nets[0], self.scoring)

        def score_net(net) -> float:
            return float(call_scorer(scorer, net, judged, "GreedySoup"))

        scores = np.array([score_net(net) for net in nets])
        self.estimators_ = _align_with_best(nets, scores, self.aligner, train.X, train.y)
        looks = [view(net, caller="GreedySoup") for net in self.estimators_]
        inputs = looks[0].to_input(train.X)
        with tqdm(total=len(nets), desc="GreedySoup", disable=self.verbose < 1) as bar:

            def mix(members: list[int]):
                chosen = [looks[index] for index in members]
                weights = np.full(len(members), 1.0 / len(members))
                ends = EndPoints([look.state for look in chosen], weights)
                return merge_views(chosen, ends, Samples(inputs), "batch_norm").model

            def score_of(members: list[int]) -> float:
                score = score_net(mix(members))
                bar.set_postfix(score=f"{score:.4f}")
                bar.update()
                return score

            self.uniform_score_ = score_of(list(range(len(nets))))
            self.kept_, self.soup_score_ = greedy_selection(scores, score_of)
        self.estimator_ = with_provenance(
            mix(self.kept_),
            [view(nets[index], caller="GreedySoup") for index in self.kept_],
            "GreedySoup",
            aligner=describe(self.aligner),
        )
        self.scores_ = scores
        self._params = params
        self._remember_features()
        return self

    def _template(self):
        """Return what the net will be like, before there is one."""
        inner = self.estimator
        if isinstance(inner, FrozenEstimator):
            inner = inner.estimator
        return inner.estimator if isinstance(inner, ModelGrid) else inner

    @property
    def soup_report_(self) -> pd.DataFrame:
        """Parameters and held-out scores of all nets, and which of them were kept."""
        if not hasattr(self, "_params"):  # a frame would not survive skops
            raise AttributeError("GreedySoup has no 'soup_report_' before it is fitted.")
        kept = np.isin(np.arange(len(self.scores_)), self.kept_)
        return pd.DataFrame(self._params).assign(score=self.scores_, kept=kept)


def _find_fitted_grid(estimator) -> ModelGrid | None:
    """Return the fitted ModelGrid inside a FrozenEstimator; None for anything else."""
    inner = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
    if not isinstance(inner, ModelGrid):
        return None
    if inner is estimator or not hasattr(inner, "cells_"):
        raise TypeError(
            "GreedySoup: 'estimator' is a ModelGrid; pass FrozenEstimator(grid) of a fitted one, "
            "or its net and its 'param_grid'."
        )
    return inner


def _members(grid: ModelGrid) -> tuple[list[dict], list]:
    """Return parameters and nets of all members whose weights are finite."""
    pairs = [
        (cell.params, net)
        for cell in grid.cells_
        for index, net in enumerate(cell.estimators)
        if index not in cell.diverged
    ]
    if not pairs:
        raise ValueError("GreedySoup: all nets of the grid diverged; lower 'lr' or scale X.")
    return [params for params, _ in pairs], [net for _, net in pairs]


def _check_cells(params: list[dict], nets: list) -> None:
    """Refuse cells of different architecture, by their parameters."""
    first = view(nets[0], caller="GreedySoup", name=f"the net of {params[0]!r}")
    for one, net in zip(params[1:], nets[1:], strict=True):
        other = view(net, caller="GreedySoup", name=f"the net of {one!r}")
        try:
            check_compatible([first, other], "GreedySoup", [repr(params[0]), repr(one)])
        except ArchitectureMismatchError as error:
            differ = [name for name in one if params[0].get(name) != one[name]]
            raise ArchitectureMismatchError(
                f"{error} A soup averages nets of one architecture: give a single value for "
                f"{', '.join(map(repr, differ))} in 'param_grid'."
            ) from None


def _align_with_best(nets: list, scores: np.ndarray, aligner, X, y) -> list:
    """Return all nets, aligned with the one that scores best, in their old order."""
    best = int(np.nan_to_num(scores, nan=-np.inf).argmax())
    order = [best, *(index for index in range(len(nets)) if index != best)]
    moved = align_models([nets[index] for index in order], aligner, X, y)
    return [moved[order.index(index)] for index in range(len(nets))]
