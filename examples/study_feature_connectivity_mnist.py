"""
When are features linearly connected?
=====================================

Between two nets that share the beginning of their training, Zhou, Yang, Yang, Yan and Hu (2023)
find more than a low loss: in every layer, the features of the net halfway are the mean of the
features. Here pairs of MLPs on MNIST that share two epochs are compared with pairs that share
nothing, as trained and after alignment.
"""

# %%
# Three nets that share two epochs, three that share none
# --------------------------------------------------------
# Training takes some minutes the first time; finished nets are kept.

from pathlib import Path

import torch
from sklearn.datasets import get_data_home
from skorch.callbacks import LRScheduler

from sklmc import ModelGrid, NetClassifier
from sklmc.datasets import load_images

X_train, X_test, y_train, y_test = load_images("mnist")
X_train, X_test = X_train.reshape(len(X_train), -1), X_test.reshape(len(X_test), -1)

cosine = LRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=8)
net = NetClassifier(
    module__depth=3, module__width=512, module__init="kaiming_normal",
    optimizer=torch.optim.SGD, optimizer__momentum=0.9, optimizer__weight_decay=1e-4,
    lr=0.05, max_epochs=8, batch_size=128, callbacks=[("schedule", cosine)],
)  # fmt: skip
cache = Path(get_data_home()) / "sklmc_feature_connectivity_mnist"
grid = ModelGrid(net, {}, n_estimators=3, random_state=0, n_jobs=2, cache_dir=cache / "apart")
shared = grid.spawn(2).set_params(cache_dir=cache / "shared")
apart = grid.fit(X_train, y_train).cells_[0].estimators
spawned = shared.fit(X_train, y_train).cells_[0].estimators

# %%
# Every pair, layer by layer
# --------------------------
# ``one_minus_cosine`` compares the features halfway with the mean of the features,
# ``one_minus_cosine_ab`` those of the two nets. Only their ratio says something: hidden layers of
# nets that share nothing look connected as well.

from itertools import combinations

import pandas as pd

from sklmc import PermutationAligner
from sklmc.features import commutativity, error_bound, layerwise_linear_connectivity

pairs = {
    "spawned": list(combinations(spawned, 2)),
    "aligned": [(a, PermutationAligner().fit_transform(a, b)) for a, b in combinations(apart, 2)],
    "independent": list(combinations(apart, 2)),
}
frames = {
    kind: [layerwise_linear_connectivity(a, b, X_test, alphas=0.5, layers="feature") for a, b in ab]
    for kind, ab in pairs.items()
}
table = pd.concat({kind: pd.concat(parts) for kind, parts in frames.items()}, names=["pair"])
table["ratio"] = table.one_minus_cosine / table.one_minus_cosine_ab
table.groupby(["pair", "layer"], sort=False)[["one_minus_cosine", "ratio"]].agg(["mean", "std"])

# %%
# The condition behind it, and what it bounds
# -------------------------------------------
# Commutativity is a distance of 0 between exchanged products of weights and features. Where logits
# are linearly connected, the error halfway is at most twice that of the ends.

rows = [
    {
        "pair": kind,
        "largest commutativity distance": commutativity(a, b, X_test).dist_com.max(),
        **error_bound(a, b, X_test, y_test, alphas=0.5).iloc[0],
    }
    for kind, ab in pairs.items()
    for a, b in ab
]
checks = pd.DataFrame(rows).drop(columns=["alpha"])
checks.round(4)

# %%
# What was seen
# -------------
# The sentence below is made of the numbers above.

from sklmc import FeatureConnectivityDisplay

display = FeatureConnectivityDisplay.from_frame(frames).plot()
ratio = table.groupby("pair").ratio.max()
seen = "was" if ratio["spawned"] < 0.1 < ratio["independent"] else "was not"
print(
    f"3 pairs of each kind: the claim {seen} seen at this size. "
    "Largest ratio over layers and pairs: "
    + ", ".join(f"{kind} {ratio[kind]:.3f}" for kind in pairs)
)
