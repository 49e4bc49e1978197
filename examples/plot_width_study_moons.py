"""
How wide must nets be before two of them can be averaged?
=========================================================

Nets that are trained from different random starts end in different places. Between two of them
the loss usually rises: there is a *barrier*. Part of it is only a matter of names, since the
hidden units of a net can be permuted without changing what it computes. This example measures
the barrier between nets trained on two moons, as they are and after aligning them, for several
widths.
"""

# %%
# A population for every width
# ----------------------------
# A :class:`~sklmc.DeepEnsemble` trains nets that differ by seed only. Five nets give ten pairs.

from sklmc import DeepEnsemble, NetClassifier
from sklmc.datasets import load_moons

data = load_moons()
net = NetClassifier(module__depth=2, max_epochs=40, batch_size=64)
populations = {
    width: DeepEnsemble(
        net.set_params(module__width=width), n_estimators=5, n_jobs=2, random_state=0
    ).fit(data.X_train, data.y_train)
    for width in (4, 8, 16, 32, 64, 128)
}

# %%
# What lies between their members?
# --------------------------------
# :class:`~sklmc.LMCScorer` walks along the straight line between the weights of every pair. With
# an aligner, the second net of a pair is first permuted to come close to the first.

import pandas as pd

from sklmc import LMCScorer

frames = [
    LMCScorer(aligner=aligner)
    .pairwise(population.estimators_, data.X_test, data.y_test)
    .to_frame()
    .assign(width=width, condition=condition)
    for width, population in populations.items()
    for condition, aligner in (("as trained", None), ("aligned", "weight"))
]
pairs = pd.concat(frames)
pairs.groupby(["condition", "width"])["barrier"].median().unstack("width").round(3)

# %%
# The answer
# ----------
# Lines are medians over ten pairs, bands their quartiles. As trained, the barrier does not go
# away at any of these widths. After alignment it falls with width: from a few dozen units on, two
# nets can be averaged with hardly a loss.

from sklmc import WidthCurveDisplay

display = WidthCurveDisplay.from_frame(pairs, y="barrier", by="condition").plot()
display.ax_.set_ylabel("loss barrier (nats)")
