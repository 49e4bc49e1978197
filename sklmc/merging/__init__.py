"""Many nets into one: merges, averages (soups, SWA), repairs (REPAIR, least squares).

``_repairs/_repair.py`` lists the repairs with what each needs.
"""

from sklmc.merging._averager import WeightAverager
from sklmc.merging._ema_callback import ExponentialMovingAverage
from sklmc.merging._ensemble_merger import EnsembleMerger
from sklmc.merging._merge import merge_models
from sklmc.merging._repairs._batch_norm import reestimate_statistics as reestimate_statistics
from sklmc.merging._repairs._batch_norm import tracked_norms as tracked_norms
from sklmc.merging._repairs._repair import repair
from sklmc.merging._sites._coordinator import SiteCoordinator
from sklmc.merging._sites._messages import MomentsRequest, SiteMoments
from sklmc.merging._sites._site import site_moments
from sklmc.merging._soup import GreedySoup
from sklmc.merging._swa import SWAEnsembler
from sklmc.merging._swa_callback import StochasticWeightAveraging
from sklmc.models import average_models, interpolate_models

__all__ = [
    "EnsembleMerger",
    "ExponentialMovingAverage",
    "GreedySoup",
    "MomentsRequest",
    "SWAEnsembler",
    "SiteCoordinator",
    "SiteMoments",
    "StochasticWeightAveraging",
    "WeightAverager",
    "average_models",
    "interpolate_models",
    "merge_models",
    "repair",
    "site_moments",
]
