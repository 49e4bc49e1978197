"""Nets of modules and losses of the user's own, on disk: never another one's."""

from __future__ import annotations

import threading
import warnings

import pytest
from torch import nn

from sklmc import ModelGrid, NetClassifier
from sklmc.exceptions import SklmcWarning
from tests.estimators.test_grid import bits


def net_with(dropout):
    class Net(nn.Module):
        def __init__(self, n_features, n_outputs):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(n_features, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, n_outputs)
            )

        def forward(self, x):
            return self.layers(x)

    return Net


def built_with(dropout):
    return lambda n_features, n_outputs: net_with(dropout)(n_features, n_outputs)


def derived_with(dropout):
    class Net(net_with(dropout)):
        pass

    return Net


def smoothing_with(rate):
    def loss():
        return nn.CrossEntropyLoss(label_smoothing=rate)

    return loss


def smoothing_class_with(rate):
    class Loss(nn.CrossEntropyLoss):
        def __init__(self):
            super().__init__(label_smoothing=rate)

    return Loss


class Criterion:
    def __init__(self, rate):
        self.rate = rate

    def __call__(self):
        return nn.CrossEntropyLoss(label_smoothing=self.rate)


RATE = 0.0


class NetOfGlobal(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.inner = net_with(RATE)(n_features, n_outputs)

    def forward(self, x):
        return self.inner(x)


def train(folder, moons, **settings):
    net = NetClassifier(max_epochs=2, **settings)
    grid = ModelGrid(net, {}, n_estimators=2, cache_dir=folder, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*also holds nets")
        return bits(grid.fit(*moons))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("module", net_with),
        ("module", built_with),
        ("module", derived_with),
        ("criterion", smoothing_with),
        ("criterion", smoothing_class_with),
        ("criterion", Criterion),
    ],
)
def test_what_a_factory_captured_tells_its_nets_apart(name, make, moons, tmp_path, monkeypatch):
    first = train(tmp_path, moons, **{name: make(0.0)})
    second = train(tmp_path, moons, **{name: make(0.9)})
    assert second == train(None, moons, **{name: make(0.9)}) != first
    monkeypatch.setattr("sklmc.estimators._cell.fit_members", None)
    assert train(tmp_path, moons, **{name: make(0.0)}) == first
    assert train(tmp_path, moons, **{name: make(0.9)}) == second


def test_a_global_that_a_module_reads_tells_its_nets_apart(moons, tmp_path, monkeypatch):
    first = train(tmp_path, moons, module=NetOfGlobal)
    monkeypatch.setattr(f"{__name__}.RATE", 0.9)
    second = train(tmp_path, moons, module=NetOfGlobal)
    assert second == train(None, moons, module=NetOfGlobal) != first
    monkeypatch.setattr(f"{__name__}.RATE", 0.0)
    monkeypatch.setattr("sklmc.estimators._cell.fit_members", None)
    assert train(tmp_path, moons, module=NetOfGlobal) == first


def locked_loss():
    lock = threading.Lock()

    def loss():
        with lock:
            return nn.CrossEntropyLoss()

    return loss


def test_what_cannot_be_told_apart_is_not_stored_and_named(moons, tmp_path):
    grid = ModelGrid(
        NetClassifier(max_epochs=1),
        {"criterion": [locked_loss(), nn.CrossEntropyLoss, locked_loss()]},
        n_estimators=2,
        cache_dir=tmp_path,
        random_state=0,
    )
    match = "are not stored in 'cache_dir', since 'criterion' cannot be told .* lock cannot be read"
    with pytest.warns(SklmcWarning, match=match):
        grid.fit(*moons)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    assert len(grid.cells_) == 3
    same = grid.param_grid["criterion"][2]
    assert grid.cell(criterion=same) is grid.cells_[2]
