"""The repairs by name: the function of each, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sklmc.merging._batch_norm import reestimate_statistics
from sklmc.merging._refit import refit_state
from sklmc.merging._renormalize import renormalize_state
from sklmc.models import State

MOST_SAMPLES = 10_000  # of refit and renormalize; more gain next to nothing


@dataclass(frozen=True)
class Repair:
    """One way to mend a weighted mean of end points.

    `run(look, state, endpoints, inputs, weights)` returns the mended copy of `state`, and the names
    of the weights that it left averaged.
    """

    name: str
    run: Callable[..., tuple[State, list[str]]]
    needs_batch_norm: bool = False  # mends nothing else
    least: int = 1  # samples; fewer are refused
    few: int = 0  # samples; below, a repair that was asked for warns
    least_for_auto: int = 0  # samples; with fewer, "auto" does not try it
    most: int | None = MOST_SAMPLES  # samples that it uses; None is all


def _reestimate(look, state, endpoints, inputs, weights) -> tuple[State, list[str]]:
    """Give the mean statistics of its own: the end points do not matter."""
    return reestimate_statistics(look, state, inputs), []


# in the order in which "auto" tries them: the first wins ties
REPAIRS = {
    repair.name: repair
    for repair in (
        Repair("batch_norm", _reestimate, needs_batch_norm=True, most=None),
        Repair("renormalize", renormalize_state, least=2),
        Repair("refit", refit_state, least=2, few=500, least_for_auto=100),
    )
}
METHODS = ("auto", *sorted(REPAIRS))
