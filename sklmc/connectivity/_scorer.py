"""LMCScorer: paths and barriers between nets, and scores for model selection made of them."""

from __future__ import annotations

import copy
import itertools
import os
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import MetadataRequest

from sklmc._sklearn import HasMethods, Interval, StrOptions, _routing_enabled
from sklmc._validation import ChecksParameters
from sklmc.connectivity._pair_scoring import score_grid, score_pairs
from sklmc.connectivity._pairwise_score import PairwiseScore
from sklmc.connectivity._path_score import BASELINES, CURVES, PathScore, alpha_grid
from sklmc.models import ensemble_members, list_models

PAIR_KEYS = {  # minus the median over pairs of a column of PairwiseScore.to_frame
    "neg_barrier": "barrier",
    "neg_epsilon": "epsilon",
    "neg_calibrated_barrier": "calibrated_barrier",
    "neg_merged_loss": "midpoint_loss",
}
TASK_KEYS = ("accuracy", "merged_accuracy", "r2", "merged_r2")


class LMCScorer(ChecksParameters, BaseEstimator):
    """Measure what lies between nets: barriers, epsilon, calibrated loss, for one pair or all.

    The straight line from A to B in weight space is ``(1 - alpha) * A + alpha * B``. If the loss
    along it stays as low as at its ends, the nets are linearly mode connected: their weights
    can be averaged. The same object is a scorer for scikit-learn: `scoring=` of a search over
    any estimator with ``estimators_``.

    Parameters
    ----------
    metric : {"loss", "error"}, default="loss"
        What `barrier` and `epsilon` are measured in: cross entropy in nats (mean squared error
        for regressors), or the share of wrong predictions.
    n_alphas : int, default=11
        Number of evenly spaced positions, both ends included; an even number gets the midpoint
        in addition.
    baseline : {"linear", "mean", "max"}, default="linear"
        What a path is compared with: the line between the losses at its ends [2]_, their mean
        [1]_, or the worse one (then the barrier is epsilon).
    aligner : str, aligner object or None, default=None
        How B is moved onto A before the pair is scored: a method of
        :class:`~sklmc.PermutationAligner` ("weight", "activation", "straight_through", "auto"),
        "merge_many" (:class:`~sklmc.MultiAligner`), an aligner of your own (cloned for
        each pair), or an aligner whose ``fit`` takes all models, which are then brought into one
        common frame. None scores the nets as they are.
    repair : {"batch_norm"} or None, default=None
        "batch_norm" estimates running statistics again at every inner alpha; end points keep
        theirs. None interpolates them, with a warning where there are any.
    calibration : {"crossfit", "in_sample"}, (X_cal, y_cal) or None, default=None
        Adds the calibrated loss: one inverse temperature for each net on the path, the end points
        included [3]_. "in_sample" fits it on X itself, by plain minimisation; "crossfit" scores
        each of five folds of X with the inverse temperature of the others; (X_cal, y_cal) fits it
        on held-out data. Classifiers only. The last two add half an imagined sample whose labels
        are spread evenly over the classes, so that few or separable samples cannot make it run
        away.
    output : str, default="all"
        What calling the scorer returns: "all" for a dict, or one of its keys for that float.
    error_score : "raise" or float, default="raise"
        What to do about a pair that cannot be scored (a net that has diverged, an aligner that
        fails): raise, or put this value in its place and warn. If no pair can be scored, the
        error is raised.
    cache_dir : str or path, default=None
        Folder where `grid` stores the score of every finished cell at once, and from where a run
        that was cut off, even killed, goes on: it ends with the same bytes as an undisturbed one.
        An aligner needs an int as its ``random_state``; one named by its method has it.
    n_jobs : int or None, default=None
        Number of blocks of pairs that are scored at the same time, by joblib and whatever backend
        it is set to. The result does not depend on it.
    verbose : int, default=0
        1 shows a progress bar over pairs.

    See Also
    --------
    PathScore, PairwiseScore : What is returned.
    sklmc.PathDisplay : Draws a path.
    PermutationAligner : Brings B closest to A.

    Notes
    -----
    A Pipeline counts as its last step, seen through the earlier ones. Everything is scored in
    eval mode; models are not changed. Losses are true means over samples; logits come from the
    net, never from clipped probabilities. The aligner and the repair see X and y, or the
    calibration data where (X_cal, y_cal) is given; they count all samples alike but for those of
    weight zero, which are left out everywhere. An aligner named by its method runs with
    ``random_state=0``.

    Samples with several labels, y of shape (n_samples, n_tokens), need logits of shape (n_samples,
    n_tokens, n_classes). As many tokens as classes are refused: torch's losses have the classes on
    axis 1, and nothing tells which is meant.

    Called as ``scorer(estimator, X, y)`` it returns greater-is-better values over the pairs i < j
    of ``estimator.estimators_``: ``neg_barrier``, ``neg_epsilon``, ``neg_calibrated_barrier`` (if
    set) and ``neg_merged_loss`` are minus the median over pairs, the merged net of a pair being
    its midpoint; ``accuracy`` (``r2`` for regressors) is the mean over members, and
    ``merged_accuracy`` (``merged_r2``) the median over pairs of the midpoint's. r2 is one minus
    the mean squared error over the variance of y, both averaged over outputs. A dead net has no
    barrier: search with ``refit="merged_accuracy"``.

    Nets whose first weight layer is a Linear or convolutional one share the work up to that layer
    between all pairs and alphas; chains of Linear layers, norms and pointwise activations run
    all alphas in one batched product. What is taken is proved on a few samples first.

    Stored scores are found by fingerprints of the nets (weights, modules, parameters), X and y as
    the nets take them, the positions, `aligner`, `repair`, `calibration` and the versions; those
    of anything else stay untouched. `metric`, `baseline` and `output` are read off the stored
    paths, so that they may change. Several processes may fill one folder together: each cell is
    scored by one, and the others wait for it. A cell with a pair that failed is scored again. A
    file whose checksum is wrong is named in a warning, moved aside and scored again.

    References
    ----------
    .. [1] Frankle, Dziugaite, Roy, Carbin, "Linear mode connectivity and the lottery ticket
       hypothesis", ICML 2020.
    .. [2] Entezari, Sedghi, Saukh, Neyshabur, "The role of permutation invariance in linear mode
       connectivity of neural networks", ICLR 2022.
    .. [3] Ito, Yamada, Chijiwa, Kumagai, "Do we really need permutations? Impact of width
       expansion on linear mode connectivity", 2025.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import LMCScorer, NetClassifier
    >>> X, y = make_moons(100, noise=0.1, random_state=0)
    >>> a, b = (NetClassifier(max_epochs=20, random_state=i).fit(X, y) for i in range(2))
    >>> score = LMCScorer(n_alphas=5).path(a, b, X, y)
    >>> score.alphas.tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    >>> bool(score.epsilon <= score.barrier)
    True
    """

    _parameter_constraints: dict = {
        "metric": [StrOptions({"loss", "error"})],
        "n_alphas": [Interval(Integral, 2, None, closed="left")],
        "baseline": [StrOptions(set(BASELINES))],
        "aligner": [str, HasMethods(["fit", "transform"]), None],
        "repair": [StrOptions({"batch_norm"}), None],
        "calibration": [StrOptions({"crossfit", "in_sample"}), tuple, None],
        "output": [StrOptions({"all", *PAIR_KEYS, *TASK_KEYS})],
        "error_score": [StrOptions({"raise"}), Real],
        "cache_dir": [str, os.PathLike, None],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        metric="loss",
        *,
        n_alphas=11,
        baseline="linear",
        aligner=None,
        repair=None,
        calibration=None,
        output="all",
        error_score="raise",
        cache_dir=None,
        n_jobs=None,
        verbose=0,
    ):
        self.metric = metric
        self.n_alphas = n_alphas
        self.baseline = baseline
        self.aligner = aligner
        self.repair = repair
        self.calibration = calibration
        self.output = output
        self.error_score = error_score
        self.cache_dir = cache_dir
        self.n_jobs = n_jobs
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        return tags

    def path(self, model_a, model_b, X, y=None, sample_weight=None) -> PathScore:
        """Score the straight line between two models.

        Parameters
        ----------
        model_a, model_b : skorch net, fitted sklmc estimator, Pipeline or torch.nn.Module
            A (alpha = 0) is the reference; B (alpha = 1) moves onto A if there is an aligner.
            Neither is changed. The same object twice has barrier 0.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
            Samples, as the models take them.
        y : array-like of shape (n_samples,), default=None
            Labels the models know, or targets. For plain modules integers are classes
            0..n_classes-1 and floats are regression. None where X holds them (Dataset, DataLoader).
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, not negative: losses, errors and calibrated losses are weighted
            means. None means equal weights.

        Returns
        -------
        score : PathScore
            Losses along the line.

        Raises
        ------
        ArchitectureMismatchError
            If the tensors, tasks or classes of A and B differ (a ValueError).
        ValueError
            If X is empty, y has another length or unknown labels, or a weight is not finite.
        NotFittedError
            If a model is not fitted.
        TypeError
            If something is no model.
        """
        strict = copy.copy(self)
        strict.error_score = "raise"
        models, names = [model_a, model_b], ["model_a", "model_b"]
        curves, _, _ = strict._score("LMCScorer.path", models, [(0, 1)], X, y, names, sample_weight)
        return PathScore(**self._fields(curves.values[:, 0]))

    def pairwise(self, models, X, y=None, sample_weight=None) -> PairwiseScore:
        """Score the lines between all pairs of some models.

        Parameters
        ----------
        models : list of skorch nets, fitted sklmc estimators, Pipelines or torch.nn.Modules
            At least two, all of one architecture. None is changed. The same object may come
            several times; its barrier with itself is 0.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
            Samples, as the models take them.
        y : array-like of shape (n_samples,), default=None
            Labels the models know, or targets. None where X holds them (Dataset, DataLoader).
        sample_weight : array-like of shape (n_samples,), default=None
            As for :meth:`path`.

        Returns
        -------
        score : PairwiseScore
            Symmetric matrices of barriers, and the paths of all pairs i < j, in which
            ``models[j]`` moves onto ``models[i]`` if there is an aligner.

        Raises
        ------
        ArchitectureMismatchError
            If the tensors, tasks or classes of two models differ (a ValueError).
        ValueError
            If there are fewer than two models, X is empty, y has another length or unknown
            labels, or a weight is not finite.
        NotFittedError
            If a model is not fitted.
        TypeError
            If something is no model.
        """
        return self._pairwise("LMCScorer.pairwise", models, X, y, sample_weight)[0]

    def grid(self, model_grid, X, y=None, sample_weight=None) -> pd.DataFrame:
        """Score the pairs of every cell of a grid of populations.

        Parameters
        ----------
        model_grid : fitted ModelGrid, or anything with ``cells_``
            Each cell has `params` (a dict) and `estimators` (at least two models).
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
            Samples, as the models take them.
        y : array-like of shape (n_samples,), default=None
            Labels the models know, or targets. None where X holds them (Dataset, DataLoader).
        sample_weight : array-like of shape (n_samples,), default=None
            As for :meth:`path`.

        Returns
        -------
        frame : DataFrame
            One row for each cell, condition and pair: a column for each parameter (labelled as
            in ``ModelGrid.summary``, so that both can be merged), `condition` ("naive"; with an
            aligner also "aligned"), and the columns of :meth:`PairwiseScore.to_frame`. With a
            numeric `error_score`, a cell that cannot be scored keeps its rows, with that score
            and the reason in `failure`.
        """
        return score_grid(self, model_grid, X, y, sample_weight)

    def set_score_request(self, *, sample_weight):
        """Say whether this scorer wants weights of samples where metadata is routed.

        Parameters
        ----------
        sample_weight : bool, str or None
            True asks for ``sample_weight``, a name for metadata of that name, False for none; None
            is an error where there are any.

        Returns
        -------
        self
            The scorer.
        """
        if not _routing_enabled():
            raise RuntimeError(
                "LMCScorer.set_score_request: metadata is not routed; call "
                "sklearn.set_config(enable_metadata_routing=True) first."
            )
        self._metadata_request = MetadataRequest(owner=self)
        self._metadata_request.score.add_request(param="sample_weight", alias=sample_weight)
        return self

    def __call__(self, estimator, X, y=None, sample_weight=None):
        """Score a fitted estimator's members, greater is better.

        Parameters
        ----------
        estimator : estimator with ``estimators_``, or a Pipeline that ends in one
            A fitted DeepEnsemble, for example.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
            Samples.
        y : array-like of shape (n_samples,), default=None
            Labels or targets. None where X holds them (Dataset, DataLoader).
        sample_weight : array-like of shape (n_samples,), default=None
            As for :meth:`path`. Where metadata is routed, searches hand it over after
            ``set_score_request(sample_weight=True)``.

        Returns
        -------
        scores : dict of str to float, or float
            All values, or the one that `output` names; see Notes.
        """
        caller = "LMCScorer"
        members = ensemble_members(estimator, caller)
        if members is None:
            inner = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
            raise TypeError(
                f"{caller}: the estimator must have 'estimators_' (a fitted DeepEnsemble, for "
                f"example), got {type(inner).__name__}; for two models use path, for a list of "
                "them pairwise."
            )
        score, classify, variance = self._pairwise(caller, members, X, y, sample_weight)
        values = self._summary(score, classify, variance)
        if self.output == "all":
            return values
        if self.output not in values:
            raise ValueError(
                f"{caller}: 'output' is {self.output!r}, but these models give "
                f"{', '.join(map(repr, values))} only (calibration={self.calibration!r})."
            )
        return values[self.output]

    def _summary(self, score: PairwiseScore, classify: bool, variance: float) -> dict[str, float]:
        """Return medians over pairs and means over members, greater is better."""
        frame = score.to_frame()
        values = {
            name: -np.median(frame[column]) for name, column in PAIR_KEYS.items() if column in frame
        }
        member = np.full(score.n_models, np.nan)
        member[frame.model_b] = frame.error_b
        member[frame.model_a] = frame.error_a
        if classify:
            values["accuracy"] = 1.0 - np.mean(member)
            values["merged_accuracy"] = 1.0 - np.median(frame.midpoint_error)
        else:
            losses = {"r2": np.mean(member), "merged_r2": np.median(frame.midpoint_loss)}
            for name, loss in losses.items():
                values[name] = 1.0 - loss / variance if variance else np.nan
        return {name: float(value) + 0.0 for name, value in values.items()}  # no -0.0

    def _pairwise(
        self, caller: str, models, X, y, sample_weight=None, folder: Path | None = None
    ) -> tuple[PairwiseScore, bool, float]:
        """Score all pairs; also return whether they classify, and the variance of y."""
        self._validate_params()
        models = list_models(models, caller, minimum=2)
        pairs = list(itertools.combinations(range(len(models)), 2))
        names = [f"models[{k}]" for k in range(len(models))]
        curves, classify, variance = self._score(
            caller, models, pairs, X, y, names, sample_weight, folder
        )
        failures = {pairs[k]: reason for k, reason in curves.failures.items()}
        return self._to_score(len(models), curves.values, failures), classify, variance

    def _to_score(self, n_models: int, values: np.ndarray, failures) -> PairwiseScore:
        """Return the score that the four curves of all pairs (4, n_pairs, n_alphas) are."""
        return PairwiseScore(
            n_models,
            **self._fields(values),
            failures=failures,
            error_score=np.nan if self.error_score == "raise" else float(self.error_score),
        )

    def _fields(self, values: np.ndarray) -> dict:
        """Return what scores of one pair and of all have in common, from the four curves."""
        known = CURVES if self.calibration is not None else CURVES[:2]
        return {
            "alphas": alpha_grid(self.n_alphas),
            "metric": self.metric,
            "baseline": self.baseline,
            **dict(zip(known, values)),
        }

    def _score(self, caller: str, models, pairs, X, y, names, sample_weight=None, folder=None):
        """Check what the constructor stored and score some pairs."""
        self._validate_params()
        if isinstance(self.calibration, tuple) and len(self.calibration) != 2:
            raise ValueError(
                f"{caller}: 'calibration' must be the pair (X_cal, y_cal), got a tuple of "
                f"{len(self.calibration)}."
            )
        return score_pairs(models, pairs, X, y, names, caller, self, folder, sample_weight)


def check_scorer(scorer, caller: str, **defaults) -> LMCScorer:
    """Return `scorer`; an LMCScorer with these settings where it is None."""
    if scorer is None:
        return LMCScorer(**defaults)
    if not isinstance(scorer, LMCScorer):
        raise TypeError(f"{caller}: 'scorer' must be an LMCScorer, got {type(scorer).__name__}.")
    return scorer
