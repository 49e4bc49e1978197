"""PairwiseScore: what lies between all pairs of some models."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from sklmc._validation import check_integer, check_mapping, check_number, check_option, check_seed
from sklmc.connectivity._clusters import ModelClusters, cluster_models
from sklmc.connectivity._intervals import MedianInterval, median_interval
from sklmc.connectivity._path_score import CURVES, Barriers, PathScore, midpoint_of

MATRICES = ("barrier", "epsilon", "calibrated_barrier")


@dataclasses.dataclass(frozen=True, eq=False)
class PairwiseScore(Barriers):
    """Barriers between all pairs of some models.

    What :meth:`sklmc.LMCScorer.pairwise` returns. The matrices are symmetric with a zero
    diagonal; barriers are never negative, and NaN where a loss on the path is.

    Parameters
    ----------
    n_models : int
        Number of models.
    alphas : ndarray of shape (n_alphas,)
        Positions on each line, rising from 0 (the model with the smaller index) to 1.
    loss, error : ndarray of shape (n_pairs, n_alphas)
        The paths of all pairs i < j, in the order of ``numpy.triu_indices(n_models, 1)``.
    calibrated_loss, inverse_temperature : ndarray of shape (n_pairs, n_alphas), default=None
        None if not asked for.
    metric : {"loss", "error"}, default="loss"
        What `barrier` and `epsilon` are measured in.
    baseline : {"linear", "mean", "max"}, default="linear"
        What `barrier` and `calibrated_barrier` compare the path with.
    failures : dict, default={}
        Pairs (i, j) that could not be scored, with the reason.
    error_score : float, default=nan
        What stands for a pair that could not be scored.

    Attributes
    ----------
    barrier : ndarray of shape (n_models, n_models)
        Barrier of each pair in `metric` over `baseline`.
    epsilon : ndarray of shape (n_models, n_models)
        Rise of each path above its worse end, in `metric`.
    calibrated_barrier : ndarray of shape (n_models, n_models) or None
        Barrier of the calibrated loss over `baseline`; None if there is no calibration.
    midpoint_barrier : ndarray of shape (n_models, n_models)
        Value at alpha = 1/2 minus the mean of the ends, in `metric`. Negative where the midpoint
        is better.

    See Also
    --------
    PathScore : One pair.
    sklmc.LMCScorer : Computes it.

    References
    ----------
    .. [1] Efron and Tibshirani, "An introduction to the bootstrap", 1993.
    .. [2] Gower and Ross, "Minimum spanning trees and single linkage cluster analysis", 1969.

    Examples
    --------
    >>> import numpy as np
    >>> from sklmc import PairwiseScore
    >>> paths = np.array([[0.1, 0.5, 0.1], [0.1, 0.1, 0.1], [0.1, 0.3, 0.1]])
    >>> score = PairwiseScore(
    ...     n_models=3, alphas=np.array([0.0, 0.5, 1.0]), loss=paths, error=paths
    ... )
    >>> score.barrier.round(2)
    array([[0. , 0.4, 0. ],
           [0.4, 0. , 0.2],
           [0. , 0.2, 0. ]])
    """

    n_models: int
    alphas: np.ndarray
    loss: np.ndarray
    error: np.ndarray
    calibrated_loss: np.ndarray | None = None
    inverse_temperature: np.ndarray | None = None
    _: dataclasses.KW_ONLY
    metric: str = "loss"
    baseline: str = "linear"
    failures: Mapping[tuple[int, int], str] = dataclasses.field(default_factory=dict)
    error_score: float = np.nan

    def __post_init__(self) -> None:
        """Refuse curves that are not those of all pairs."""
        n = check_integer(self.n_models, "PairwiseScore", "n_models", 1)
        self._check_curves((n * (n - 1) // 2,))
        check_mapping(self.failures, "PairwiseScore", "failures")
        if not (isinstance(self.error_score, float) and np.isnan(self.error_score)):
            check_number(self.error_score, "PairwiseScore", "error_score")

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Pairs (i, j) with i < j in the order of the paths."""
        return list(itertools.combinations(range(self.n_models), 2))

    @functools.cached_property
    def midpoint_barrier(self) -> np.ndarray:
        """Symmetric matrix of values at the midpoint minus the mean of the ends."""
        return self._square(self._midpoint_barriers())

    def barrier_for(self, *, baseline: str | None = None, metric: str | None = None) -> np.ndarray:
        """Return how far the path of every pair rises above a baseline.

        Parameters
        ----------
        baseline : {"linear", "mean", "max"}, default=None
            "linear": the straight line between the values at the ends; "mean": their mean;
            "max": the worse of the two, which gives epsilon. None means the score's own.
        metric : {"loss", "error", "calibrated_loss"}, default=None
            None means the score's own `metric`.

        Returns
        -------
        barrier : ndarray of shape (n_models, n_models)
            Symmetric with a zero diagonal.
        """
        return self._square(self._barriers(baseline, metric))

    def midpoints(self, metric: str | None = None) -> np.ndarray:
        """Return the value at alpha = 1/2 of every pair.

        Parameters
        ----------
        metric : {"loss", "error", "calibrated_loss"}, default=None
            None means the score's own.

        Returns
        -------
        values : ndarray of shape (n_pairs,)
            In the order of `pairs`.
        """
        return self._with_failures(midpoint_of(self._curves(metric), self.alphas))

    def path(self, i: int, j: int) -> PathScore:
        """Return the path from model i to model j.

        Parameters
        ----------
        i, j : int
            Two different models. With i > j the path is turned round; what was aligned is
            still the model with the larger index.

        Returns
        -------
        score : PathScore
            Losses along the line.
        """
        for name, index in (("i", i), ("j", j)):
            check_integer(index, "PairwiseScore.path", name, 0)
        low, high = min(i, j), max(i, j)
        if not 0 <= low < high < self.n_models:
            raise ValueError(
                "PairwiseScore.path: 'i' and 'j' must be two different models of "
                f"0..{self.n_models - 1}, got {i!r} and {j!r}."
            )
        row, step = self.pairs.index((low, high)), 1 if i < j else -1
        curves = {name: getattr(self, name) for name in CURVES}
        own = {name: c if c is None else c[row][::step] for name, c in curves.items()}
        return PathScore(self.alphas, **own, metric=self.metric, baseline=self.baseline)

    def interval(
        self, *, quantity="barrier", confidence=0.95, n_resamples=1000, random_state=None
    ) -> MedianInterval:
        """Return the median over pairs with its bootstrap interval.

        Pairs share models, so that they are not independent: models are resampled, and a
        resample's pairs are those of different models among it [1]_. The percentiles' distances
        from the median are then stretched for n models as Student's t does for a mean, by
        ``sqrt(n / (n - 1))`` and the ratio of the quantiles of t (n - 1 degrees of freedom) and
        of the normal distribution: 1.6 for 5 models, 1.2 for 10, 1.05 for 40.

        Parameters
        ----------
        quantity : {"barrier", "epsilon", "calibrated_barrier"}, default="barrier"
            What the median is of.
        confidence : float, default=0.95
            Coverage, in (0, 1).
        n_resamples : int, default=1000
            Number of resamples.
        random_state : int, RandomState instance or None, default=None
            Draws the resamples.

        Returns
        -------
        interval : MedianInterval
            The named tuple (estimate, low, high); NaN where a pair is.

        Notes
        -----
        Measured with ``confidence=0.95`` (2,000 draws from pools of 800 models, standard error at
        most .0062; ``benchmarks/bench_interval_coverage.py``), 5 / 10 / 20 / 40 models hold the
        pool's median in .92 / .96 / .95 / .96 of cases where a barrier is the sum of an effect of
        each model, and no pair has anything of its own; .98 / .96 / .96 / .96 for nets on two
        moons aligned to one of them; .98 and more for three pools that were not aligned, where
        intervals are wider than they need be. With 5 models trust it as one of .9.
        """
        caller = "PairwiseScore.interval"
        values = self._values(quantity, caller)
        return self._interval(values, confidence, n_resamples, random_state, caller, lowest=0.0)

    def compare(
        self, other, *, quantity="barrier", confidence=0.95, n_resamples=1000, random_state=None
    ) -> MedianInterval:
        """Return the median of the paired differences, self minus `other`, with its interval.

        Parameters
        ----------
        other : PairwiseScore
            Scores of the same models in the same order under another condition (aligned, say),
            or of as many models that belong together one by one (the same seeds).
        quantity : {"barrier", "epsilon", "calibrated_barrier"}, default="barrier"
            What is compared.
        confidence : float, default=0.95
            Coverage, in (0, 1).
        n_resamples : int, default=1000
            Number of resamples of models, the same ones for both.
        random_state : int, RandomState instance or None, default=None
            Draws the resamples.

        Returns
        -------
        interval : MedianInterval
            The named tuple (estimate, low, high); above 0 where self is worse. An interval
            without 0 tells the two apart.
        """
        caller = "PairwiseScore.compare"
        if not isinstance(other, PairwiseScore):
            raise TypeError(
                f"{caller}: 'other' must be a PairwiseScore, got {type(other).__name__}."
            )
        if other.n_models != self.n_models:
            raise ValueError(
                f"{caller}: the difference is taken pair by pair, but 'other' has "
                f"{other.n_models} models and this score {self.n_models}; score the same models."
            )
        difference = self._values(quantity, caller) - other._values(quantity, caller)
        return self._interval(difference, confidence, n_resamples, random_state, caller)

    def cluster(self, *, quantity="epsilon", linkage="single", on="distance") -> ModelClusters:
        """Cluster the models hierarchically.

        Parameters
        ----------
        quantity : {"barrier", "epsilon", "calibrated_barrier"}, default="epsilon"
            Which matrix.
        linkage : {"single", "complete", "average", "weighted"}, default="single"
            How the distance between clusters follows from that between models. "single" joins
            what a chain of low barriers connects [2]_.
        on : {"distance", "rows"}, default="distance"
            "distance": the matrix itself is the distance between models. "rows": the Euclidean
            distance between its rows, which brings models together that are alike in their
            barriers to all others.

        Returns
        -------
        clusters : ModelClusters
            Linkage, order of leaves, and labels at any height or number of clusters.
        """
        caller = "PairwiseScore.cluster"
        self._values(quantity, caller)
        return cluster_models(getattr(self, quantity), linkage, on, caller)

    def to_frame(self) -> pd.DataFrame:
        """Return a tidy table.

        Returns
        -------
        frame : DataFrame
            One row for each pair: model_a, model_b; barrier and epsilon (in `metric`);
            loss_barrier and error_barrier; midpoint_barrier (in `metric`, signed); loss_a, loss_b,
            error_a, error_b, midpoint_loss, midpoint_error; minimum and maximum (in `metric`);
            where there is calibration calibrated_barrier, midpoint_calibrated_loss and
            midpoint_inverse_temperature; and failure, the reason, missing where there is none.
        """
        a, b = np.triu_indices(self.n_models, 1)
        curves = self._curves()
        columns = {
            "model_a": a,
            "model_b": b,
            "barrier": self._barriers(),
            "epsilon": self._barriers("max"),
            "loss_barrier": self._barriers(metric="loss"),
            "error_barrier": self._barriers(metric="error"),
            "midpoint_barrier": self._midpoint_barriers(),
            "loss_a": self.loss[:, 0],
            "loss_b": self.loss[:, -1],
            "error_a": self.error[:, 0],
            "error_b": self.error[:, -1],
            "midpoint_loss": self.midpoints("loss"),
            "midpoint_error": self.midpoints("error"),
            "minimum": self._with_failures(curves.min(axis=1)),
            "maximum": self._with_failures(curves.max(axis=1)),
        }
        if self.calibrated_loss is not None:
            columns["calibrated_barrier"] = self._barriers(metric="calibrated_loss")
            columns["midpoint_calibrated_loss"] = self.midpoints("calibrated_loss")
            columns["midpoint_inverse_temperature"] = midpoint_of(
                self.inverse_temperature, self.alphas
            )
        columns["failure"] = np.array([self.failures.get(pair) for pair in self.pairs], object)
        return pd.DataFrame(columns)

    def _barriers(self, baseline: str | None = None, metric: str | None = None) -> np.ndarray:
        """Return the barrier of every pair, (n_pairs,)."""
        return self._with_failures(super()._barriers(baseline, metric))

    def _midpoint_barriers(self) -> np.ndarray:
        """Return the midpoint barrier of every pair, (n_pairs,)."""
        return self._with_failures(super()._midpoint_barriers())

    def _values(self, quantity: str, caller: str) -> np.ndarray:
        """Return one of the matrices as a value for each pair."""
        check_option(quantity, MATRICES, caller, "quantity")
        if quantity == "calibrated_barrier":
            return self._barriers(metric="calibrated_loss")
        return self._barriers("max" if quantity == "epsilon" else None)

    def _interval(
        self, values, confidence, n_resamples, random_state, caller: str, lowest=-np.inf
    ) -> MedianInterval:
        """Check what is common to interval and compare, and resample."""
        check_number(confidence, caller, "confidence")
        if not 0.0 < confidence < 1.0:
            raise ValueError(f"{caller}: 'confidence' must lie in (0, 1), got {confidence!r}.")
        check_integer(n_resamples, caller, "n_resamples", 1)
        rng = check_seed(random_state, caller)
        return median_interval(values, self.n_models, confidence, n_resamples, rng, lowest)

    def _with_failures(self, values: np.ndarray) -> np.ndarray:
        """Put error_score where a pair failed."""
        failed = [pair in self.failures for pair in self.pairs]
        return np.where(failed, self.error_score, values) if self.failures else values

    def _square(self, values: np.ndarray) -> np.ndarray:
        """Spread one value for each pair over a symmetric matrix with a zero diagonal."""
        matrix = np.zeros((self.n_models, self.n_models))
        a, b = np.triu_indices(self.n_models, 1)
        matrix[a, b] = matrix[b, a] = values
        return matrix
