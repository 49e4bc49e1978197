"""A measure of the pairs of every cell of a grid."""

import pandas as pd
import pytest
from sklearn.datasets import make_moons

from sklmc import ModelGrid, NetClassifier, PermutationAligner
from sklmc.features import (
    error_bound,
    layerwise_exponential_connectivity,
    layerwise_linear_connectivity,
    measure_grid,
)

X, Y = make_moons(80, noise=0.1, random_state=0)


@pytest.fixture(scope="module")
def grid():
    net = NetClassifier(max_epochs=3)
    return ModelGrid(net, {"module__width": [4, 8]}, n_estimators=3, random_state=0).fit(X, Y)


def test_rows_are_those_of_the_measure_itself(grid):
    frame = measure_grid(layerwise_exponential_connectivity, grid, X, alphas=(0.25, 0.5))
    assert frame.columns[:4].tolist() == ["module__width", "condition", "model_a", "model_b"]
    a, b = grid.cell(module__width=8).estimators[1:]
    alone = layerwise_exponential_connectivity(a, b, X, alphas=(0.25, 0.5))
    rows = frame.query("module__width == 8 and model_a == 1 and model_b == 2")
    pd.testing.assert_frame_equal(rows[alone.columns].reset_index(drop=True), alone)
    assert len(frame) == 2 * 3 * len(alone)


def test_aligned_pairs_stand_beside_those_as_trained(grid):
    frame = measure_grid(
        layerwise_linear_connectivity, grid, X, aligner="weight", max_pairs=2, alphas=0.5
    )
    assert set(frame.condition) == {"naive", "aligned"}
    assert set(zip(frame.model_a, frame.model_b)) == {(0, 1), (0, 2)}
    a, b = grid.cell(module__width=4).estimators[:2]
    moved = PermutationAligner("weight", random_state=0).fit(a, b).transform(b)
    alone = layerwise_linear_connectivity(a, moved, X, alphas=0.5)
    rows = frame.query("module__width == 4 and condition == 'aligned' and model_b == 1")
    pd.testing.assert_frame_equal(rows[alone.columns].reset_index(drop=True), alone)


def test_jobs_do_not_matter_and_labels_reach_measures_that_take_them(grid):
    one, two = (measure_grid(error_bound, grid, X, Y, n_jobs=n, alphas=0.5) for n in (1, 2))
    pd.testing.assert_frame_equal(one, two)
    assert one.holds.all()


def test_what_cannot_be_measured_is_refused_by_name(grid):
    with pytest.raises(TypeError, match="'model_grid' must have 'cells_'"):
        measure_grid(error_bound, [1], X, Y)
    with pytest.raises(TypeError, match="'measure' must be a function"):
        measure_grid(1.0, grid, X)
    with pytest.raises(TypeError, match="'measure' must return a DataFrame"):
        measure_grid(lambda a, b, X: 1.0, grid, X)
    with pytest.raises(ValueError, match="'max_pairs'"):
        measure_grid(error_bound, grid, X, Y, max_pairs=0)
    single = ModelGrid(NetClassifier(max_epochs=1), {"module__width": [4]}).fit(X, Y)
    single.cells_[0].estimators[1:] = []
    with pytest.raises(ValueError, match="no cell of 'model_grid' holds two models"):
        measure_grid(error_bound, single, X, Y)
