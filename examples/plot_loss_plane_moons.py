"""
What does the landscape between three nets look like?
=====================================================

Three nets span a plane in weight space. As they come out of training, each sits in a valley of its
own; once the second and third are aligned with the first, the valleys are one.
"""

# %%
# Three nets
# ----------

from sklmc import DeepEnsemble, NetClassifier, loss_plane
from sklmc.datasets import load_moons

data = load_moons()
net = NetClassifier(module__width=64, max_epochs=50, batch_size=128, lr=0.03)
nets = DeepEnsemble(net, n_estimators=3, random_state=0).fit(data.X_train, data.y_train)

# %%
# The plane through them, as they are and aligned
# -----------------------------------------------

planes = {
    name: loss_plane(nets.estimators_, data.X_test, data.y_test, n_points=31, aligner=aligner)
    for name, aligner in (("naive", None), ("aligned", "weight"))
}

# %%
# One scale for both
# ------------------

import matplotlib.pyplot as plt

from sklmc.plotting import LossPlaneDisplay

fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for ax, (name, plane) in zip(axes, planes.items()):
    LossPlaneDisplay.from_scores(plane).plot(ax, vmax=0.3)
    ax.set_title(name)
