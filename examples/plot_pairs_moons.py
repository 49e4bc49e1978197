"""
Which of many nets belong together?
===================================

One pair of nets is an anecdote. This example scores all pairs of twelve nets on two moons at
several widths, as they are and aligned, with intervals that know that pairs share nets, and
clusters the nets by what lies between them.
"""

# %%
# Twelve nets at every width
# --------------------------

from sklmc import ModelGrid, NetClassifier
from sklmc.datasets import load_moons

data = load_moons()
grid = ModelGrid(
    NetClassifier(max_epochs=50, batch_size=128, lr=0.03),
    {"module__width": [4, 16, 64, 256]},
    n_estimators=12,
    random_state=0,
).fit(data.X_train, data.y_train)

# %%
# All pairs of all cells
# ----------------------
# One row for each width, condition and pair. Narrow nets do not always learn the moons, and two
# nets that know nothing have no barrier: always look at the midpoint's error as well.

from sklmc import LMCScorer

pairs = LMCScorer(aligner="weight").grid(grid, data.X_test, data.y_test)
pairs["midpoint_accuracy"] = 1 - pairs["midpoint_error"]
pairs.groupby(["module__width", "condition"])[["epsilon", "midpoint_accuracy"]].median()

# %%
# How sure is a median over pairs?
# --------------------------------
# 66 pairs of 12 nets are not 66 observations. The interval resamples nets, and ``compare``
# takes the difference pair by pair.

scores = {
    (width, condition): LMCScorer(aligner=aligner).pairwise(
        grid.cell(module__width=width).estimators, data.X_test, data.y_test
    )
    for width in (4, 64, 256)
    for condition, aligner in (("naive", None), ("aligned", "weight"))
}
for width in (4, 64, 256):
    naive, aligned = scores[width, "naive"], scores[width, "aligned"]
    print(width, naive.interval(random_state=0, quantity="epsilon"))
    print("    gain by alignment", naive.compare(aligned, random_state=0, quantity="epsilon"))

# %%
# The nets that belong together
# -----------------------------
# Light pairs have an epsilon as high as the mean loss of the nets themselves.

import matplotlib.pyplot as plt

from sklmc.plotting import ClusterDisplay, WidthCurveDisplay

fig, axes = plt.subplots(2, 2, figsize=(8, 6.5), layout="constrained")
WidthCurveDisplay.from_frame(pairs, x="module__width", y="epsilon", by="condition").plot(axes[0, 0])
for ax, key in zip(axes.flat[1:], [(4, "naive"), (64, "naive"), (64, "aligned")]):
    ClusterDisplay.from_scores(scores[key], on="rows").plot(ax)
    ax.set_title(f"width {key[0]}, {key[1]}")
