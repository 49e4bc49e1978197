"""
What becomes of the losers of a search?
=======================================

A search over hyperparameters trains many nets and keeps one. A greedy soup goes through them from
the best to the worst and averages those whose weights go well with the others: still one net, never
worse on the held-out samples than the best single one.
"""

# %%
# A grid, and a soup from it
# --------------------------
# Nets with seeds of their own must be aligned before they are averaged.

from sklmc import GreedySoup, NetClassifier
from sklmc.datasets import load_digits_split

data = load_digits_split()
net = NetClassifier(module__width=64, max_epochs=15)
grid = {"lr": [0.003, 0.01], "optimizer__weight_decay": [0.0, 1e-4]}
soup = GreedySoup(net, grid, n_estimators=2, aligner="weight", random_state=0)
soup.fit(data.X_train, data.y_train)
soup.soup_report_.round(3)

# %%
# Which nets were kept
# --------------------

best = soup.estimators_[int(soup.scores_.argmax())]
accuracy = {
    "best net": best.score(data.X_test, data.y_test),
    "soup": soup.score(data.X_test, data.y_test),
}
print(soup.verdict_)
{name: round(value, 3) for name, value in accuracy.items()}

# %%
# Held-out scores
# ---------------

import matplotlib.pyplot as plt

report = soup.soup_report_.sort_values("score", ascending=False).reset_index()
fig, ax = plt.subplots()
ax.bar(report.index, report["score"], color=["C1" if kept else "C0" for kept in report["kept"]])
ax.axhline(soup.soup_score_, color="C1", label="soup of the orange nets")
ax.axhline(soup.uniform_score_, color="k", linestyle=":", label="mean of all nets")
ax.set(xlabel="net, by score", ylabel="held-out accuracy", ylim=(report["score"].min() - 0.05, 1))
ax.legend(loc="lower left")
