"""
Is the end of a training its best point?
========================================

A net that trains on at a constant learning rate circles around a good point. Stochastic weight
averaging takes the mean of the circle: one net, at no further cost. Here it runs on scikit-learn's
digits, as an estimator inside a Pipeline and as a callback of the net itself.
"""

# %%
# As an estimator
# ---------------
# The net trains as it would by itself; then ten epochs follow at `swa_lr`, with a snapshot at the
# end of each.

from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from sklmc import NetClassifier, SWAEnsembler
from sklmc.datasets import load_digits_split

data = load_digits_split()
net = NetClassifier(module__width=64, max_epochs=15, lr=0.005)
swa = SWAEnsembler(net, n_snapshots=10, swa_lr=0.005, random_state=0)
pipeline = make_pipeline(MinMaxScaler(), swa).fit(data.X_train, data.y_train)
round(pipeline.score(data.X_test, data.y_test), 3)

# %%
# As a callback
# -------------
# The same inside the training of any skorch net: the last quarter of the epochs is averaged.

from sklmc.merging import StochasticWeightAveraging

callback = ("swa", StochasticWeightAveraging(start=0.75))
alone = NetClassifier(module__width=64, max_epochs=25, lr=0.005, callbacks=[callback])
alone.set_params(random_state=0).fit(data.X_train, data.y_train)
round(alone.score(data.X_test, data.y_test), 3)

# %%
# Snapshots and their mean
# ------------------------

import matplotlib.pyplot as plt

X_test = pipeline[0].transform(data.X_test)
single = [snapshot.score(X_test, data.y_test) for snapshot in swa.snapshots_]
fig, ax = plt.subplots()
ax.plot(range(1, 11), single, "o-", label="snapshot")
ax.axhline(swa.score(X_test, data.y_test), color="C1", label="mean of the snapshots")
ax.set(xlabel="epoch after the training", ylabel="test accuracy")
ax.legend()
