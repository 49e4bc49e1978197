"""Samples and labels that a model cannot take are refused in one place, for every room alike."""

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from sklmc import LMCScorer, NetClassifier, PermutationAligner, merge_models
from sklmc.exceptions import NonFiniteError
from sklmc.features import inverse_temperatures, layerwise_linear_connectivity
from sklmc.merging import repair
from sklmc.models import read_data, view
from sklmc.symmetry import discover_symmetry
from tests.models.conftest import X, Y, chain

BATCHES = [X[:8], X[8:16], X[16:24]]
SPARSE = torch.from_numpy(X).to_sparse()
META = torch.empty((30, 3), device="meta")


def merge(X, y=None):
    return merge_models([chain(0), chain(1)], X, y, aligner=None, repair="renormalize")


def merge_as_they_are(X, y=None):
    return merge_models([chain(0), chain(1)], X, y, repair=None)


def repaired(X, y=None):
    return repair(chain(2), [chain(0), chain(1)], X, y=y)


def align(X, y=None):
    return PermutationAligner("activation").fit(chain(0), chain(1), X, y)


def learn(X, y=None):
    y = Y if y is None else y
    return PermutationAligner("straight_through", max_iter=1).fit(chain(0), chain(1), X, y)


def score(X, y=None):
    return LMCScorer(n_alphas=2).path(chain(0), chain(1), X, Y if y is None else y)


def temperatures(X, y=None):
    return inverse_temperatures(chain(0), chain(1), X, Y if y is None else y)


def features(X, y=None):
    return layerwise_linear_connectivity(chain(0), chain(1), X)


def discover(X, y=None):
    return discover_symmetry(chain(0), X)


ROOMS = [merge, merge_as_they_are, repaired, align, learn, score, temperatures, features, discover]
LABELLED = [merge, merge_as_they_are, repaired, align, learn, score, temperatures]


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize(
    "X, said",
    [
        (tuple(BATCHES), "(cannot run on|does not take) 'X'"),
        ([(b, b) for b in BATCHES], "(cannot run on|does not take) 'X'"),
        (META, "'X' is on the meta device and has no values"),
        (SPARSE, "'X' is a sparse tensor; pass a dense one"),
        ((SPARSE,), "'X' is a sparse tensor; pass a dense one"),
        (sparse.csr_array(X), r"'X' is sparse; pass X.toarray\(\)"),
        (sparse.coo_matrix(X), "'X' is sparse"),
    ],
)
def test_samples_that_are_no_array_are_refused(room, X, said):
    with pytest.raises((TypeError, ValueError), match=said):
        room(X)


@pytest.mark.parametrize("room", [room for room in ROOMS if room is not discover])
def test_number_that_turns_infinite_is_refused(room):
    """A trace reads eight rows; all others read them all."""
    huge = X.astype(float)
    huge[-1, 0] = 1e300
    with pytest.raises(NonFiniteError, match=r"up to 1e\+300, which are infinite in float32"):
        room(huge)


@pytest.mark.parametrize("room", LABELLED)
@pytest.mark.parametrize("bad", [-1, 2, 10**12])
def test_label_out_of_range_is_refused(room, bad):
    """One label of thirty, behind the first rows."""
    y = Y.copy()
    y[20] = bad
    with pytest.raises(ValueError, match=f"'y' holds label {bad}, .* labels must be 0..1"):
        room(X, y)


@pytest.mark.parametrize("room", LABELLED)
@pytest.mark.parametrize(
    "y, said",
    [
        (Y[:7], "'X' and 'y' must have the same length, got 30 and 7"),
        (torch.empty(30, device="meta"), "'y' is on the meta device"),
        (sparse.csr_array(Y[:, None]), "'y' is sparse"),
        ({"y": Y}, "'y' must be array-like, got dict"),
        (np.array(1), "'y' must hold one value per sample"),
        ([[1, 2], [3]] * 15, "'y' cannot be read as one array"),
    ],
)
def test_targets_that_do_not_fit_are_refused(room, y, said):
    with pytest.raises((TypeError, ValueError), match=said):
        room(X, y)


@pytest.mark.parametrize(
    "X, said",
    [
        ([[1.0, 2.0], [3.0]], "'X' cannot be read as one array .* rows"),
        (torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.quint8), "quantised tensor"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested tensor"),
        ({1, 2}, "got set"),
        ((torch.ones(0, 3), torch.ones(0, 3)), "at least one sample"),
        ((torch.tensor(1.0),), "at least one sample"),
    ],
)
@pytest.mark.parametrize("read", ["to_input", "sample"])
def test_other_things_are_refused(X, said, read):
    with pytest.raises((TypeError, ValueError), match=f"f: .*{said}"):
        getattr(view(nn.Linear(3, 2), caller="f"), read)(X)


def test_fitted_nets_refuse_the_same():
    net = NetClassifier(max_epochs=1, random_state=0).fit(X, Y)
    for bad in (META, SPARSE):
        with pytest.raises((TypeError, ValueError), match="f: 'X' is"):
            view(net, caller="f").to_input(bad)
    with pytest.raises(ValueError, match="f: 'y' is on the meta device"):
        view(net, caller="f").to_target(META[:, 0])


@pytest.mark.parametrize(
    "rows",
    [
        X.tolist(),
        tuple(map(tuple, X.tolist())),
        list(X),
        list(torch.from_numpy(X)),
        [[np.float32(value) for value in row] for row in X],
    ],
)
def test_lists_of_rows_are_one_array(rows):
    inputs, target = read_data(view(chain(0), caller="f"), rows, Y.tolist())
    assert np.array_equal(inputs.args[0].numpy(), X)
    assert target.tolist() == Y.tolist()


def test_rows_of_images_as_nested_lists_are_one_array():
    images = np.arange(18.0).reshape(2, 1, 3, 3)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2))
    assert view(net, caller="f").to_input(images.tolist()).args[0].shape == (2, 1, 3, 3)


class Sum(nn.Module):
    """Two arguments."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x, z):
        return self.layer(x + z)


def test_several_arguments_count_as_many_samples_as_the_first():
    several = torch.from_numpy(X), torch.from_numpy(X)
    merged = merge_models([Sum(), Sum()], several, Y, aligner=None)
    assert isinstance(merged, Sum)
    with pytest.raises(ValueError, match="got 30 and 2 samples"):
        merge_models([Sum(), Sum()], several, Y[:2], aligner=None)


class Exact(nn.Module):
    """A net that wants exactly its rows, as a graph's nodes."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("edges", torch.eye(30))

    def forward(self, x):
        return self.edges @ self.layer(x)


def test_net_that_takes_all_rows_or_none_is_asked_with_all():
    inputs, target = read_data(view(Exact(), caller="f"), X, Y)
    assert len(inputs) == len(target) == 30
