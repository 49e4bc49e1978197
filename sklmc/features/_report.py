"""What explain_barrier found: causes with numbers, and where in the net they show."""

from __future__ import annotations

import dataclasses

import pandas as pd


@dataclasses.dataclass(frozen=True)
class BarrierCause:
    """One reason why two nets do not average.

    Attributes
    ----------
    name : str
        `under_trained`, `stale_batch_norm`, `logit_scale`, `not_aligned`, `local_optimum`,
        `variance_collapse`, `frozen_symmetry` or `different_features`.
    share : float
        Share of the barrier that the remedy removes (for the last two: that no remedy removed);
        NaN for `under_trained`, which is no part of it.
    measured, reference : float
        The number that tells, and the level that it is judged by.
    evidence : str
        What both numbers are, in a sentence.
    remedy : str
        The call that would help.

    See Also
    --------
    explain_barrier : Finds causes.

    Examples
    --------
    >>> from sklmc.features import BarrierCause
    >>> cause = BarrierCause("logit_scale", 0.9, 0.01, 0.4, "Calibrated, 0.01 are left.", "...")
    >>> cause.name, cause.share
    ('logit_scale', 0.9)
    """

    name: str
    share: float
    measured: float
    reference: float
    evidence: str
    remedy: str


@dataclasses.dataclass(frozen=True, eq=False)
class BarrierReport:
    """Why two nets do not average, most important cause first.

    Attributes
    ----------
    causes : tuple of BarrierCause
        Ranked; empty where there is nothing to explain.
    barrier : float
        Loss at the midpoint minus the mean loss of the ends (nats, or squared error); negative
        where the midpoint is better.
    measures : DataFrame
        One row per net that was scored: `net`, `loss`, `calibrated_loss`, `error`.
    layers : DataFrame
        One row per weight layer, between A and B as given and as aligned: `layer`,
        `variance_ratio`, `one_minus_cosine` (merged features against mean features),
        `one_minus_cosine_ab`, `correlation` (of A's and B's units of one place), and the same
        with ``_aligned``.

    See Also
    --------
    explain_barrier : Makes it.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklmc.features import BarrierReport
    >>> print(BarrierReport((), 0.001, pd.DataFrame(), pd.DataFrame()))
    There is nothing to explain: the midpoint's loss is 0.001 above the mean of the ends.
    """

    causes: tuple[BarrierCause, ...]
    barrier: float
    measures: pd.DataFrame
    layers: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """Return one row per cause.

        Returns
        -------
        DataFrame
            `rank`, `name`, `share`, `measured`, `reference`, `evidence`, `remedy`.
        """
        names = [field.name for field in dataclasses.fields(BarrierCause)]
        rows = [[rank, *dataclasses.astuple(cause)] for rank, cause in enumerate(self.causes, 1)]
        return pd.DataFrame(rows, columns=["rank", *names])

    def __str__(self) -> str:
        side = "above" if self.barrier >= 0 else "below"
        height = f"the midpoint's loss is {abs(self.barrier):.3g} {side} the mean of the ends"
        if not self.causes:
            return f"There is nothing to explain: {height}."
        lines = [f"{height[0].upper()}{height[1:]}. Why, most important first:"]
        for rank, cause in enumerate(self.causes, 1):
            lines += [f"{rank}. {cause.name}: {cause.evidence}", f"   Try: {cause.remedy}"]
        return "\n".join(lines)
