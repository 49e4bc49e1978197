"""PathDisplay draws the numbers that it holds."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import make_moons

from sklmc import LMCScorer, NetClassifier
from sklmc.plotting import PathDisplay


def test_line_is_the_path(path_score):
    display = PathDisplay.from_scores(path_score).plot()
    x, y = display.lines_[0].get_data()
    np.testing.assert_array_equal(x, path_score.alphas)
    np.testing.assert_array_equal(y, path_score.loss)
    assert display.ax_.figure is display.figure_
    assert display.bands_ == []
    assert display.ax_.get_ylabel() == "loss"


def test_several_paths_are_a_median_with_the_middle_half(pairwise_score):
    display = PathDisplay.from_scores({"naive": pairwise_score}).plot()
    np.testing.assert_allclose(
        display.lines_[0].get_ydata(), np.median(pairwise_score.loss, axis=0)
    )
    low, high = np.quantile(pairwise_score.loss, [0.25, 0.75], axis=0)
    corners = display.bands_[0].get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(low.min())
    assert corners[:, 1].max() == pytest.approx(high.max())


def test_labels_and_metrics_are_told_apart(path_score):
    display = PathDisplay.from_scores({"naive": path_score, "aligned": [path_score, path_score]})
    display.plot(metric=["loss", "calibrated_loss"])
    looks = {(line.get_color(), line.get_linestyle()) for line in display.lines_}
    assert len(looks) == 4
    names = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert names == [
        "naive, loss",
        "naive, calibrated loss",
        "aligned, loss",
        "aligned, calibrated loss",
    ]


def test_draws_into_given_axes_with_given_keywords(path_score):
    _, ax = plt.subplots()
    display = PathDisplay.from_scores(path_score).plot(ax, line_kw={"color": "black"})
    assert display.ax_ is ax
    assert display.lines_[0].get_color() == "black"


def test_from_models_scores_the_path():
    X, y = make_moons(60, random_state=0)
    a, b = (NetClassifier(max_epochs=2, random_state=seed).fit(X, y) for seed in range(2))
    scorer = LMCScorer(n_alphas=5)
    display = PathDisplay.from_models([a, b], X, y, scorer=scorer)
    np.testing.assert_array_equal(display.curves["path"]["loss"][0], scorer.path(a, b, X, y).loss)
    named = PathDisplay.from_models({"first": a, "second": b}, X, y, scorer=scorer).plot()
    assert named.ax_.get_xlabel() == "alpha (0: first, 1: second)"
    with pytest.raises(ValueError, match=r"PathDisplay.from_models: 'models' must hold 2 .* got 3"):
        PathDisplay.from_models([a, b, a], X, y)


def test_messages(path_score, pairwise_score):
    with pytest.raises(ValueError, match="'scores' is empty"):
        PathDisplay.from_scores({})
    with pytest.raises(TypeError, match="must hold PathScore or PairwiseScore objects, got int"):
        PathDisplay.from_scores(3)
    with pytest.raises(ValueError, match="there is no 'calibrated_loss' for 'path'"):
        PathDisplay.from_scores(pairwise_score).plot(metric="calibrated_loss")
    with pytest.raises(ValueError, match="'metric' must be one of"):
        PathDisplay.from_scores(path_score).plot(metric="accuracy")
    short = PathDisplay.from_scores(path_score)
    assert short.alphas is path_score.alphas
    other = LMCScorer(n_alphas=3)
    X, y = make_moons(20, random_state=0)
    net = NetClassifier(max_epochs=1, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match=r"'b' has other alphas than the first score \(3 and 5\)"):
        PathDisplay.from_scores({"a": path_score, "b": other.path(net, net, X, y)})


def test_install_hint_without_matplotlib(monkeypatch, path_score):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"PathDisplay: .* pip install 'sklmc\[plot\]'"):
        PathDisplay.from_scores(path_score).plot()
