"""The same numbers from processes of a dask cluster."""

import joblib
import numpy as np
import pytest

from sklmc import LMCScorer


@pytest.mark.nightly
@pytest.mark.parametrize("aligner", [None, "weight"])
def test_dask_cluster_gives_the_same_numbers(make_mlps, data, aligner):
    distributed = pytest.importorskip("dask.distributed")
    nets = make_mlps(6, depth=2, norm="layer")
    scorer = LMCScorer(calibration="crossfit", aligner=aligner)
    wanted = scorer.pairwise(nets, *data)
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        seen = scorer.pairwise(nets, *data)
    for name in ("loss", "error", "calibrated_loss", "inverse_temperature"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(wanted, name))
