"""The plane through three models."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklmc import LMCScorer, NetClassifier, average_models
from sklmc.connectivity import loss_plane
from sklmc.models import view


def test_models_lie_where_the_plane_says(nets, moons):
    plane = loss_plane(nets[:3], *moons, n_points=5)
    score = LMCScorer().pairwise(nets[:3], *moons)
    wanted = [score.loss[0, 0], score.loss[0, -1], score.loss[1, -1]]
    np.testing.assert_allclose(plane.model_loss, wanted, rtol=1e-5)
    np.testing.assert_allclose(plane.model_error, score.error[[0, 0, 1], [0, -1, -1]])
    distances = [
        np.sqrt(
            sum(
                float((a.double() - b.double()).square().sum())
                for a, b in zip(
                    view(one, caller="t").state.values(), view(two, caller="t").state.values()
                )
            )
        )
        for one, two in ((nets[0], nets[1]), (nets[0], nets[2]), (nets[1], nets[2]))
    ]
    a, b, c = plane.positions
    seen = [np.linalg.norm(a - b), np.linalg.norm(a - c), np.linalg.norm(b - c)]
    np.testing.assert_allclose(seen, distances, rtol=1e-5)


def test_points_of_the_grid_are_nets_of_the_plane(nets, moons):
    """Without margin the grid's lower corners are A and B; their middle is the path's."""
    X, y = moons
    plane = loss_plane(nets[:3], X, y, n_points=3, margin=0.0)
    a, b, c = plane.positions
    assert a[0] <= c[0] <= b[0], "the fixture's C projects between A and B"
    assert plane.loss[0, 0] == pytest.approx(plane.model_loss[0], rel=1e-6)
    assert plane.loss[0, 2] == pytest.approx(plane.model_loss[1], rel=1e-6)
    path = LMCScorer(n_alphas=3).path(nets[0], nets[1], X, y)
    assert plane.loss[0, 1] == pytest.approx(path.loss[1], rel=1e-5)
    assert plane.loss.shape == plane.error.shape == (3, 3)


def test_centre_is_the_average(nets, moons):
    from sklmc.connectivity._plane import _frame, _weights

    views = [view(net, caller="t") for net in nets[:3]]
    positions, axes = _frame(views, "t")
    weights = _weights(*positions.mean(axis=0), axes)
    np.testing.assert_allclose(weights, [1 / 3] * 3)
    assert average_models(nets[:3], weights).score(*moons) > 0.4


@pytest.mark.slow
def test_numbers_do_not_depend_on_n_jobs(nets, moons):
    one = loss_plane(nets[:3], *moons, n_points=4)
    two = loss_plane(nets[:3], *moons, n_points=4, n_jobs=2)
    np.testing.assert_array_equal(one.loss, two.loss)


def test_aligned_pipelines(moons):
    X, y = moons
    pipes = [
        make_pipeline(StandardScaler(), NetClassifier(max_epochs=3, random_state=k)).fit(X, y)
        for k in range(3)
    ]
    plane = loss_plane(pipes, X, y, n_points=3, aligner="weight")
    bare = loss_plane(pipes, X, y, n_points=3)
    np.testing.assert_allclose(plane.model_loss, bare.model_loss, rtol=1e-5)
    assert np.linalg.norm(plane.positions[1]) < np.linalg.norm(bare.positions[1])


def test_repaired_statistics_keep_the_variance_positive(make_mlps, data):
    nets = make_mlps(3, norm="batch")
    plane = loss_plane(nets, *data, n_points=5, margin=3.0, repair="batch_norm")
    assert np.isfinite(plane.loss).all()


def test_frame_has_one_row_for_each_point(nets, moons):
    plane = loss_plane(nets[:3], *moons, n_points=3)
    frame = plane.to_frame()
    assert len(frame) == 9
    row = frame.iloc[5]
    assert (row["x"], row["y"], row["loss"]) == (plane.x[2], plane.y[1], plane.loss[1, 2])


def test_messages(nets, moons):
    with pytest.raises(ValueError, match="'models' must hold at least 3 models, got 2"):
        loss_plane(nets[:2], *moons)
    with pytest.raises(ValueError, match="'models' must hold 3 models, got 4"):
        loss_plane(nets, *moons)
    with pytest.raises(ValueError, match="lie on one line"):
        loss_plane([nets[0], nets[1], nets[0]], *moons)
    middle = average_models(nets[:2])
    with pytest.raises(ValueError, match="lie on one line"):
        loss_plane([nets[0], nets[1], middle], *moons)
    with pytest.raises(ValueError, match="'n_points' must be at least 2, got 1"):
        loss_plane(nets[:3], *moons, n_points=1)
    with pytest.raises(ValueError, match="'margin' must be in"):
        loss_plane(nets[:3], *moons, margin=-1)
    with pytest.raises(ValueError, match="'repair' must be one of 'batch_norm', None"):
        loss_plane(nets[:3], *moons, repair="refit")
    wide = NetClassifier(module__width=5, max_epochs=1).fit(*moons)
    with pytest.raises(ValueError, match=r"'models\[0\]' and 'models\[2\]' are of different arch"):
        loss_plane([*nets[:2], wide], *moons)
    assert torch.is_grad_enabled()
