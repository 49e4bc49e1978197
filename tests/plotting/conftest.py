"""Figures are drawn in memory and closed after each test."""

import matplotlib
import numpy as np
import pytest

from sklmc import PairwiseScore, PathScore

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture
def path_score():
    alphas = np.linspace(0, 1, 5)
    loss = np.array([0.2, 0.4, 0.6, 0.5, 0.3])
    return PathScore(
        alphas=alphas,
        loss=loss,
        error=loss / 3,
        calibrated_loss=loss / 2,
        inverse_temperature=np.ones(5),
    )


@pytest.fixture
def pairwise_score():
    """Six models: 0-2 connected, 3-5 connected, the two groups apart."""
    rng = np.random.default_rng(0)
    first, second = np.triu_indices(6, 1)
    height = np.where((first < 3) == (second < 3), 0.01, 0.5) + 0.01 * rng.random(15)
    alphas = np.linspace(0, 1, 5)
    loss = 0.1 + 4 * height[:, None] * alphas * (1 - alphas)
    return PairwiseScore(n_models=6, alphas=alphas, loss=loss, error=loss / 3)
