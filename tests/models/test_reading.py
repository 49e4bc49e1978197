"""Whatever X is, the same samples flow through the net."""

import numpy as np
import pandas as pd
import pytest
import skorch.dataset
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from sklmc import NetClassifier
from sklmc.models import Batches, Items, predict_outputs, read_data, read_labelled_data, view
from tests.models.conftest import X, Y, chain

T = torch.from_numpy(X)


class TwoInputs(nn.Module):
    """Takes samples and, by name, more of them and a mask that may be left out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, ids, mask=None, more=None):
        out = self.first(ids) + (0.0 if more is None else self.second(more))
        return out if mask is None else out * mask


class Graph(nn.Module):
    """Adds up, for each node, what its neighbours show; edges are (2, n_edges) node numbers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, nodes, edges):
        hidden = torch.relu(self.layer(nodes))
        return self.head(hidden.index_add(0, edges[1], hidden[edges[0]]))


class Pairs(Dataset):
    """Items (x, y) that are made when they are asked for; counts how many."""

    def __init__(self, noise=0.0, labelled=True, n=30):
        self.noise, self.labelled, self.n, self.asked = noise, labelled, n, 0

    def __len__(self):
        return self.n

    def __getitem__(self, k):
        self.asked += 1
        x = T[k % 30] + self.noise * torch.rand(3)
        return (x, int(Y[k % 30])) if self.labelled else x


class Stream(IterableDataset):
    def __iter__(self):
        return ((T[k], int(Y[k])) for k in range(30))


class OnDisk:
    """Looks like an array in a file: indices must rise."""

    shape, dtype = X.shape, X.dtype

    def __len__(self):
        return len(X)

    def __getitem__(self, rows):
        if not isinstance(rows, slice):
            assert list(rows) == sorted(set(rows))
        return X[rows]


def ring(n):
    """Nodes in a ring: as many edges as nodes."""
    at = torch.arange(n)
    return T[:n], torch.stack([at, (at + 1) % n])


def outputs_of(model, X):
    look = view(model, caller="f")
    inputs, _ = read_data(look, X)
    return predict_outputs(look, inputs, batch_size=7)


@pytest.fixture
def memory_map(tmp_path):
    np.save(tmp_path / "x.npy", X)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


ONE_ARGUMENT = {
    "batches": [X[:8], X[8:15], X[15:]],
    "batches of tensors": [T[:8], T[8:]],
    "Dataset": Pairs(),
    "Dataset without labels": Pairs(labelled=False),
    "TensorDataset": TensorDataset(T, torch.from_numpy(Y)),
    "TensorDataset without labels": TensorDataset(T),
    "skorch Dataset": skorch.dataset.Dataset(X, Y),
    "skorch Dataset without labels": skorch.dataset.Dataset(X),
    "Subset": Subset(Pairs(n=60), list(range(30))),
    "DataLoader": DataLoader(TensorDataset(T, torch.from_numpy(Y)), batch_size=4),
    "DataLoader of a stream": DataLoader(Stream(), batch_size=4),
    "list in a Dataset's place": DataLoader(list(T), batch_size=4),
    "on disk": OnDisk(),
}


@pytest.mark.parametrize("kind", ONE_ARGUMENT)
@pytest.mark.parametrize("fitted", [False, True])
def test_kinds_of_one_argument_give_the_outputs_of_the_array(kind, fitted):
    model = chain(0)
    if fitted:
        model = NetClassifier(max_epochs=1, random_state=0).fit(X, Y)
    found = outputs_of(model, ONE_ARGUMENT[kind])
    assert torch.allclose(found, outputs_of(model, X), rtol=1e-6, atol=1e-6)


def test_a_memory_map_is_read_in_blocks(memory_map):
    inputs = view(chain(0), caller="f").to_input(memory_map)
    assert isinstance(inputs, Items)
    assert torch.equal(outputs_of(chain(0), memory_map), outputs_of(chain(0), X))
    assert torch.equal(inputs[torch.tensor([9, 2, 9])].first(3)[0], T[[9, 2, 9]])


@pytest.mark.parametrize(
    "kind", [k for k, X in ONE_ARGUMENT.items() if isinstance(X, Dataset | DataLoader)]
)
def test_labels_inside_are_read_where_there_are_any(kind):
    given = ONE_ARGUMENT[kind]
    look = view(chain(0), caller="f")
    _, target = read_data(look, given)
    if "without" in kind or "place" in kind:
        assert target is None
    else:
        assert target.tolist() == Y.tolist()
    _, target = read_labelled_data(look, given, 1 - Y)
    assert target.tolist() == (1 - Y).tolist()


def test_labels_may_come_in_batches():
    _, target = read_data(view(chain(0), caller="f"), [X[:8], X[8:]], [Y[:8], Y[8:]])
    assert target.tolist() == Y.tolist()


def test_only_a_block_of_a_dataset_is_asked_for():
    data = Pairs(n=5000)
    inputs = view(chain(0), caller="f").to_input(data)
    asked = data.asked
    next(iter(inputs.blocks(16)))
    assert data.asked == asked + 16


TWO_ARGUMENTS = {
    "tuple": (X, None, X[::-1].copy()),
    "dict": {"ids": X, "more": X[::-1].copy()},
    "dict of frames": {"more": pd.DataFrame(X[::-1]), "ids": pd.DataFrame(X)},
    "dict of lists": {"ids": X.tolist(), "more": X[::-1].tolist()},
    "batches": [{"ids": X[a:b], "more": X[::-1][a:b].copy()} for a, b in ((0, 9), (9, 30))],
    "batches of tuples": [(X[a:b], None, X[::-1][a:b].copy()) for a, b in ((0, 9), (9, 30))],
    "skorch Dataset": skorch.dataset.Dataset({"ids": X, "more": X[::-1].copy()}, Y),
    "DataLoader": DataLoader(
        [{"ids": T[k], "more": T[29 - k], "labels": int(Y[k])} for k in range(30)], batch_size=4
    ),
}


@pytest.mark.parametrize("kind", TWO_ARGUMENTS)
def test_kinds_of_several_arguments_give_the_same_outputs(kind):
    model = TwoInputs()
    with torch.no_grad():
        expected = model(T, None, T.flip(0))
    assert torch.allclose(outputs_of(model, TWO_ARGUMENTS[kind]), expected, atol=1e-6)


def test_a_dict_that_forward_cannot_take_is_refused():
    with pytest.raises(ValueError, match="'X' is a dict with 'ids', 'wrong', but forward of model"):
        view(TwoInputs(), caller="f").to_input({"ids": X, "wrong": X})


def test_arguments_by_name_only_are_refused():
    class Named(nn.Module):
        def forward(self, *, x):
            return x

    with pytest.raises(ValueError, match="takes 'x' by name only; wrap the module"):
        view(Named(), caller="f").to_input({"x": X})


# Samples that cannot be cut apart


@pytest.mark.parametrize("n", [2, 5, 30])
def test_one_graph_is_one_batch(n):
    nodes, edges = ring(n)
    look = view(Graph(), caller="f")
    inputs, _ = read_data(look, (nodes, edges), Y[:n])
    assert len(inputs) == n
    assert [args[0].shape for args in inputs.blocks(2)] == [(n, 3)]
    with torch.no_grad():
        expected = Graph()(nodes, edges)
    assert torch.equal(predict_outputs(look, inputs), expected)
    chosen = torch.tensor([n - 1, 0])
    assert torch.equal(predict_outputs(look, inputs[chosen]), expected[chosen])


@pytest.mark.parametrize("kind", ["tuples", "dicts", "loader"])
def test_graphs_stay_whole(kind):
    sizes = (5, 9, 7)
    batches = [ring(n) for n in sizes]
    labels = np.concatenate([Y[:n] for n in sizes])
    X, y = batches, labels
    if kind == "dicts":
        X = [{"nodes": a, "edges": b} for a, b in batches]
    if kind == "loader":
        items = [(ring(n), torch.from_numpy(Y[:n])) for n in sizes]
        X, y = DataLoader(items, batch_size=1, collate_fn=lambda items: items[0]), None
    look = view(Graph(), caller="f")
    inputs, target = read_data(look, X, y)
    assert isinstance(inputs, Batches)
    assert target.tolist() == labels.tolist()
    with torch.no_grad():
        expected = torch.cat([Graph()(*batch) for batch in batches])
    assert torch.equal(predict_outputs(look, inputs, batch_size=2), expected)
    rows = torch.tensor([20, 3, 6, 0])  # of the third, first and second graph
    some = inputs[rows]
    assert len(some) == 4
    assert torch.equal(predict_outputs(look, some), expected[rows])
    assert torch.equal(predict_outputs(look, some[torch.tensor([2, 0])]), expected[rows[[2, 0]]])
    assert len(list(inputs[torch.tensor([0, 4])].blocks())) == 1


# What cannot be read twice


@pytest.mark.parametrize(
    "given, error, said",
    [
        (Pairs(noise=1.0), ValueError, "item 0 of the Pairs is another each time .*augmentation"),
        (
            DataLoader(Pairs(), batch_size=4, shuffle=True),
            ValueError,
            r"DataLoader of Pairs shuffles its samples \(RandomSampler\); .* shuffle=False",
        ),
        (
            DataLoader(Pairs(noise=1.0), batch_size=4),
            ValueError,
            "first batch of the DataLoader of Pairs is another each time",
        ),
        (Stream(), TypeError, "'X' is a Stream, which has no length and can be read once only"),
        (iter([X]), TypeError, "'X' must be array-like, .* got list_iterator"),
        (Pairs(n=0), ValueError, "at least one sample, got an empty Pairs"),
        (TensorDataset(T, T, T), ValueError, r"an item of 'X' has 3 parts; .* form \(X, y\)"),
        (
            DataLoader([T[:2], T[:3]], batch_size=2, collate_fn=torch.stack),
            ValueError,
            "the DataLoader of list cannot be read: RuntimeError: stack",
        ),
    ],
)
def test_what_cannot_be_read_twice_is_refused_by_name(given, error, said):
    with pytest.raises(error, match=f"f: .*{said}"):
        view(chain(0), caller="f").to_input(given)
