"""Random permutations and directions beside a path."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklmc import LMCScorer, NetClassifier
from sklmc.connectivity import path_controls
from sklmc.connectivity._controls import _random_step
from sklmc.models import view


def test_permuted_ends_compute_the_same_and_lie_apart(nets, moons):
    found = path_controls(nets[0], nets[0], *moons, n_repeats=3, random_state=0)
    assert found["path"].barrier == 0.0
    for score in found["random_permutation"]:
        assert score.loss[-1] == pytest.approx(score.loss[0], rel=1e-5)
    assert max(score.barrier for score in found["random_permutation"]) > 0.0


def test_random_steps_are_as_long_as_the_path_in_every_tensor(nets):
    a, b = (view(net, caller="t") for net in nets[:2])
    step = view(_random_step(a, b, seed=0), caller="t")
    for name in a.state:
        wanted = torch.linalg.vector_norm(b.state[name] - a.state[name])
        seen = torch.linalg.vector_norm(step.state[name] - a.state[name])
        assert float(seen) == pytest.approx(float(wanted), rel=1e-4)


def test_aligner_acts_on_the_path_only_and_seeds_repeat(nets, moons):
    scorer = LMCScorer(aligner="weight")
    one, two = (
        path_controls(*nets[:2], *moons, scorer=scorer, n_repeats=2, random_state=3)
        for _ in range(2)
    )
    np.testing.assert_array_equal(one["path"].loss, scorer.path(*nets[:2], *moons).loss)
    for kind in ("random_permutation", "random_direction"):
        for left, right in zip(one[kind], two[kind]):
            np.testing.assert_array_equal(left.loss, right.loss)
        assert not np.array_equal(one[kind][0].loss, one[kind][1].loss)
    assert max(score.barrier for score in one["random_permutation"]) > one["path"].barrier
    assert scorer.aligner == "weight"


def test_pipelines(moons):
    X, y = moons
    pipes = [
        make_pipeline(StandardScaler(), NetClassifier(max_epochs=2, random_state=k)).fit(X, y)
        for k in range(2)
    ]
    scorer = LMCScorer(n_alphas=3, calibration=(X[:50], y[:50]))
    found = path_controls(*pipes, X, y, scorer=scorer, n_repeats=1, random_state=0)
    for kind in ("random_permutation", "random_direction"):
        assert found[kind][0].calibrated_loss[0] == pytest.approx(
            found["path"].calibrated_loss[0], rel=1e-5
        )


def test_messages(nets, moons):
    with pytest.raises(ValueError, match="'n_repeats' must be at least 1, got 0"):
        path_controls(*nets[:2], *moons, n_repeats=0)
    with pytest.raises(TypeError, match="'scorer' must be an LMCScorer, got str"):
        path_controls(*nets[:2], *moons, scorer="accuracy")
