"""What the caller has set in torch before a net is trained does not reach the net."""

from __future__ import annotations

import contextlib
import pickle

import pytest
import torch
from torch import nn

from sklmc import DeepEnsemble, ModelGrid, NetClassifier, NetRegressor, average_models
from sklmc.models import predict_outputs, view
from tests.estimators.nets import NETS, small


class FirstState(nn.Module):
    """Makes tensors in its forward pass, where the default dtype and device count."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.cell = nn.GRUCell(n_features, 4)
        self.output = nn.Linear(4, n_outputs)

    def forward(self, x):
        return self.output(self.cell(x, torch.zeros(len(x), 4) + torch.eye(4)[0]))


@contextlib.contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)


AMBIENT = {
    "float64": default_dtype,
    "meta": default_device,
    "with meta": lambda: torch.device("meta"),
    "inference": torch.inference_mode,
    "no grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}
everywhere = pytest.mark.parametrize("ambient", AMBIENT.values(), ids=AMBIENT)


def bits(net):
    """Return all that training has made of a net, with dtypes."""
    state = net.module_.state_dict().items()
    moments = net.optimizer_.state_dict()["state"].values()
    return [(name, str(value.dtype), value.numpy().tobytes()) for name, value in state], [
        (name, str(value.dtype), value.numpy().tobytes())
        for entry in moments
        for name, value in sorted(entry.items())
    ]


def losses(net):
    return [row["train_loss"] for row in net.history]


@everywhere
@pytest.mark.parametrize("kind", NETS)
def test_a_net_is_the_same_and_can_be_trained_further(kind, ambient, moons):
    X, y = moons
    plain = small(kind).fit(X, y)
    with ambient():
        net = small(kind).fit(X, y)
        predictions, score = net.predict(X), net.score(X, y)
        packed = pickle.dumps(net)
        unpacked = pickle.loads(packed)
    assert bits(net) == bits(plain)
    assert losses(net) == losses(plain)
    assert predictions.tobytes() == plain.predict(X).tobytes()
    assert score == plain.score(X, y)
    further = plain.partial_fit(X, y)
    for one in (net, unpacked):
        assert bits(one.partial_fit(X, y)) == bits(further)


@everywhere
def test_tensors_made_in_forward_follow_the_net(ambient, moons):
    X, y = moons
    for dtype in ("float32", "float64"):
        settings = {"module": FirstState, "max_epochs": 1, "random_state": 0, "dtype": dtype}
        plain = NetClassifier(**settings).fit(X, y)
        with ambient():
            net = NetClassifier(**settings).fit(X, y)
            seen = view(net, caller="test")
            outputs = predict_outputs(seen, seen.to_input(X))
            probabilities = net.predict_proba(X)
        assert bits(net) == bits(plain)
        assert outputs.dtype == getattr(torch, dtype)
        assert probabilities.tobytes() == plain.predict_proba(X).tobytes()


@everywhere
def test_a_dataset_trains_and_predicts_the_same(ambient, moons):
    X, y = (torch.tensor(part) for part in moons)
    data = torch.utils.data.TensorDataset(X.float(), y)
    plain = small().fit(data)
    with ambient():
        net = small().fit(data)
        probabilities = net.predict_proba(data)
    assert bits(net) == bits(plain)
    assert probabilities.tobytes() == plain.predict_proba(data).tobytes()


@everywhere
@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("kind", NETS)
def test_members_are_the_same(kind, vectorize, ambient, moons):
    X, y = moons
    options = {"n_estimators": 2, "vectorize": vectorize, "random_state": 0}
    plain = DeepEnsemble(small(kind), **options).fit(X, y)
    with ambient():
        ensemble = DeepEnsemble(small(kind), **options).fit(X, y)
        predictions = ensemble.predict(X)
    assert [bits(net) for net in ensemble.estimators_] == [bits(net) for net in plain.estimators_]
    assert predictions.tobytes() == plain.predict(X).tobytes()


@everywhere
@pytest.mark.parametrize("vectorize", [True, False])
def test_grids_are_the_same_stored_and_restored(vectorize, ambient, moons, tmp_path):
    X, y = moons

    def train(folder):
        grid = ModelGrid(
            NetClassifier(max_epochs=2), {"module__width": [2, 3]}, n_estimators=2,
            vectorize=vectorize, cache_dir=folder, random_state=0,
        )  # fmt: skip
        return grid.fit(X, y)

    plain = train(None)
    with ambient():
        grids = [train(tmp_path), train(tmp_path)]
        summaries = [grid.summary(X, y) for grid in grids]
    for grid, summary in zip(grids, summaries):
        assert summary.equals(plain.summary(X, y))
        for one, other in zip(grid, plain):
            assert [bits(net) for net in one.estimators] == [bits(net) for net in other.estimators]
    restored = grids[1].cells_[0].estimators[0].partial_fit(X, y)
    assert bits(restored) == bits(plain.cells_[0].estimators[0].partial_fit(X, y))


@everywhere
def test_averages_can_be_trained_further(ambient, moons):
    X, y = moons
    nets = [NetRegressor(max_epochs=1, random_state=seed).fit(X, y) for seed in (0, 1)]
    plain = average_models(nets)
    with ambient():
        mean = average_models(nets)
    assert bits(mean) == bits(plain)
    assert bits(mean.partial_fit(X, y)) == bits(plain.partial_fit(X, y))
