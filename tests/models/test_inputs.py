"""From array-likes to tensors."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch import nn

from sklmc.exceptions import NonFiniteError
from sklmc.models import Arrays, view


def tensor_of(X, module=None):
    return view(module or nn.Linear(2, 2), caller="f").to_input(X).args[0]


@pytest.mark.parametrize(
    "X",
    [
        [[1, 2], [3, 4]],
        ((1, 2), (3, 4)),
        np.array([[1, 2], [3, 4]], dtype=np.uint16),
        np.array([[1, 2], [3, 4]], dtype=object),
        np.array([["1", "2"], ["3", "4"]], dtype=object),
        np.array([[1, 2], [3, 4]], dtype=">f8"),
        np.array([[1, 2], [3, 4]], dtype=np.longdouble),
        np.array([[4, 3], [2, 1]], dtype=np.float64)[::-1, ::-1],
        pd.DataFrame({"a": [1, 3], "b": [2.0, 4.0]}),
        pd.DataFrame({"a": [1, 3], "b": [2, 4]}, dtype="Int64"),
        torch.tensor([[1, 2], [3, 4]]),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.bfloat16),
    ],
)
def test_array_likes_become_float32(X):
    tensor = tensor_of(X)
    assert tensor.dtype == torch.float32
    assert tensor.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert not tensor.requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtype_is_that_of_the_weights(dtype):
    assert tensor_of([[1, 0]], nn.Linear(2, 2).to(dtype)).dtype == dtype


def test_booleans_become_numbers():
    assert tensor_of([[True, False]]).tolist() == [[1.0, 0.0]]


def test_token_ids_stay_integers_for_an_embedding():
    module = nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 2))
    assert tensor_of(np.array([[1, 2]], dtype=np.uint8), module).dtype == torch.int64
    assert tensor_of(torch.tensor([[1, 2]], dtype=torch.int32), module).dtype == torch.int64


def test_arrays_handed_in_are_neither_changed_nor_shared():
    X = np.ones((2, 2), dtype=np.float32)
    tensor_of(X).fill_(5.0)
    assert (X == 1).all()


def test_read_only_array_is_taken():
    X = np.ones((2, 2), dtype=np.float32)
    X.setflags(write=False)
    assert tensor_of(X).shape == (2, 2)


@pytest.mark.parametrize(
    "X, error, said",
    [
        (np.zeros((0, 2)), ValueError, r"at least one sample, got shape \(0, 2\)"),
        (3.0, ValueError, r"at least one sample, got shape \(\)"),
        ([[np.nan, 0.0]], NonFiniteError, "contains NaN or infinity; remove or impute"),
        ([[np.inf, 0.0]], NonFiniteError, "contains NaN or infinity"),
        (torch.tensor([[torch.nan, 0.0]]), NonFiniteError, "contains NaN"),
        ([["a", "b"]], ValueError, "must hold numbers, got dtype <U1; encode text columns"),
        (np.array([[{}, 1]], dtype=object), ValueError, "must hold numbers, got dtype object"),
        (np.ones((1, 2), dtype=complex), ValueError, "must be real, got complex"),
        (sparse.csr_array(np.eye(2)), TypeError, "sparse; pass X.toarray()"),
        ({"x": [[1, 2]]}, ValueError, "is a dict with 'x', but forward of model cannot take it"),
        (None, TypeError, "got NoneType"),
        ("text", TypeError, "got str"),
        (np.array([["2020-01-01"]], dtype="datetime64[D]"), TypeError, "got dtype datetime64"),
    ],
)
def test_bad_input(X, error, said):
    with pytest.raises(error, match=f"f: 'X' .*{said}"):
        tensor_of(X)


@pytest.mark.parametrize(
    "y, dtype",
    [
        ([0, 1], torch.int64),
        ([True, False], torch.int64),
        (np.array([0, 1], dtype=np.uint8), torch.int64),
        (torch.tensor([0, 1], dtype=torch.int32), torch.int64),
        ([0.0, 1.5], torch.float64),
        (np.array([0, 1], dtype=np.float32), torch.float64),
    ],
)
def test_dtype_of_y_decides_on_the_loss(y, dtype):
    assert view(nn.Linear(2, 2), caller="f").to_target(y).dtype == dtype


@pytest.mark.parametrize(
    "y, error, said",
    [
        (["a", "b"], TypeError, "plain module knows no classes; encode them as 0..n_classes-1"),
        (np.array([0, "b"], dtype=object), TypeError, "labels of type object"),
        ([np.nan, 0.0], NonFiniteError, "contains NaN"),
        ([1j, 0.0], TypeError, "must hold numbers, got dtype complex128"),
    ],
)
def test_bad_targets(y, error, said):
    with pytest.raises(error, match=f"f: 'y' .*{said}"):
        view(nn.Linear(2, 2), caller="f").to_target(y)


# -- samples ---------------------------------------------------------------------------------


def test_blocks_cover_all_samples_in_order():
    x, index = torch.randn(10, 2), torch.arange(10)
    blocks = list(Arrays(x, index).blocks(4))
    assert [len(block[1]) for block in blocks] == [4, 4, 2]
    assert torch.equal(torch.cat([block[1] for block in blocks]), index)
    assert [len(part) for (part,) in Arrays(torch.zeros(2500, 1)).blocks()] == [1024, 1024, 452]


def test_what_all_samples_share_goes_with_every_block():
    x, mask, scale = torch.randn(10, 3), torch.ones(1, 3), torch.tensor(2.0)
    inputs = Arrays(mask, x, scale)
    assert len(inputs) == 10
    for block in inputs.blocks(4):
        assert torch.equal(block[0], mask)
        assert block[2] == 2.0
    some = inputs[torch.tensor([3, 1])]
    assert len(some) == 2
    assert torch.equal(some.args[1], x[[3, 1]])
    assert torch.equal(inputs.first(2)[1], x[:2])


def test_spread_rows_are_evenly_apart_and_hold_both_ends():
    inputs = Arrays(torch.zeros(101, 1))
    assert inputs.spread(5).tolist() == [0, 25, 50, 75, 100]
    assert len(inputs.spread(1000)) == 101
