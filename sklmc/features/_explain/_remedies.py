"""Causes in words: what was measured, beside which level, and what to call."""

from __future__ import annotations

from sklmc.features._explain._barrier_report import BarrierCause

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


def cause(
    name: str, share: float, measured: float, reference: float, kind: str = "", **words
) -> BarrierCause:
    """Return a cause with its sentences."""
    evidence = EVIDENCE[f"{name}, {kind}" if kind else name]
    evidence = evidence.format(measured=measured, reference=reference, **words)
    return BarrierCause(name, share, measured, reference, evidence, REMEDIES[name].format(**words))
