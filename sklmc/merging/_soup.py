"""Model soups: the mean of those nets that go well together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral, Real

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.metrics import check_scoring
from sklearn.model_selection import ParameterGrid
from skorch import NeuralNet
from tqdm.auto import tqdm

from sklmc._sklearn import FrozenEstimator, HasMethods, Interval, StrOptions
from sklmc.alignment import ALIGNER_NAMES, check_aligner
from sklmc.estimators import ModelGrid
from sklmc.estimators._members import Data
from sklmc.estimators._seeds import resolve_seed
from sklmc.estimators._wrapper import NetWrapper, check_net
from sklmc.exceptions import ArchitectureMismatchError
from sklmc.merging._merge import align_models, merge_views
from sklmc.merging._nets_in_hand import clone_around_nets, first_net, holds_nets, read_nets
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.merging._reports._holdout import check_rows, hold_out, leave_unweighted
from sklmc.merging._reports._scoring import call_scorer
from sklmc.models import ModelView, describe, view, view_compatible, with_provenance


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
    """Average those nets of a grid, or of nets in hand, that do better together than apart.

    The nets of a hyperparameter search are usually thrown away but for the best. A greedy soup
    [1]_ goes through them in the order of their held-out scores and keeps each whose weights,
    averaged with those kept before, raise the score: the result is one net, never worse on the
    held-out samples than the best single one. Often it is that one: `verdict_` says so.

    Parameters
    ----------
    estimator : NetClassifier, NetRegressor or another skorch net, or fitted nets
        The net to train, with a `param_grid`. Or nets in hand, which are taken as they are and
        stay fitted in a clone (all samples of fit are then held-out samples): a list of fitted
        nets, Pipelines or modules, pairs (name, net), what ``cross_validate`` returns, a fitted
        :class:`ModelGrid` or ensemble, a pair of a net and a list of states; each of these in a
        ``FrozenEstimator``, too.
    param_grid : dict or list of dicts, default=None
        Values by name, as for scikit-learn's ``ParameterGrid``. Nets of different architecture
        cannot be averaged: no width or depth in it. None for nets in hand.
    n_estimators : int, default=1
        Nets for each point of the grid, which differ by seed.
    scoring : str, callable or None, default=None
        What is held out for: greater is better, as in scikit-learn. None takes the net's own
        score (accuracy or R2). Plain modules in hand need a callable ``scoring(module, X, y)``.
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
        All nets of the grid that did not diverge (all nets in hand), aligned, in their order.
    kept_ : list of int
        Which of them are in the soup, in the order in which they were kept.
    scores_ : ndarray of shape (n_nets,)
        Their held-out scores.
    soup_score_ : float
        The held-out score of the soup; at least the largest of `scores_`.
    uniform_score_ : float
        The held-out score of the mean of all nets.
    soup_report_ : DataFrame
        One row per net: its parameters in the grid or its name, ``score``, and ``kept``.
    verdict_ : str
        How many nets the soup holds and what that is worth; says so where it is one net alone.
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
    fit, for nets in hand). The score of a soup of several nets flatters it: those were chosen by
    the same samples. A soup of one net is no failure and warns of nothing: scores that barely
    differ, few held-out samples, or nets that share no part of their training often end so.

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

    Nets in hand, and held-out samples:

    >>> nets = [NetClassifier(lr=lr, max_epochs=10).fit(X[:150], y[:150]) for lr in (0.01, 0.02)]
    >>> soup = GreedySoup(nets, aligner="weight", scoring="neg_log_loss").fit(X[150:], y[150:])
    >>> soup.verdict_.startswith("The soup")
    True
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit"]), list, tuple, dict],
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
        in_hand = self._nets_in_hand()
        X, y = check_rows(X, y, "GreedySoup")
        seed = resolve_seed(self.random_state)
        fraction = None if in_hand else self.validation_fraction
        train, judged, _ = hold_out(Data(X, y, sample_weight), fraction, self, seed, "GreedySoup")
        labels, nets = in_hand or self._trained_nets(train, seed)
        train, judged = leave_unweighted(train), leave_unweighted(judged)
        looks = _view_alike(labels, nets)
        nets = [look.model for look in looks]
        scorer = _find_scorer(nets[0], self.scoring)

        def score_net(net) -> float:
            score = call_scorer(scorer, net, judged, "GreedySoup")
            try:
                return float(score)
            except (TypeError, ValueError):
                raise TypeError(
                    "GreedySoup: 'scoring' must return one number for a net, greater is better, "
                    f"got {score!r}."
                ) from None

        scores = np.array([score_net(net) for net in nets])
        self.estimators_ = _align_with_best(nets, scores, self.aligner, train.X, train.y)
        looks = [view(net, caller="GreedySoup") for net in self.estimators_]
        inputs = looks[0].to_input(train.X)
        with tqdm(total=len(nets), desc="GreedySoup", disable=self.verbose < 1) as bar:

            def mix(members: list[int]):
                chosen = [looks[index] for index in members]
                weights = np.full(len(members), 1.0 / len(members))
                ends = EndPoints([look.state for look in chosen], weights)
                return merge_views(chosen, ends, SampleSet(inputs), "batch_norm").model

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
        self._labels = labels
        self.verdict_ = self._judge(len(judged.y))
        self._remember_features()
        return self

    def _nets_in_hand(self) -> tuple[list[dict], list] | None:
        """Return labels and nets where they are given; None for a net to train."""
        given = self.estimator
        inner = given.estimator if isinstance(given, FrozenEstimator) else given
        stands = isinstance(given, (FrozenEstimator, ModelGrid)) or holds_nets(given, "GreedySoup")
        if self.param_grid is not None and not stands:
            check_net(given, "GreedySoup")
            return None
        if self.param_grid is not None or isinstance(given, NeuralNet):
            raise ValueError(
                "GreedySoup: 'param_grid' must be given for a net to train, and must be None for a "
                "fitted ModelGrid or other nets in hand; got "
                f"{self.param_grid!r} for the 'estimator' {type(given).__name__}."
            )
        if not isinstance(inner, ModelGrid):
            names, nets = read_nets(given, "GreedySoup")
            return [{"net": name} for name in names], nets
        if not hasattr(inner, "cells_"):
            raise TypeError(
                "GreedySoup: 'estimator' is a ModelGrid that is not fitted; pass a fitted one, or "
                "its net and its 'param_grid'."
            )
        return _members(inner)

    def _trained_nets(self, train: Data, seed: int) -> tuple[list[dict], list]:
        """Train the grid; return parameters and nets."""
        grid = ModelGrid(
            self.estimator,
            self.param_grid,
            n_estimators=self.n_estimators,
            n_jobs=self.n_jobs,
            random_state=seed,
            verbose=self.verbose,
        )
        return _members(grid.fit(*train))

    def _judge(self, n_samples: int) -> str:
        """Say what came of it."""
        best = int(self.kept_[0])
        alone = f"{_named(self._labels[best])} (score {self.scores_[best]:.4g})"
        n_nets, n_kept = len(self.scores_), len(self.kept_)
        on = f"on {n_samples} held-out samples"
        if n_nets == 1:
            return f"The soup is {alone}, {on}: there was no other net."
        if n_kept == 1:
            return (
                f"The soup is {alone} alone, {on}: averaged with any other of the {n_nets} nets it "
                f"did no better (the mean of all: {self.uniform_score_:.4g})."
            )
        return (
            f"The soup holds {n_kept} of {n_nets} nets and scores {self.soup_score_:.4g} {on}, by "
            f"which they were chosen; the best net alone is {alone}, the mean of all scores "
            f"{self.uniform_score_:.4g}."
        )

    def _template(self):
        """Return what the net will be like, before there is one."""
        inner = first_net(self.estimator)
        return inner.estimator if isinstance(inner, ModelGrid) else inner

    def __sklearn_tags__(self):
        if not hasattr(self._template(), "__sklearn_tags__"):  # a module has no task
            return BaseEstimator.__sklearn_tags__(self)
        return super().__sklearn_tags__()

    def __sklearn_clone__(self):
        """Keep nets in hand fitted; nets to train are cloned like any other."""
        if self.param_grid is None:
            return clone_around_nets(self)
        return super().__sklearn_clone__()

    def _predicting_nets(self) -> list:
        """Return the soup, if it can predict."""
        if not hasattr(self.estimator_, "predict"):
            raise TypeError(
                "GreedySoup: the soup of plain modules is a module, which predicts no labels by "
                "itself; call its 'estimator_'."
            )
        return [self.estimator_]

    @property
    def soup_report_(self) -> pd.DataFrame:
        """Parameters and held-out scores of all nets, and which of them were kept."""
        if not hasattr(self, "_labels"):  # a frame would not survive skops
            raise AttributeError("GreedySoup has no 'soup_report_' before it is fitted.")
        kept = np.isin(np.arange(len(self.scores_)), self.kept_)
        return pd.DataFrame(self._labels).assign(score=self.scores_, kept=kept)


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


def _named(label: dict) -> str:
    """Return the name of a net, or its parameters."""
    if label.keys() == {"net"}:
        return label["net"]
    return f"the net of {', '.join(f'{name}={value!r}' for name, value in label.items())}"


def _view_alike(labels: list[dict], nets: list) -> list[ModelView]:
    """Return views of nets that can be averaged; refuse others, by their parameters."""
    names = [_named(label) for label in labels]
    try:
        return view_compatible(nets, "GreedySoup", names)
    except ArchitectureMismatchError as error:
        states = [view(net, caller="GreedySoup").state for net in nets]
        sizes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
        other = next((label for label, own in zip(labels, sizes) if own != sizes[0]), {})
        differ = [key for key in other if key != "net" and labels[0].get(key) != other[key]]
        if not differ:
            raise
        raise ArchitectureMismatchError(
            f"{error} A soup averages nets of one architecture: give a single value for "
            f"{', '.join(map(repr, differ))} in 'param_grid'."
        ) from None


def _find_scorer(net, scoring) -> Callable:
    """Return the scorer of nets like this one."""
    if callable(scoring):
        return scoring
    if not hasattr(net, "predict"):
        raise TypeError(
            f"GreedySoup: 'scoring' must be a callable scoring(module, X, y) for plain modules "
            f"({type(net).__name__}), which predict no labels by themselves, got {scoring!r}."
        )
    return check_scoring(net, scoring)


def _align_with_best(nets: list, scores: np.ndarray, aligner, X, y) -> list:
    """Return all nets, aligned with the one that scores best, in their old order."""
    best = int(np.nan_to_num(scores, nan=-np.inf).argmax())
    order = [best, *(index for index in range(len(nets)) if index != best)]
    moved = align_models([nets[index] for index in order], aligner, X, y)
    return [moved[order.index(index)] for index in range(len(nets))]
