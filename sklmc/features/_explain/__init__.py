"""Why two nets do not average: the search for causes of a barrier, and its report."""

from sklmc.features._explain._barrier_report import BarrierCause, BarrierReport
from sklmc.features._explain._cause_search import explain_barrier

__all__ = ["BarrierCause", "BarrierReport", "explain_barrier"]
