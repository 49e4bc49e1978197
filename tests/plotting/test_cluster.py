"""ClusterDisplay draws a dendrogram beside the reordered matrix."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.cluster import hierarchy
from sklearn.datasets import make_moons

from sklmc import LMCScorer, NetClassifier
from sklmc.plotting import ClusterDisplay


def test_matrix_follows_the_leaves_from_top_to_bottom(pairwise_score):
    display = ClusterDisplay.from_scores(pairwise_score).plot()
    order = display.clusters.order
    np.testing.assert_array_equal(
        display.image_.get_array(), pairwise_score.epsilon[np.ix_(order, order)]
    )
    bottom, top = display.dendrogram_ax_.get_ylim()
    assert bottom > top, "the first leaf is at the top, as the first row is"
    assert [tick.get_text() for tick in display.ax_.get_yticklabels()] == [str(k) for k in order]


def test_colours_end_at_the_mean_loss(pairwise_score):
    display = ClusterDisplay.from_scores(pairwise_score).plot()
    assert display.image_.norm.vmax == pytest.approx(pairwise_score.loss[:, [0, -1]].mean())
    assert display.colorbar_.extend == "max"
    assert display.plot(vmax=3.0).image_.norm.vmax == 3.0


def test_rows_and_linkage_are_passed_on(pairwise_score):
    display = ClusterDisplay.from_scores(pairwise_score, linkage="average", on="rows")
    wanted = pairwise_score.cluster("average", "rows").linkage
    np.testing.assert_array_equal(display.clusters.linkage, wanted)


def test_draws_into_given_axes_and_leaves_scipy_s_colours_alone(pairwise_score):
    display = ClusterDisplay.from_scores(pairwise_score)

    def colors():
        return hierarchy.dendrogram(display.clusters.linkage, no_plot=True)["color_list"]

    before = colors()
    _, ax = plt.subplots()
    assert display.plot(ax).figure_ is ax.figure
    assert colors() == before


def test_from_models():
    X, y = make_moons(40, random_state=0)
    nets = [NetClassifier(max_epochs=1, random_state=seed).fit(X, y) for seed in range(3)]
    display = ClusterDisplay.from_models(nets, X, y, quantity="barrier")
    np.testing.assert_array_equal(display.clusters.matrix, LMCScorer().pairwise(nets, X, y).barrier)


def test_messages(path_score):
    with pytest.raises(TypeError, match=r"ClusterDisplay.from_scores: 'scores' must be a Pairwise"):
        ClusterDisplay.from_scores(path_score)
    with pytest.raises(TypeError, match="'clusters' must be a ModelClusters object, got int"):
        ClusterDisplay(3).plot()
