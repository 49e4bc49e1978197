"""LossPlaneDisplay draws excess loss and marks the nets."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import make_moons

from sklmc import NetClassifier
from sklmc.connectivity import LossPlane, loss_plane
from sklmc.plotting import LossPlaneDisplay


@pytest.fixture
def plane():
    x, y = np.linspace(-1, 3, 6), np.linspace(-1, 2, 5)
    loss = 0.2 + x[None, :] ** 2 + y[:, None] ** 2
    return LossPlane(
        x=x,
        y=y,
        loss=loss,
        error=loss / 20,
        positions=np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 1.5]]),
        model_loss=np.array([0.2, 4.2, 3.45]),
        model_error=np.array([0.01, 0.21, 0.17]),
    )


def test_nets_are_marked_and_contours_begin_at_the_best_of_them(plane):
    display = LossPlaneDisplay.from_scores(plane).plot()
    np.testing.assert_array_equal(display.points_.get_xydata(), plane.positions)
    assert [text.get_text() for text in display.ax_.texts] == ["A", "B", "C"]
    assert display.contours_.levels[0] == 0.0
    assert display.contours_.levels[-1] == pytest.approx(np.quantile(plane.loss - 0.2, 0.95))
    assert display.colorbar_.ax.get_ylabel() == "excess loss"


def test_error_labels_and_axes(plane):
    _, ax = plt.subplots()
    display = LossPlaneDisplay(plane, labels=("p", "q", "r")).plot(ax, metric="error", vmax=0.1)
    assert display.ax_ is ax
    assert [text.get_text() for text in ax.texts] == ["p", "q", "r"]
    assert ax.get_xlabel() == "distance along p to q"
    assert display.contours_.levels[-1] == pytest.approx(0.1)


def test_plane_with_holes_is_drawn(plane):
    plane.loss[0, 0] = np.nan
    LossPlaneDisplay(plane).plot().figure_.canvas.draw()


def test_from_models():
    X, y = make_moons(40, random_state=0)
    nets = [NetClassifier(max_epochs=1, random_state=seed).fit(X, y) for seed in range(3)]
    display = LossPlaneDisplay.from_models(nets, X, y, n_points=3)
    np.testing.assert_array_equal(display.plane.loss, loss_plane(nets, X, y, n_points=3).loss)
    named = LossPlaneDisplay.from_models(dict(zip("pqr", nets)), X, y, n_points=2)
    assert named.labels == ["p", "q", "r"]


def test_messages(plane):
    with pytest.raises(TypeError, match="'scores' must be a LossPlane, got list"):
        LossPlaneDisplay.from_scores([])
    with pytest.raises(ValueError, match="'metric' must be one of 'loss', 'error'"):
        LossPlaneDisplay(plane).plot(metric="epsilon")
