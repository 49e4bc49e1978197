"""Pairs of nets and the kinds of samples that each of them takes, all of the same 48 samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import skorch.dataset
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

N = 48
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3)).astype(np.float32)
Z = RNG.normal(size=(N, 3)).astype(np.float32)
Y = (X[:, 0] + Z[:, 0] > 0).astype(np.int64)
SIZES = (10, 20, 18)  # of graphs; together N nodes


class OneInput(nn.Module):
    """Takes one argument."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(
            nn.Linear(3, 5),
            nn.BatchNorm1d(5),
            nn.ReLU(),
            nn.Linear(5, 5),
            nn.ReLU(),
            nn.Linear(5, 2),
        )

    def forward(self, x):
        return self.net(x)


class TwoInputs(nn.Module):
    """Takes two arguments, and a third that may be left out; returns a dict."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(3, 5), nn.Linear(3, 5)
        self.norm, self.head = nn.BatchNorm1d(5), nn.Linear(5, 2)

    def forward(self, x, z, scale=None):
        hidden = torch.relu(self.norm(self.first(x) + self.second(z)))
        logits = self.head(hidden if scale is None else hidden * scale)
        return {"loss": None, "logits": logits}


class Graph(nn.Module):
    """Adds up, for each node, what its neighbours show; edges are (2, n_edges) node numbers."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layer, self.norm = nn.Linear(3, 5), nn.BatchNorm1d(5)
        self.deep, self.head = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, nodes, edges):
        hidden = torch.relu(self.norm(self.layer(nodes)))
        hidden = torch.relu(self.deep(hidden.index_add(0, edges[1], hidden[edges[0]])))
        return self.head(hidden)


class OnDisk:
    """Looks like an array in a file."""

    shape, dtype = X.shape, X.dtype

    def __len__(self):
        return N

    def __getitem__(self, rows):
        return X[rows]


@dataclass(frozen=True)
class Door:
    """One kind of samples for one kind of net; `y` is None where X holds the labels."""

    net: type[nn.Module]
    X: object
    y: object = None


def rings() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return graphs whose nodes stand in a ring: as many edges as nodes."""
    graphs, start = [], 0
    for n in SIZES:
        at = torch.arange(n)
        graphs.append((torch.from_numpy(X[start : start + n]), torch.stack([at, (at + 1) % n])))
        start += n
    return graphs


def one_graph() -> tuple[torch.Tensor, torch.Tensor]:
    """Return all rings as one graph."""
    starts = np.concatenate([[0], np.cumsum(SIZES)[:-1]])
    edges = [edges + int(start) for (_, edges), start in zip(rings(), starts)]
    return torch.from_numpy(X), torch.cat(edges, dim=1)


def _labelled(graphs) -> list:
    labels = torch.from_numpy(Y).split(list(SIZES))
    return list(zip(graphs, labels))


T, TZ, TY = map(torch.from_numpy, (X, Z, Y))
PAIRS = [((T[k], TZ[k]), int(Y[k])) for k in range(N)]
DOORS = {
    # the reference of each net comes first
    "one: array": Door(OneInput, X, Y),
    "one: tensor": Door(OneInput, T, TY),
    "one: lists": Door(OneInput, X.tolist(), Y.tolist()),
    "one: DataFrame": Door(OneInput, pd.DataFrame(X), pd.Series(Y)),
    "one: tuple": Door(OneInput, (X,), Y),
    "one: dict": Door(OneInput, {"x": X}, Y),
    "one: batches": Door(OneInput, [X[:10], X[10:30], X[30:]], [Y[:10], Y[10:30], Y[30:]]),
    "one: Dataset": Door(OneInput, TensorDataset(T, TY)),
    "one: skorch Dataset": Door(OneInput, skorch.dataset.Dataset(X, Y)),
    "one: Dataset and y": Door(OneInput, TensorDataset(T), Y),
    "one: DataLoader": Door(OneInput, DataLoader(TensorDataset(T, TY), batch_size=16)),
    "one: on disk": Door(OneInput, OnDisk(), Y),
    "two: tuple": Door(TwoInputs, (X, Z), Y),
    "two: dict": Door(TwoInputs, {"z": Z, "x": X}, Y),
    "two: batches": Door(TwoInputs, [(X[:10], Z[:10]), (X[10:], Z[10:])], Y),
    "two: Dataset": Door(TwoInputs, skorch.dataset.Dataset({"x": X, "z": Z}, Y)),
    "two: items": Door(TwoInputs, DataLoader(PAIRS, batch_size=16)),
    "graph: one": Door(Graph, one_graph(), Y),
    "graph: batches": Door(Graph, rings(), Y),
    "graph: dicts": Door(Graph, [{"edges": e, "nodes": x} for x, e in rings()], Y),
    "graph: DataLoader": Door(
        Graph, DataLoader(_labelled(rings()), batch_size=1, collate_fn=lambda items: items[0])
    ),
}
REFERENCE = {door.net: name for name, door in reversed(DOORS.items())}
