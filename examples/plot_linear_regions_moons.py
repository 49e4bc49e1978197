"""
Does redundancy make nets average well?
=======================================

Wide nets hold many hidden units that point the same way. The work that this library began with
reports that nets lose their connectivity once such units are merged. Here moons nets are looked
at closely: where they switch, what their average looks like, and what merging parallel units does
to them and to the lines between them.
"""

# %%
# Nets of two widths
# ------------------

import torch
from skorch.callbacks import LRScheduler

from sklmc import ModelGrid, NetClassifier
from sklmc.datasets import load_moons

X_train, X_test, y_train, y_test = load_moons()
cosine = LRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=100)
net = NetClassifier(
    optimizer=torch.optim.AdamW, lr=0.1, max_epochs=100, batch_size=256,
    callbacks=[("schedule", cosine)],
)  # fmt: skip
grid = ModelGrid(net, {"module__width": [32, 512]}, n_estimators=10, random_state=0)
grid.fit(X_train, y_train)

# %%
# Two nets and their average
# --------------------------
# Thin lines are where a ReLU switches, so that every cell is a region in which the net is affine;
# the thick line is the decision. The average of two nets has cells of its own, more of them, and
# decides less well. Aligned first, it decides as they do.

import matplotlib.pyplot as plt

from sklmc import DecisionRegionDisplay, merge_models

a, b = grid.cell(module__width=32).estimators[:2]
shown = {
    "A": a,
    "B": b,
    "average": merge_models([a, b], aligner=None),
    "aligned average": merge_models([a, b]),
}
figure, axes = plt.subplots(1, 4, figsize=(11, 2.4), layout="constrained")
for ax, (name, model) in zip(axes, shown.items()):
    display = DecisionRegionDisplay.from_model(model, X=X_test, y=y_test).plot(ax)
    ax.set_title(f"{name}: {display.regions.n_regions} regions", fontsize="medium")

# %%
# Which units are alike
# ---------------------
# The cosine of incoming weights, units ordered by cluster. Units of equal direction compute the
# same feature: one of them can do for all.

from sklmc import FeatureSimilarityDisplay
from sklmc.features import RedundancyReducer

wide = grid.cell(module__width=512).estimators[0]
display = FeatureSimilarityDisplay.from_model(wide).plot()

# %%
# Merge parallel units, and look at the lines again
# -------------------------------------------------
# ``shrink=False`` keeps the architecture, so that reduced nets can be averaged: units that are
# not needed come last, with zero weights. ``balance=True`` gives every unit incoming and outgoing
# weights of one size, which changes no function. Units keep their order.

import pandas as pd

from sklmc import LMCScorer

nets = grid.cell(module__width=512).estimators
treatments = {
    "as trained": None,
    "balanced": RedundancyReducer(tol=0, balance=True, shrink=False),
    "reduced": RedundancyReducer(shrink=False),
    "reduced, balanced": RedundancyReducer(balance=True, shrink=False),
}
rows, scores = [], {}
for name, reducer in treatments.items():
    treated, units = [], []
    for one in nets:
        treated.append(one if reducer is None else reducer.fit_transform(one))
        units.append(512 if reducer is None else reducer.n_units_["layers.0"])
    scores[name] = LMCScorer().pairwise(treated, X_test, y_test)
    accuracy = min(one.score(X_test, y_test) for one in treated)
    quartiles = scores[name].to_frame().epsilon.quantile([0.5, 0.25, 0.75])
    rows.append([name, sum(units) / len(units), accuracy, *quartiles])
table = pd.DataFrame(rows, columns=["nets", "units", "worst accuracy", "epsilon", "25 %", "75 %"])
table = table.set_index("nets")
table.round(3)

# %%
# What was seen
# -------------
# epsilon is how far the loss rises above the worse end, here its median over all 45 pairs.

from sklmc import PathDisplay

display = PathDisplay.from_scores(scores).plot()
display.ax_.set_ylabel("test loss (nats)")
kept = table.epsilon["reduced, balanced"] <= table.epsilon["as trained"]
print(
    "10 nets of width 512: that removing redundancy removes connectivity was "
    f"{'not ' if kept else ''}seen once units are balanced. Median epsilon: "
    + ", ".join(f"{name} {value:.3f}" for name, value in table.epsilon.items())
)
