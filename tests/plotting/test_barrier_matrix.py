"""BarrierMatrixDisplay draws the matrix that it holds."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import make_moons

from sklmc import LMCScorer, NetClassifier
from sklmc.plotting import BarrierMatrixDisplay


def test_image_is_the_matrix(pairwise_score):
    display = BarrierMatrixDisplay.from_scores(pairwise_score).plot()
    np.testing.assert_array_equal(display.image_.get_array(), pairwise_score.barrier)
    assert display.colorbar_.ax.get_ylabel() == "barrier"
    assert display.image_.norm.vmax == pairwise_score.barrier.max()
    assert len(display.ax_.texts) == 36


def test_other_quantity_labels_and_cap(pairwise_score):
    _, ax = plt.subplots()
    names = list("abcdef")
    display = BarrierMatrixDisplay.from_scores(pairwise_score, quantity="epsilon", labels=names)
    display.plot(ax, vmax=0.1, annotate=False)
    assert display.ax_ is ax
    assert display.colorbar_.extend == "max"
    assert [tick.get_text() for tick in ax.get_yticklabels()] == names
    assert len(ax.texts) == 0


def test_from_models():
    X, y = make_moons(40, random_state=0)
    nets = [NetClassifier(max_epochs=1, random_state=seed).fit(X, y) for seed in range(3)]
    display = BarrierMatrixDisplay.from_models(nets, X, y)
    np.testing.assert_array_equal(display.matrix, LMCScorer().pairwise(nets, X, y).barrier)


def test_matrix_with_missing_pairs():
    matrix = np.array([[0.0, np.nan], [np.nan, 0.0]])
    assert BarrierMatrixDisplay(matrix).plot().image_.norm.vmax == 1.0


def test_messages(pairwise_score, path_score):
    with pytest.raises(TypeError, match="'scores' must be a PairwiseScore, got PathScore"):
        BarrierMatrixDisplay.from_scores(path_score)
    with pytest.raises(ValueError, match="'quantity' must be one of 'barrier'"):
        BarrierMatrixDisplay.from_scores(pairwise_score, quantity="loss")
    with pytest.raises(ValueError, match="there is no 'calibrated_barrier'"):
        BarrierMatrixDisplay.from_scores(pairwise_score, quantity="calibrated_barrier")
    with pytest.raises(ValueError, match="'labels' must hold 6 names, got 2"):
        BarrierMatrixDisplay.from_scores(pairwise_score, labels=["a", "b"])
