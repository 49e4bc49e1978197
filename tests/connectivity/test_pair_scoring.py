"""What a scorer may calibrate on: held-out samples of the data, samples of its own, or none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import LMCScorer


@pytest.fixture
def ends():
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(2)]


X = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
LABELS, TARGETS = np.arange(9) % 2, X[:, :2].copy()


@pytest.mark.parametrize("calibration", ["crossfit", "in_sample", (X, LABELS)])
def test_regression_is_not_calibrated(ends, calibration):
    assert LMCScorer(calibration=None).path(*ends, X, TARGETS).calibrated_loss is None
    with pytest.raises(ValueError, match="'calibration' fits an inverse temperature"):
        LMCScorer(calibration=calibration).path(*ends, X, TARGETS)


def test_two_samples_can_be_calibrated_crosswise_and_one_cannot(ends):
    scorer = LMCScorer(calibration="crossfit", n_alphas=3)
    assert np.isfinite(scorer.path(*ends, X[:2], LABELS[:2]).calibrated_loss).all()
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        scorer.path(*ends, X[:1], LABELS[:1])


def test_scores_are_never_minus_zero(ends):
    class Ensemble:
        estimators_ = [ends[0], ends[0]]

    scores = LMCScorer()(Ensemble(), X, LABELS)
    assert scores["neg_barrier"] == 0.0
    assert not any(np.signbit(value) for value in scores.values() if value == 0)


def test_the_output_that_is_asked_for_must_be_there(ends):
    class Ensemble:
        estimators_ = ends

    every = LMCScorer()(Ensemble(), X, LABELS)
    assert LMCScorer(output="neg_merged_loss")(Ensemble(), X, LABELS) == every["neg_merged_loss"]
    with pytest.raises(ValueError, match="these models give 'neg_barrier'"):
        LMCScorer(output="neg_calibrated_barrier", calibration=None)(Ensemble(), X, LABELS)


def test_weights_are_routed_only_where_that_is_switched_on():
    with pytest.raises(RuntimeError, match="metadata is not routed"):
        LMCScorer().set_score_request(sample_weight=True)


def test_a_scorer_wants_no_fit_and_no_table():
    tags = LMCScorer().__sklearn_tags__()
    assert not tags.requires_fit
    assert not tags.input_tags.two_d_array
