"""
Can pairs be scored on a cluster?
=================================

All pairs of many nets are independent work. Inside joblib's dask backend, blocks of pairs go to the
workers, the nets travel once, and the numbers are the same to the last bit.
"""

# %%
# Twelve nets, here
# -----------------

from sklmc import DeepEnsemble, LMCScorer, NetClassifier
from sklmc.datasets import load_moons

data = load_moons(200, 200)
nets = DeepEnsemble(NetClassifier(max_epochs=20), n_estimators=12, random_state=0)
nets.fit(data.X_train, data.y_train)
scorer = LMCScorer(calibration="crossfit")
here = scorer.pairwise(nets.estimators_, data.X_test, data.y_test)

# %%
# The same call on a cluster
# --------------------------
# A ``LocalCluster`` stands for any other; ``processes=True``, or a scheduler's address, changes
# nothing else.

import joblib
from dask.distributed import Client, LocalCluster

cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None)
client = Client(cluster)
with joblib.parallel_config("dask"):
    there = scorer.pairwise(nets.estimators_, data.X_test, data.y_test)

# %%
# The same numbers?
# -----------------

here.to_frame().equals(there.to_frame())

# %%
# What lies between the nets
# --------------------------

from sklmc.plotting import BarrierMatrixDisplay

display = BarrierMatrixDisplay.from_scores(there).plot()
client.close()
cluster.close()
