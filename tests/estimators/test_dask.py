"""The same nets from processes of a dask cluster."""

from __future__ import annotations

import joblib
import pytest
from sklearn.base import clone

from sklmc import ModelGrid, NetClassifier
from tests.estimators.test_grid import bits


@pytest.mark.nightly
@pytest.mark.parametrize("vectorize", [True, False])
def test_dask_cluster_gives_the_same_nets(vectorize, moons, tmp_path):
    distributed = pytest.importorskip("dask.distributed")
    grid = ModelGrid(
        NetClassifier(max_epochs=2),
        {"module__width": [2, 4]},
        n_estimators=3,
        vectorize=vectorize,
        random_state=0,
    ).fit(*moons)
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        there = clone(grid).set_params(n_jobs=2, cache_dir=tmp_path).fit(*moons)
    assert bits(there) == bits(grid)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 6
