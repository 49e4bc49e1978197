"""Members trained one by one and vectorized, side by side."""

from __future__ import annotations

import pytest
import torch
from sklearn.base import clone

from sklmc.estimators._vectorized import fit_vectorized

# Sums are rounded in another order: a few units in the last place of weights near one, times the
# steps of five epochs.
ROUNDING = 5e-6


def both(net, X, y, n_members=3):
    """Return members trained one by one, and vectorized."""
    alone = [clone(net).set_params(random_state=seed).fit(X, y) for seed in range(n_members)]
    unfitted = [clone(net).set_params(random_state=seed) for seed in range(n_members)]
    return alone, fit_vectorized(unfitted, X, y)


def assert_same_nets(alone, vectorized, tol=ROUNDING):
    for one, other in zip(alone, vectorized):
        for (name, value), twin in zip(
            one.module_.state_dict().items(), other.module_.state_dict().values()
        ):
            assert torch.allclose(value.double(), twin.double(), rtol=0, atol=tol), name


def assert_same_histories(alone, vectorized, tol=ROUNDING):
    for one, other in zip(alone, vectorized):
        assert len(one.history) == len(other.history)
        for row, twin in zip(one.history, other.history):
            assert list(row) == list(twin)
            for key in row.keys() - {"batches", "dur"}:
                assert row[key] == pytest.approx(twin[key], abs=tol), key
            for batch, counterpart in zip(row["batches"], twin["batches"], strict=True):
                assert list(batch) == list(counterpart)
                assert batch == pytest.approx(counterpart, abs=tol)
