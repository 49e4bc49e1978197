"""
What if the data cannot be pooled?
==================================

Five hospitals hold data that may not leave the house. Each trains a net on its own part; only the
nets travel. Can one net be made of them that is better than each? It takes a few samples without
labels, to repair what averaging breaks.
"""

# %%
# Five nets on five disjoint parts
# --------------------------------

from sklmc import NetClassifier
from sklmc.datasets import load_digits_split

data = load_digits_split()
nets = []
for site in range(5):
    net = NetClassifier(module__width=128, max_epochs=40, random_state=site)
    nets.append(net.fit(data.X_train[site::5], data.y_train[site::5]))

# %%
# One net from five
# -----------------
# Units are aligned and weights averaged; then each layer is fitted again to the mean of what the
# five nets give there. Five hundred samples serve, and their labels are not needed.

from sklmc import merge_models

public = data.X_train[:500]
merged = {
    "naive": merge_models(nets, aligner=None, repair=None),
    "aligned": merge_models(nets, public, repair=None),
    "refitted": merge_models(nets, public, repair="refit"),
}

# %%
# Is it worth it?
# ---------------

import matplotlib.pyplot as plt

scores = {f"site {i}": one.score(data.X_test, data.y_test) for i, one in enumerate(nets)}
scores |= {name: one.score(data.X_test, data.y_test) for name, one in merged.items()}
fig, ax = plt.subplots()
ax.barh(list(scores), list(scores.values()), color=["C0"] * 5 + ["C1"] * 3)
ax.invert_yaxis()
ax.set(xlabel="test accuracy", xlim=(0.5, 1))
