"""
Can five nets be merged into one?
=================================

An ensemble of five nets is better than each of them, and costs five times as much. Can one net
with averaged weights take its place? Here five nets are trained on scikit-learn's digits and
averaged: as they are, after their hidden units have been matched, and repaired after that.
"""

# %%
# Five nets, trained independently
# --------------------------------

from sklmc import DeepEnsemble, NetClassifier
from sklmc.datasets import load_digits_split

data = load_digits_split()
net = NetClassifier(module__width=128, module__depth=2, max_epochs=20, batch_size=64)
ensemble = DeepEnsemble(net, n_estimators=5, n_jobs=2, random_state=0)
ensemble.fit(data.X_train, data.y_train)
nets = ensemble.estimators_

# %%
# Merge them
# ----------
# :func:`~sklmc.merge_models` takes fitted nets and returns one of the same kind. By default, each
# net is aligned to the first before the weights are averaged, and with samples at hand the average
# is repaired: its layers are fitted to what the aligned nets' layers answer. ``aligner=None`` and
# ``repair=None`` leave these steps out.

from sklmc import merge_models

merged = merge_models(nets, data.X_train)
aligned = merge_models(nets, repair=None)
naive = merge_models(nets, aligner=None, repair=None)
type(merged).__name__

# %%
# Compare
# -------
# A merge must be compared with its parts: on the same training data, an average of independently
# trained nets is seldom better than one of them.

import pandas as pd

candidates = {f"net {i}": one for i, one in enumerate(nets)}
candidates |= {"naive average": naive, "aligned average": aligned, "repaired": merged}
candidates["ensemble"] = ensemble
accuracy = pd.Series({n: m.score(data.X_test, data.y_test) for n, m in candidates.items()})
accuracy.round(3)

# %%
# Why it works
# ------------
# The straight line between two nets leads over a barrier. Once the second net is aligned to the
# first, the line stays low.

from sklmc import LMCScorer, PathDisplay

scores = {
    label: LMCScorer(aligner=aligner, n_alphas=25).pairwise(nets, data.X_test, data.y_test)
    for label, aligner in (("as trained", None), ("aligned", "weight"))
}
display = PathDisplay.from_scores(scores).plot()
display.ax_.set_ylabel("test loss (nats), all pairs")
