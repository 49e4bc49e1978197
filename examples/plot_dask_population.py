"""
Can a population of nets be trained on a cluster?
=================================================

Every parallel step of sklmc goes through joblib, so that dask can take its place: on one machine,
as here, or on many. The nets are the same wherever they are trained.
"""

# %%
# A cluster of two workers
# ------------------------
# A ``LocalCluster`` stands for any other. Threads instead of processes keep the example short;
# ``processes=True``, or a scheduler's address, changes nothing else.

from dask.distributed import Client, LocalCluster

cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None)
client = Client(cluster)

# %%
# The same call, inside and outside
# ---------------------------------
# :class:`~sklmc.ModelGrid` trains a population for every point of a grid. Inside joblib's dask
# backend its tasks go to the workers.

import joblib

from sklmc import ModelGrid, NetClassifier
from sklmc.datasets import load_moons

data = load_moons(200, 200)
grid = ModelGrid(
    NetClassifier(max_epochs=20, lr=0.05),
    {"module__width": [2, 4, 8, 16, 32]},
    n_estimators=10,
    random_state=0,
)
here = grid.fit(data.X_train, data.y_train).to_frame()
with joblib.parallel_config("dask"):
    there = grid.set_params(n_jobs=2).fit(data.X_train, data.y_train).to_frame()

# %%
# Are they the same nets?
# -----------------------
# To the last bit: members depend on their seeds, and chunks of members on their positions.

here.equals(there)

# %%
# What came back
# --------------
# Wider nets learn the moons, narrow ones not always.

import matplotlib.pyplot as plt

table = grid.summary(data.X_test, data.y_test)
fig, ax = plt.subplots()
ax.errorbar(
    table["module__width"], table["test_accuracy_mean"], yerr=table["test_accuracy_std"], fmt="o-"
)
ax.set(xscale="log", xlabel="width", ylabel="test accuracy, mean and spread of ten nets")

client.close()
cluster.close()
