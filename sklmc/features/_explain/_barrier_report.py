"""What explain_barrier found: causes in numbers and words, and where in the net they show."""

from __future__ import annotations

import dataclasses

import pandas as pd

EVIDENCE = {
    "under_trained": (
        "{end} removes {measured:.0%} of a constant prediction's error; at least {reference:.0%} "
        "is expected."
    ),
    "under_trained, unequal": (
        "{end} removes {measured:.0%} of a constant prediction's error, the other net "
        "{reference:.0%}: they are not equally trained."
    ),
    "stale_batch_norm": (
        "averaged batch-norm statistics belong to no net; with statistics of its own the midpoint "
        "has {what} {reference:.3g} instead of {measured:.3g}."
    ),
    "stale_batch_norm, end": (
        "the statistics of {end} do not belong to its weights; estimated again, its loss is "
        "{reference:.3g} instead of {measured:.3g}."
    ),
    "logit_scale": (
        "the midpoint is right where the ends are, only its logits have another scale; with one "
        "inverse temperature for each net {measured:.3g} of {reference:.3g} are left."
    ),
    "not_aligned": (
        "hidden units stand in unrelated orders: B's own order reaches {measured:.0%} of what "
        "alignment adds to random orders (below {reference:.0%} is chance)."
    ),
    "local_optimum": (
        "B's order reaches {measured:.0%} of what alignment adds to random orders, but a better "
        "one was found: it takes {gain:.3g} off the {what} of the midpoint."
    ),
    "variance_collapse": (
        "hidden units vary less halfway than at the ends: in the worst layer the variance is "
        "{measured:.0%} of the ends' ({reference:.0%} would be right)."
    ),
    "frozen_symmetry": (
        "{measured:.0%} of the hidden axes of weights cannot be permuted (a plain net has "
        "{reference:.0%}), so that no alignment reaches them."
    ),
    "different_features": (
        "even after alignment, units of one place have a correlation of {measured:.2f} between "
        "the nets (1 for equal features, above {reference:.2f} for related ones)."
    ),
}
REMEDIES = {
    "under_trained": "train longer, and both nets alike: set max_epochs, lr and width.",
    "stale_batch_norm": "merge_models([a, b], X, repair='batch_norm').",
    "logit_scale": (
        "LMCScorer(calibration='crossfit'); for the merged net, scale the logits by one inverse "
        "temperature that is fitted on held-out data."
    ),
    "not_aligned": "PermutationAligner('auto').fit_transform(a, b, X, y), then average.",
    "local_optimum": "PermutationAligner('auto', n_init=10).fit_transform(a, b, X, y).",
    "variance_collapse": "merge_models([a, b], X, aligner={aligner}, repair='renormalize').",
    "frozen_symmetry": (
        "print(discover_symmetry(a)) tells which operations freeze which axes; replace these, or "
        "start both nets from one partly trained net."
    ),
    "different_features": (
        "wider nets, a shared start (ModelGrid.spawn), or merge_models([a, b], X, repair='refit')."
    ),
}


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


def cause(
    name: str, share: float, measured: float, reference: float, kind: str = "", **words
) -> BarrierCause:
    """Return a cause with its sentences."""
    evidence = EVIDENCE[f"{name}, {kind}" if kind else name]
    evidence = evidence.format(measured=measured, reference=reference, **words)
    return BarrierCause(name, share, measured, reference, evidence, REMEDIES[name].format(**words))


@dataclasses.dataclass(frozen=True, eq=False)
class BarrierReport:
    """Why two nets do not average, most important cause first.

    Attributes
    ----------
    causes : tuple of BarrierCause
        Ranked; empty where there is nothing to explain.
    barrier : float
        Loss at the midpoint minus the mean loss of the ends (nats, or squared error); negative
        where the midpoint is better. Over-confident ends can hide a barrier in it: see `rises`.
    measures : DataFrame
        One row per net that was scored: `net`, `loss`, `calibrated_loss`, `error`.
    layers : DataFrame
        One row per weight layer, between A and B as given and as aligned: `layer`,
        `variance_ratio`, `one_minus_cosine` (merged features against mean features),
        `one_minus_cosine_ab`, `correlation` (of A's and B's units of one place), and the same
        with ``_aligned``.
    rises : DataFrame
        One row per `measure`: "loss", "calibrated_loss" and "error", for regression "loss" alone.
        `ends` is the mean of the ends (with statistics of their own where theirs are stale),
        `midpoint` the midpoint's; `rose` is True where that is above the ends by more than 3 % of
        what they have learned.

    See Also
    --------
    explain_barrier : Makes it.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklmc.features import BarrierReport
    >>> rises = pd.DataFrame(
    ...     [["loss", 0.25, 0.248, False], ["calibrated_loss", 0.24, 0.242, False]],
    ...     columns=["measure", "ends", "midpoint", "rose"],
    ... )
    >>> print(BarrierReport((), -0.002, pd.DataFrame(), pd.DataFrame(), rises))
    There is nothing to explain. From the ends (mean) to the midpoint:
    - loss does not rise: 0.25 to 0.248
    - calibrated loss hardly rises: 0.24 to 0.242
    """

    causes: tuple[BarrierCause, ...]
    barrier: float
    measures: pd.DataFrame
    layers: pd.DataFrame
    rises: pd.DataFrame

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
        rose = dict(zip(self.rises.measure, self.rises.rose))
        start = "" if self.causes or any(rose.values()) else "There is nothing to explain. "
        lines = [f"{start}From the ends (mean) to the midpoint:"]
        for row in self.rises.itertuples():
            quiet = "hardly rises" if row.midpoint > row.ends else "does not rise"
            name, verb = row.measure.replace("_", " "), "rises" if row.rose else quiet
            lines.append(f"- {name} {verb}: {row.ends:.3g} to {row.midpoint:.3g}")
        if any(rose.values()) and not rose["loss"]:
            lines.append("Over-confident ends hide the barrier in the loss.")
        if self.causes:
            lines.append("Why, most important first:")
        elif any(rose.values()):
            lines.append("No known cause explains a tenth of it.")
        for rank, cause in enumerate(self.causes, 1):
            lines += [f"{rank}. {cause.name}: {cause.evidence}", f"   Try: {cause.remedy}"]
        return "\n".join(lines)
