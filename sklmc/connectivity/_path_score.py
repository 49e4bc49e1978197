"""PathScore: what lies on the straight line between two models, and the barriers of its curves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from sklmc._validation import check_array, check_number, check_option

BASELINES = ("linear", "max", "mean")
METRICS = ("loss", "error", "calibrated_loss")


@dataclasses.dataclass(frozen=True, eq=False)
class PathScore:
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
        check_curves(self, "PathScore", ())

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
        metric = self.metric if metric is None else metric
        check_option(metric, METRICS, type(self).__name__, "metric")
        values = getattr(self, metric)
        if values is None:
            raise ValueError(
                f"{type(self).__name__}: there is no {metric!r}; set 'calibration' of the "
                "LMCScorer."
            )
        return values

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
        baseline = self.baseline if baseline is None else baseline
        check_option(baseline, BASELINES, "PathScore.barrier_for", "baseline")
        return float(barrier_of(self.values(metric), self.alphas, baseline))

    @property
    def barrier(self) -> float:
        """Rise of the path above its baseline."""
        return self.barrier_for()

    @property
    def epsilon(self) -> float:
        """Rise of the path above its worse end."""
        return self.barrier_for(baseline="max")

    @property
    def calibrated_barrier(self) -> float | None:
        """Rise of the calibrated loss above its baseline."""
        if self.calibrated_loss is None:
            return None
        return self.barrier_for(metric="calibrated_loss")

    @property
    def midpoint_barrier(self) -> float:
        """Value at the midpoint minus the mean of the ends."""
        return float(midpoint_barrier_of(self.values(), self.alphas))

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
        columns = {"alpha": self.alphas, "loss": self.loss, "error": self.error}
        if self.calibrated_loss is not None:
            columns["calibrated_loss"] = self.calibrated_loss
            columns["inverse_temperature"] = self.inverse_temperature
        return pd.DataFrame(columns)


def check_curves(score, caller: str, before: tuple[int, ...]) -> None:
    """Check the curves of a score, of shape (*before, n_alphas), and its settings."""
    n_alphas = len(check_array(score.alphas, caller, "alphas", (None,)))
    for name in ("loss", "error", "calibrated_loss", "inverse_temperature"):
        curve = getattr(score, name)
        if curve is not None or name in ("loss", "error"):
            check_array(curve, caller, name, (*before, n_alphas))
    check_option(score.metric, METRICS, caller, "metric")
    check_option(score.baseline, BASELINES, caller, "baseline")


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


def midpoint_barrier_of(curves: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Return the midpoint's value minus the mean of the ends; negative where the path dips."""
    return midpoint_of(curves, alphas) - 0.5 * (curves[..., 0] + curves[..., -1])


def alpha_grid(n_alphas: int) -> np.ndarray:
    """Return evenly spaced alphas with both ends; an even number gets the midpoint as well."""
    grid = np.linspace(0.0, 1.0, n_alphas)
    return grid if n_alphas % 2 else np.sort(np.append(grid, 0.5))
