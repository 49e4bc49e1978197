"""What happens inside nets: features of the nets between two nets, redundancy, regions.

Layerwise linear feature connectivity (LLFC) and layerwise exponentially weighted connectivity
(LEWC), with the conditions that imply them, each in a file of its own; why a barrier is there; how
much variance a merged net keeps; which units a net can do without.
"""

from sklmc.features._commutativity import commutativity
from sklmc.features._error_bound import error_bound
from sklmc.features._explain import BarrierCause, BarrierReport, explain_barrier
from sklmc.features._exponential_connectivity import layerwise_exponential_connectivity
from sklmc.features._grid_measures import measure_grid
from sklmc.features._linear_connectivity import layerwise_linear_connectivity
from sklmc.features._orthogonality import reciprocal_orthogonality
from sklmc.features._preactivations import preactivation_scale
from sklmc.features._rank import stable_rank
from sklmc.features._redundancy import RedundancyReducer
from sklmc.features._regions import LinearRegions, linear_regions
from sklmc.features._regions import check_bounds as check_bounds
from sklmc.features._similarity import feature_similarity
from sklmc.features._stitching import stitch_models
from sklmc.features._temperatures import inverse_temperatures
from sklmc.features._variance import variance_ratio
from sklmc.features._weak_additivity import weak_additivity

__all__ = [
    "BarrierCause",
    "BarrierReport",
    "LinearRegions",
    "RedundancyReducer",
    "commutativity",
    "error_bound",
    "explain_barrier",
    "feature_similarity",
    "inverse_temperatures",
    "layerwise_exponential_connectivity",
    "layerwise_linear_connectivity",
    "linear_regions",
    "measure_grid",
    "preactivation_scale",
    "reciprocal_orthogonality",
    "stable_rank",
    "stitch_models",
    "variance_ratio",
    "weak_additivity",
]
