"""PairwiseScore: matrices, intervals, comparisons, clusters."""

import numpy as np
import pytest
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist

from sklmc import PairwiseScore

ALPHAS = np.linspace(0, 1, 5)


def score_of(barriers, n_models, **more):
    """A score whose paths rise from 0.1 by the given barriers."""
    loss = 0.1 + 4 * np.asarray(barriers)[:, None] * ALPHAS * (1 - ALPHAS)
    return PairwiseScore(n_models=n_models, alphas=ALPHAS, loss=loss, error=loss / 3, **more)


@pytest.fixture
def grouped():
    """Seven models in two groups, {0, 2, 4, 6} and {1, 3, 5}."""
    first, second = np.triu_indices(7, 1)
    rng = np.random.default_rng(0)
    return score_of(np.where((first - second) % 2, 1.0, 0.05) + 0.01 * rng.random(21), 7)


def test_matrices_are_symmetric_with_zero_diagonal(grouped):
    for matrix in (grouped.barrier, grouped.epsilon, grouped.midpoint_barrier):
        np.testing.assert_array_equal(matrix, matrix.T)
        assert (np.diag(matrix) == 0).all()
        assert matrix.shape == (7, 7)
    assert grouped.calibrated_barrier is None
    row = grouped.pairs.index((2, 5))
    assert grouped.barrier[5, 2] == pytest.approx(grouped.loss[row, 2] - 0.1)


@pytest.mark.parametrize("name", ["barrier", "epsilon", "calibrated_barrier", "midpoint_barrier"])
@pytest.mark.parametrize("baseline", ["linear", "mean", "max"])
def test_attributes_of_a_path_are_those_of_its_pair(name, baseline):
    loss, error, calibrated = np.random.default_rng(0).random((3, 3, 5))
    score = PairwiseScore(
        n_models=3,
        alphas=ALPHAS,
        loss=loss,
        error=error,
        calibrated_loss=calibrated,
        inverse_temperature=calibrated,
        metric="error",
        baseline=baseline,
    )
    for i, j in score.pairs:
        path = score.path(i, j)
        assert getattr(score, name)[i, j] == getattr(path, name)
        for metric in ("loss", "error", "calibrated_loss"):
            pairs = score.barrier_for(baseline="mean", metric=metric)
            assert pairs[i, j] == path.barrier_for(baseline="mean", metric=metric)
    own = score.barrier_for(baseline=baseline, metric="error")
    np.testing.assert_array_equal(score.barrier, own)


def test_unknown_baseline_and_metric_are_refused(grouped):
    with pytest.raises(ValueError, match=r"'baseline' must be one of .*, got 'maximum'"):
        grouped.barrier_for(baseline="maximum")
    with pytest.raises(ValueError, match="'metric' must be one of"):
        grouped.barrier_for(metric="accuracy")


def test_path_of_a_pair_either_way_round():
    loss = np.array([[0.1, 0.2, 0.6, 0.5, 0.3]])
    score = PairwiseScore(n_models=2, alphas=ALPHAS, loss=loss, error=loss)
    np.testing.assert_array_equal(score.path(0, 1).loss, loss[0])
    np.testing.assert_array_equal(score.path(1, 0).loss, loss[0, ::-1])
    assert score.path(0, 1).barrier == score.path(1, 0).barrier == score.barrier[0, 1]


def test_frame_has_one_row_for_each_pair(grouped):
    frame = grouped.to_frame()
    assert len(frame) == 21
    row = frame.set_index(["model_a", "model_b"]).loc[(1, 4)]
    path = grouped.path(1, 4)
    assert row["barrier"] == path.barrier
    assert row["error_barrier"] == path.barrier_for(metric="error")
    assert row["midpoint_loss"] == path.midpoint()
    assert (row["loss_a"], row["error_b"]) == (path.loss[0], path.error[-1])
    assert (row["minimum"], row["maximum"]) == (path.minimum, path.maximum)


def test_interval_of_every_matrix(grouped):
    found = grouped.interval(random_state=0)
    assert found.estimate == np.median(grouped.barrier[np.triu_indices(7, 1)])
    assert found.low <= found.estimate <= found.high
    assert grouped.interval(random_state=0, quantity="epsilon").estimate == np.median(
        grouped.epsilon[np.triu_indices(7, 1)]
    )
    assert grouped.interval(random_state=0) == found


def test_paired_comparison_sees_what_separate_intervals_do_not():
    rng = np.random.default_rng(0)
    first, second = np.triu_indices(15, 1)
    effects = rng.exponential(size=15)
    base = effects[first] + effects[second]
    worse, better = score_of(base + 0.05, 15), score_of(base, 15)
    difference = worse.compare(better, random_state=0)
    assert difference.estimate == pytest.approx(0.05)
    assert difference.low > 0
    assert better.compare(worse, random_state=0).estimate == pytest.approx(-0.05)
    assert worse.interval(random_state=0).low < better.interval(random_state=0).high


@pytest.mark.parametrize("on", ["distance", "rows"])
@pytest.mark.parametrize("linkage", ["single", "complete", "average", "weighted"])
def test_clusters_are_the_groups(grouped, on, linkage):
    clusters = grouped.cluster(linkage=linkage, on=on)
    assert clusters.labels(n_clusters=2).tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert sorted(clusters.order) == list(range(7))
    assert len(set(clusters.labels(height=0.0))) == 7
    groups = [label % 2 for label in clusters.order]
    assert sum(a != b for a, b in zip(groups[:-1], groups[1:])) == 1


def test_single_linkage_joins_what_chains_of_low_barriers_connect():
    """0-1 and 1-2 are low, 0-2 is high: one cluster for single, two for complete linkage."""
    chain = score_of([0.1, 0.9, 0.1], 3)
    assert chain.cluster(linkage="single").labels(height=0.2).tolist() == [0, 0, 0]
    assert len(set(chain.cluster(linkage="complete").labels(height=0.2))) == 2


def test_rows_are_compared_by_euclidean_distance(grouped):
    found = grouped.cluster(linkage="single", on="rows").linkage
    wanted = hierarchy.linkage(pdist(grouped.epsilon), "single")
    np.testing.assert_allclose(found[:, 2], wanted[:, 2])


def test_failures_get_error_score():
    score = score_of([0.1, 0.2, 0.3], 3, failures={(0, 2): "no"}, error_score=5.0)
    assert score.barrier[0, 2] == score.epsilon[2, 0] == 5.0
    assert score.barrier[0, 1] == pytest.approx(0.1)
    assert np.isnan(score_of([0.1] * 3, 3, failures={(0, 2): "no"}).barrier[0, 2])


def test_messages(grouped):
    with pytest.raises(ValueError, match="'confidence' must lie in"):
        grouped.interval(confidence=95)
    with pytest.raises(TypeError, match="'confidence' must be"):
        grouped.interval(confidence="0.9")
    with pytest.raises(ValueError, match="'n_resamples' must be at least 1, got 0"):
        grouped.interval(n_resamples=0)
    with pytest.raises(ValueError, match="'quantity' must be one of 'barrier'"):
        grouped.interval(quantity="loss")
    with pytest.raises(ValueError, match="there is no 'calibrated_loss'; set 'calibration'"):
        grouped.interval(quantity="calibrated_barrier")
    with pytest.raises(ValueError, match="'other' has 3 models and this score 7"):
        grouped.compare(score_of([0.1] * 3, 3))
    with pytest.raises(TypeError, match="'other' must be a PairwiseScore, got float"):
        grouped.compare(0.5)
    with pytest.raises(ValueError, match=r"PairwiseScore\.cluster: 'quantity' must be one of"):
        grouped.cluster(quantity="loss")
    with pytest.raises(ValueError, match="there is no 'calibrated_loss'; set 'calibration'"):
        grouped.cluster(quantity="calibrated_barrier")
    with pytest.raises(ValueError, match="'linkage' must be one of"):
        grouped.cluster(linkage="ward")
    with pytest.raises(ValueError, match="'on' must be one of 'distance', 'rows', got 'row'"):
        grouped.cluster(on="row")
    with pytest.raises(ValueError, match=r"between models 0 and 2 is .*nan"):
        score_of([0.1, np.nan, 0.3], 3).cluster()
    with pytest.raises(ValueError, match=r"two different models of 0\.\.6, got 3 and 3"):
        grouped.path(3, 3)
    with pytest.raises(ValueError, match="either 'height' or 'n_clusters'"):
        grouped.cluster().labels()
