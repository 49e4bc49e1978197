"""
Fifty nets at every width: what lies between all pairs?
=======================================================

The deck *On linear mode connectivity up to permutation of hidden neurons* trains 50 nets on two
moons at each width from 2 to 512, scores all 1,225 pairs of each width as they are and aligned to
one net, and clusters the nets by what lies between them. This study does the same.
"""

# %%
# Nine populations of fifty nets
# ------------------------------
# The deck's later settings: AdamW at 0.1 with cosine annealing, 100 epochs, batches of 256.

import torch
from skorch.callbacks import LRScheduler

from sklmc import ModelGrid, NetClassifier
from sklmc.datasets import load_moons

WIDTHS = [2, 4, 8, 16, 32, 64, 128, 256, 512]
data = load_moons()
net = NetClassifier(
    optimizer=torch.optim.AdamW, lr=0.1, max_epochs=100, batch_size=256,
    callbacks=[("schedule", LRScheduler("CosineAnnealingLR", T_max=100))],
)  # fmt: skip
grid = ModelGrid(net, {"module__width": WIDTHS}, n_estimators=50, random_state=0, n_jobs=2)
grid.fit(data.X_train, data.y_train)

# %%
# All pairs, as they are and in the frame of the first net
# --------------------------------------------------------
# An interval that knows that pairs share nets: nets are resampled, not pairs.

import time

import numpy as np
import pandas as pd

from sklmc import LMCScorer, MultiAligner

CONDITIONS = {"naive": None, "aligned": MultiAligner("reference")}
upper = np.triu_indices(50, k=1)
start, scores, rows = time.perf_counter(), {}, []
for width in WIDTHS:
    nets = grid.cell(module__width=width).estimators
    for condition, aligner in CONDITIONS.items():
        scorer = LMCScorer(aligner=aligner, n_jobs=2)
        score = scores[width, condition] = scorer.pairwise(nets, data.X_test, data.y_test)
        frame = score.to_frame().assign(width=width, condition=condition)
        frame["midpoint_accuracy"] = 1 - frame["midpoint_error"]
        rows.append(frame)
        median = score.interval(quantity="epsilon", random_state=0)
        accuracy = frame["midpoint_accuracy"].median()
        print(f"{width:4d} {condition:8s} epsilon {median.estimate:.3f} [{median.low:.3f}, "
              f"{median.high:.3f}], midpoint accuracy {accuracy:.3f}")  # fmt: skip
pairs = pd.concat(rows)
print(f"18 times 1,225 pairs x 11 alphas in {time.perf_counter() - start:.0f} s")

# %%
# Violins over pairs
# ------------------

import matplotlib.pyplot as plt

from sklmc import ClusterDisplay

fig, axes = plt.subplots(2, 3, figsize=(11, 6.5), layout="constrained")
colours = {"naive": "#0072B2", "aligned": "#D55E00"}
for ax, column in zip(axes[0, :2], ["epsilon", "midpoint_accuracy"]):
    for shift, (condition, colour) in zip((-0.2, 0.2), colours.items()):
        part = pairs[pairs["condition"] == condition]
        values = [part.loc[part["width"] == width, column] for width in WIDTHS]
        at = np.arange(len(WIDTHS)) + shift
        for body in ax.violinplot(values, at, widths=0.4, showextrema=False)["bodies"]:
            body.set_facecolor(colour)
        medians = [np.median(value) for value in values]
        ax.plot(at, medians, "o-", color=colour, ms=3, lw=1, label=condition)
    ax.set_xticks(range(len(WIDTHS)), WIDTHS, rotation=45)
    ax.set(xlabel="width", ylabel=column.replace("_", " "))
axes[0, 0].set_ylim(-0.02, 1)  # a few pairs of narrow nets lie above
axes[0, 0].legend(frameon=False)

# %%
# The nets that belong together
# -----------------------------
# Rows of the epsilon matrix, Euclidean distance, single linkage, colours up to the mean test loss:
# the deck's reading. Intervals of the median stand where the violins end.

intervals = {
    key: score.interval(quantity="epsilon", random_state=0) for key, score in scores.items()
}
for shift, condition in zip((-0.2, 0.2), colours):
    found = [intervals[width, condition] for width in WIDTHS]
    low, high = ([getattr(one, end) for one in found] for end in ("low", "high"))
    axes[0, 0].vlines(np.arange(len(WIDTHS)) + shift, low, high, color="black", lw=2)
shown = [(4, "aligned"), (64, "aligned"), (512, "naive"), (512, "aligned")]
for ax, (width, condition) in zip([axes[0, 2], *axes[1]], shown):
    ClusterDisplay.from_scores(scores[width, condition], on="rows").plot(ax)
    ax.set_title(f"width {width}, {condition}")

# %%
# What is seen
# ------------
# On two cores the nets take about half a minute and the pairs as long. The median naive epsilon
# rises from 0.16 at width 2 to 0.34 at width 8, falls to 0.13 at 512 (interval 0.12 to 0.14) and
# does not vanish; in the frame of one net it falls below 0.001 from width 128 on, and the midpoint
# of two nets of width 512 is right on 99.8 % of the test points.
