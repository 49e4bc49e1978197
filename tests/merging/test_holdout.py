"""Rows kept from training."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from sklmc.merging._reports._holdout import check_rows, split_rows


def split(y, fraction, stratify=True, seed=0):
    return split_rows(y, fraction, stratify, np.random.RandomState(seed))


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize(
    "n, fraction, kept", [(100, 0.1, 10), (7, 0.1, 1), (2, 0.9, 1), (1, 0.5, 0)]
)
def test_sizes(n, fraction, kept, stratify):
    train, held = split(np.zeros(n), fraction, stratify)
    assert len(held) == kept
    assert sorted([*train, *held]) == list(range(n))
    assert (np.diff(train) > 0).all()


def test_none_keeps_nothing_back():
    train, held = split([0, 1, 0], None)
    assert train.tolist() == [0, 1, 2]
    assert len(held) == 0


def test_classes_keep_their_shares():
    y = np.repeat(["a", "b", "c"], [60, 30, 10])
    _, held = split(y, 0.2)
    assert [int((y[held] == label).sum()) for label in "abc"] == [12, 6, 2]


def test_last_sample_of_a_class_is_never_taken():
    y = np.array([0] * 20 + [1, 2, 3])
    for seed in range(20):
        train, held = split(y, 0.9, seed=seed)
        assert set(y[train]) == {0, 1, 2, 3}
        assert len(held) == 19
    assert len(split(np.arange(5), 0.5)[1]) == 0


@pytest.mark.parametrize(
    "y",
    [["x", "y"] * 10, [True, False] * 10, np.array([[0], [1]] * 10), pd.Series([1.5, 2.0] * 10)],
)
def test_labels_of_any_kind(y):
    _, held = split(y, 0.2)
    values = np.ravel(y)
    assert len(held) == 4
    assert len(set(values[held].tolist())) == 2


def test_seed_decides():
    y = np.arange(200) % 2
    assert split(y, 0.1, seed=0)[1].tolist() == split(y, 0.1, seed=0)[1].tolist()
    assert split(y, 0.1, seed=0)[1].tolist() != split(y, 0.1, seed=1)[1].tolist()


@pytest.mark.parametrize(
    "X, y, error, said",
    [
        ([[1.0]], None, ValueError, "requires y to be passed, but the target y is None"),
        ([[1.0]], [0, 1], ValueError, "'X' and 'y' must have the same length, got 1 and 2"),
        (np.zeros((0, 2)), [], ValueError, r"'X' holds no sample \(n_samples=0\)"),
        (sparse.csr_array(np.eye(2)), [0, 1], TypeError, "'X' is sparse, .*X.toarray()"),
        ({"x": [1], "z": [1, 2]}, [0], ValueError, "must have the same length, got 2 and 1"),
        (torch.utils.data.DataLoader([1.0, 2.0]), [0, 1], TypeError, "got DataLoader"),
    ],
)
def test_bad_rows(X, y, error, said):
    with pytest.raises(error, match=rf"f:? {said}|f: .*{said}"):
        check_rows(X, y, "f")


def test_tensors_become_arrays_and_frames_stay():
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    X, y = check_rows(frame, torch.tensor([0, 1]), "f")
    assert X is frame
    assert isinstance(y, np.ndarray)


def test_rows_of_different_shape_are_refused():
    ragged = (np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="f: 'X' cannot be read as one array"):
        check_rows(ragged, [0, 1], "f")
