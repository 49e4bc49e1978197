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
# Validating with the average
# ---------------------------
# An exponential moving average smooths the whole training. Each epoch is validated with it, and
# callbacks behind it may stop by that score.

from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit

from sklmc.merging import ExponentialMovingAverage

smooth = NetClassifier(module__width=64, max_epochs=60, lr=0.02, train_split=ValidSplit(5))
ema = ("ema", ExponentialMovingAverage(decay=0.99))
stop = ("stop", EarlyStopping(monitor="valid_loss_avg", patience=5, load_best=True))
smooth.set_params(callbacks=[ema, stop], random_state=0).fit(data.X_train, data.y_train)
len(smooth.history), round(smooth.score(data.X_test, data.y_test), 3)

# %%
# Snapshots and their mean
# ------------------------

import matplotlib.pyplot as plt

X_test = pipeline[0].transform(data.X_test)
single = [snapshot.score(X_test, data.y_test) for snapshot in swa.snapshots_]
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
left.plot(range(1, 11), single, "o-", label="snapshot")
left.axhline(swa.score(X_test, data.y_test), color="C1", label="mean of the snapshots")
left.set(xlabel="epoch after the training", ylabel="test accuracy")
left.legend()
for name, label in (("valid_loss", "weights in training"), ("valid_loss_avg", "moving average")):
    right.semilogy(smooth.history[:, name], label=label)
right.set(xlabel="epoch", ylabel="validation loss")
right.legend()
