"""PathScore: what lies on the straight line between two models, and the barriers of its curves."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pandas as pd

from sklmc._validation import check_array, check_number, check_option

BASELINES = ("linear", "max", "mean")
METRICS = ("loss", "error", "calibrated_loss")
CURVES = (*METRICS, "inverse_temperature")  # the last two only with calibration


class Barriers:
    """The barriers of curves (..., n_alphas), as both kinds of score have them."""

    @functools.cached_property
    def barrier(self):
        """Rise of the path above its baseline."""
        return self.barrier_for()

    @functools.cached_property
    def epsilon(self):
        """Rise of the path above its worse end."""
        return self.barrier_for(baseline="max")

    @functools.cached_property
    def calibrated_barrier(self):
        """Rise of the calibrated loss above its baseline; None without calibration."""
        return None if self.calibrated_loss is None else self.barrier_for(metric="calibrated_loss")

    def _barriers(self, baseline: str | None = None, metric: str | None = None) -> np.ndarray:
        """Return the barrier of every curve, (...,)."""
        baseline = self.baseline if baseline is None else baseline
        check_option(baseline, BASELINES, f"{type(self).__name__}.barrier_for", "baseline")
        return barrier_of(self._curves(metric), self.alphas, baseline)

    def _midpoint_barriers(self) -> np.ndarray:
        """Return the midpoint's value minus the mean of the ends; negative where a path dips."""
        curves = self._curves()
        return midpoint_of(curves, self.alphas) - 0.5 * (curves[..., 0] + curves[..., -1])

    def _curves(self, metric: str | None = None) -> np.ndarray:
        """Return the curves of one metric."""
        caller, metric = type(self).__name__, self.metric if metric is None else metric
        check_option(metric, METRICS, caller, "metric")
        curves = getattr(self, metric)
        if curves is None:
            raise ValueError(
                f"{caller}: there is no {metric!r}; set 'calibration' of the LMCScorer."
            )
        return curves

    def _check_curves(self, before: tuple[int, ...]) -> None:
        """Check the curves, of shape (*before, n_alphas), and the settings."""
        caller = type(self).__name__
        n_alphas = len(check_array(self.alphas, caller, "alphas", (None,)))
        for name in CURVES:
            curve = getattr(self, name)
            if curve is not None or name in ("loss", "error"):
                check_array(curve, caller, name, (*before, n_alphas))
        check_option(self.metric, METRICS, caller, "metric")
        check_option(self.baseline, BASELINES, caller, "baseline")


@dataclasses.dataclass(frozen=True, eq=False)
class PathScore(Barriers):
    """Losses on the straight line from a model A to a model B.

    What :meth:`sklmc.LMCScorer.path` returns. Barriers compare the path with its end points and
    are never negative; smaller is better connected.

    Parameters
    ----------
    alphas : ndarray of shape (n_alphas,)
        Positions on the line, rising from 0 (A) to 1 (B); 0.5 is among them.
    loss : ndarray of shape (n_alphas,)
        Mean cross entropy in nats (classifiers) or mean squared error (regressors).
    error : ndarray of shape (n_alphas,)
        Share of samples that are classified wrongly, in [0, 1]; for regressors the same as
        `loss`.
    calibrated_loss : ndarray of shape (n_alphas,), default=None
        Cross entropy after one inverse temperature for each alpha; None if not asked for.
    inverse_temperature : ndarray of shape (n_alphas,), default=None
        That inverse temperature; above 1 the net is not confident enough.
    metric : {"loss", "error", "calibrated_loss"}, default="loss"
        What barriers are measured in where nothing else is said.
    baseline : {"linear", "mean", "max"}, default="linear"
        What the path is compared with where nothing else is said.

    Attributes
    ----------
    barrier : float
        How far the path rises above `baseline`, in `metric`; not negative.
    epsilon : float
        Rise of the path above its *worse* end, at least 0: the barrier with baseline "max".
    calibrated_barrier : float or None
        Barrier of the calibrated loss over `baseline`; None if there is no calibration.
    midpoint_barrier : float
        Value at alpha = 1/2 minus the mean of the ends. Negative where the midpoint is better.
    minimum, maximum : float
        Smallest and largest value on the path: a barrier does not see where a path dips.

    See Also
    --------
    sklmc.LMCScorer : Computes it.
    sklmc.PathDisplay : Draws it.

    Notes
    -----
    epsilon <= barrier whatever the baseline, since the worse end is at least as high as the other
    baselines.

    References
    ----------
    .. [1] Frankle, Dziugaite, Roy, Carbin, "Linear mode connectivity and the lottery ticket
       hypothesis", ICML 2020.
    .. [2] Entezari, Sedghi, Saukh, Neyshabur, "The role of permutation invariance in linear mode
       connectivity of neural networks", ICLR 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from sklmc import PathScore
    >>> score = PathScore(
    ...     alphas=np.array([0.0, 0.5, 1.0]),
    ...     loss=np.array([0.1, 0.6, 0.3]),
    ...     error=np.array([0.0, 0.2, 0.1]),
    ... )
    >>> round(score.barrier, 3), round(score.epsilon, 3)
    (0.4, 0.3)
    >>> score.is_connected(0.1)
    False
    """

    alphas: np.ndarray
    loss: np.ndarray
    error: np.ndarray
    calibrated_loss: np.ndarray | None = None
    inverse_temperature: np.ndarray | None = None
    _: dataclasses.KW_ONLY
    metric: str = "loss"
    baseline: str = "linear"

    def __post_init__(self) -> None:
        """Refuse curves that are no numbers, or not as many as there are alphas."""
        self._check_curves(())

    def values(self, metric: str | None = None) -> np.ndarray:
        """Return the path of one metric.

        Parameters
        ----------
        metric : {"loss", "error", "calibrated_loss"}, default=None
            None means the score's own `metric`.

        Returns
        -------
        values : ndarray of shape (n_alphas,)
            The values at `alphas`.
        """
        return self._curves(metric)

    def barrier_for(self, *, baseline: str | None = None, metric: str | None = None) -> float:
        """Return how far the path rises above a baseline.

        Parameters
        ----------
        baseline : {"linear", "mean", "max"}, default=None
            "linear": the straight line between the values at the ends; "mean": their mean;
            "max": the worse of the two, which gives epsilon. None means the score's own.
        metric : {"loss", "error", "calibrated_loss"}, default=None
            None means the score's own `metric`.

        Returns
        -------
        barrier : float
            Not negative; NaN where the path holds a NaN.
        """
        return float(self._barriers(baseline, metric))

    @property
    def midpoint_barrier(self) -> float:
        """Value at the midpoint minus the mean of the ends."""
        return float(self._midpoint_barriers())

    @property
    def minimum(self) -> float:
        """Smallest value on the path."""
        return float(self.values().min())

    @property
    def maximum(self) -> float:
        """Largest value on the path."""
        return float(self.values().max())

    def midpoint(self, metric: str | None = None) -> float:
        """Return the value at alpha = 1/2.

        Parameters
        ----------
        metric : {"loss", "error", "calibrated_loss"}, default=None
            None means the score's own `metric`.

        Returns
        -------
        value : float
            The value of the net halfway between A and B.
        """
        return float(midpoint_of(self.values(metric), self.alphas))

    def is_connected(self, epsilon: float) -> bool:
        """Say whether the path rises above its worse end by `epsilon` at most.

        Parameters
        ----------
        epsilon : float
            In units of the score's own `metric`.

        Returns
        -------
        connected : bool
            False also where the path holds a NaN.
        """
        check_number(epsilon, "PathScore.is_connected", "epsilon", 0)
        return bool(self.epsilon <= epsilon)

    def to_frame(self) -> pd.DataFrame:
        """Return a tidy table.

        Returns
        -------
        frame : DataFrame
            One row for each alpha: alpha, loss, error and, where asked for, calibrated_loss and
            inverse_temperature.
        """
        curves = {name: getattr(self, name) for name in CURVES}
        known = {name: curve for name, curve in curves.items() if curve is not None}
        return pd.DataFrame({"alpha": self.alphas, **known})


def baseline_of(curves: np.ndarray, alphas: np.ndarray, baseline: str) -> np.ndarray:
    """Return the baseline of curves (..., n_alphas), of the same shape."""
    first, last = curves[..., :1], curves[..., -1:]
    if baseline == "linear":
        return (1.0 - alphas) * first + alphas * last
    ends = np.maximum(first, last) if baseline == "max" else 0.5 * (first + last)
    return np.broadcast_to(ends, curves.shape)


def barrier_of(curves: np.ndarray, alphas: np.ndarray, baseline: str) -> np.ndarray:
    """Return max over alpha of curve minus baseline, (...,); NaN where a value is NaN.

    At one of its ends no curve lies below its baseline, so that this is never negative.
    """
    with np.errstate(invalid="ignore"):  # inf - inf, 0 * inf
        excess = curves - baseline_of(curves, alphas, baseline)
    # rounding of the baseline itself must not make a flat path rise
    scale = np.maximum(np.abs(curves[..., :1]), np.abs(curves[..., -1:]))
    excess = np.where(np.abs(excess) <= 4 * np.finfo(float).eps * scale, 0.0, excess)
    return excess.max(axis=-1)


def midpoint_of(curves: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Return the value at alpha = 1/2, which is always on the grid."""
    return curves[..., int(np.argmin(np.abs(alphas - 0.5)))]


def alpha_grid(n_alphas: int) -> np.ndarray:
    """Return evenly spaced alphas with both ends; an even number gets the midpoint as well."""
    grid = np.linspace(0.0, 1.0, n_alphas)
    return grid if n_alphas % 2 else np.sort(np.append(grid, 0.5))
