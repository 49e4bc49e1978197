"""Which modules are chains, whose training is vectorized by hand; all others must be refused."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sklmc import DeepEnsemble, NetClassifier
from sklmc.estimators._vectorized import plan_training
from sklmc.estimators._vectorized._detection import chain_layers
from sklmc.estimators._vectorized._modules import VectorizedChain
from sklmc.nets import MLP
from tests.estimators.vectorized.same import assert_same_histories, assert_same_nets, both

X = np.random.default_rng(0).normal(size=(6, 2)).astype("float32")
IMAGES = np.random.default_rng(0).normal(size=(6, 2, 3, 3)).astype("float32")


class Own(nn.Module):
    """What a user writes: two Linear modules with a ReLU module between."""

    def __init__(self, n_features=2, n_outputs=2):
        super().__init__()
        self.last = nn.Linear(5, n_outputs)  # not in the order of their calls
        self.relu = nn.ReLU()
        self.first = nn.Linear(n_features, 5)

    def forward(self, x):
        return self.last(self.between(self.relu(self.first(x))))

    def between(self, h):
        return h


class OfImages(Own):
    def __init__(self):
        super().__init__(18)

    def forward(self, x):
        return super().forward(torch.flatten(x, 1))


def paths(module, X=X):
    layers = chain_layers(module, X)
    return None if layers is None else [prefix for prefix, _ in layers]


@pytest.mark.parametrize(
    "module, X, expected",
    [
        (Own(), X, ["first.", "relu.", "last."]),
        (Own(), X[:1], ["first.", "relu.", "last."]),
        (OfImages(), IMAGES, ["first.", "relu.", "last."]),
        (nn.Linear(2, 3), X, [""]),
        (MLP(2, 3, depth=0), X, ["layers.0."]),
        (MLP(18, 3, norm="batch"), IMAGES, [f"layers.{i}." for i in range(4)]),
        (nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(18, 2)), IMAGES, ["2."]),
        (nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.ReLU(True), Own()), X, None),
    ],
)
def test_layers_of_a_chain_stand_in_the_order_of_their_calls(module, X, expected):
    if expected is None:
        expected = ["0.0.", "1.", "2.first.", "2.relu.", "2.last."]
    assert paths(module, X) == expected


def test_module_of_ones_own_is_vectorized_by_hand(moons, monkeypatch):
    """The same nets as one by one, and no autograd."""
    steps = []
    original = VectorizedChain.step
    monkeypatch.setattr(
        VectorizedChain, "step", lambda self, *args: steps.append(1) or original(self, *args)
    )
    net = NetClassifier(Own, batch_size=32, max_epochs=5)
    alone, vectorized = both(net, *moons)
    assert len(steps) == 15
    assert_same_nets(alone, vectorized)
    assert_same_histories(alone, vectorized)
    assert DeepEnsemble(net, 2, random_state=0).fit(*moons).vectorized_


# What a module may do beside its layers


class Doubled(Own):
    def between(self, h):
        return 2 * h


class Shifted(Own):
    def between(self, h):
        h += 1.0
        return h


class ShiftedUnseen(Own):
    def between(self, h):
        h.data += 1.0
        return h


class ShiftedAtTheEnd(Own):
    def forward(self, x):
        return super().forward(x).add_(1.0)


class InputShifted(Own):
    def forward(self, x):
        return super().forward(x.add_(1.0))


class TrainedOnNoise(Own):
    def between(self, h):
        return h + torch.randn_like(h) if self.training else h


class Scores(Own):
    """Does more in evaluation than in training."""

    def forward(self, x):
        outputs = super().forward(x)
        return outputs if self.training else outputs.softmax(1)


class Decides(Own):
    def between(self, h):
        return 2 * h if h.sum() < 0 else h  # h is never negative


class DecidesFirst(Own):
    def forward(self, x):
        return self.last(self.first(x)) if x.max() > 100 else super().forward(x)


class DecidesOnSize(Own):
    def between(self, h):
        return h if len(h) < 30 else 2 * h


class Bounded(Own):
    """Changes its weights in every pass."""

    def forward(self, x):
        self.first.weight.data.clamp_(-1e3, 1e3)
        return super().forward(x)


class Counts(Own):
    """Does something else after a hundred passes."""

    n_passes = 0

    def between(self, h):
        self.n_passes += 1
        return h if self.n_passes < 100 else 2 * h


class SkipsAtRandom(Own):
    def between(self, h):
        return 2 * h if self.training and random.random() < 1e-9 else h


class SkipsAtRandomByNumpy(Own):
    def between(self, h):
        return 2 * h if np.random.random() < 1e-9 else h  # noqa: NPY002


class Functional(Own):
    def forward(self, x):
        return self.last(functional.relu(self.first(x)))


class Remembers(Own):
    """Hands the output of a layer to two."""

    def __init__(self):
        super().__init__(2, 5)

    def forward(self, x):
        h = self.relu(self.first(x))
        return h + self.last(h)


class CallsTwice(Own):
    def __init__(self):
        super().__init__(5, 5)

    def forward(self, x):
        return self.last(self.relu(self.first(self.relu(self.first(x)))))


class Wider(Own):
    """Has weights beside those of its layers."""

    def __init__(self, kind):
        super().__init__()
        if kind == "layer":
            self.unused = nn.Linear(2, 2)
        elif kind == "parameter":
            self.unused = nn.Parameter(torch.zeros(2))
        else:
            self.register_buffer("unused", torch.zeros(2), persistent=False)


class Broken(Own):
    def between(self, h):
        raise KeyError("h")


def sequence(*between):
    return nn.Sequential(nn.Linear(2, 4), *between, nn.Linear(4, 2))


def hooked():
    module = Own()
    module.relu.register_forward_hook(lambda layer, args, output: 2 * output)
    return module


def replaced():
    module = Own()
    module.relu.forward = torch.tanh
    return module


def frozen():
    module = Own()
    module.first.bias.requires_grad_(False)
    return module


def tied():
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    module[2].weight = module[0].weight
    return module


class Subclass(nn.Linear):
    def forward(self, x):
        return super().forward(x)


REFUSED = {
    kind.__name__: kind
    for kind in (
        *(Doubled, Shifted, ShiftedUnseen, ShiftedAtTheEnd, InputShifted, TrainedOnNoise, Scores),
        *(Decides, DecidesFirst, DecidesOnSize, Bounded, Counts, SkipsAtRandom),
        *(SkipsAtRandomByNumpy, Functional, Remembers, Broken),
        *(hooked, replaced, frozen, tied),
    )
} | {
    "layer without a call": lambda: Wider("layer"),
    "parameter of its own": lambda: Wider("parameter"),
    "buffer of its own": lambda: Wider("buffer"),
    "tanh": lambda: sequence(nn.Tanh()),
    "dropout": lambda: sequence(nn.Dropout(0.5)),
    "subclass": lambda: sequence(Subclass(4, 4)),
    "norm without weights": lambda: sequence(nn.LayerNorm(4, elementwise_affine=False)),
    "norm without statistics": lambda: sequence(nn.BatchNorm1d(4, track_running_stats=False)),
    "flattened later": lambda: sequence(nn.Flatten()),
    "parametrized": lambda: sequence(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))),
    "two dtypes": lambda: sequence(nn.LayerNorm(4, dtype=torch.float64)),
    "ends in ReLU": lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
    "begins with ReLU": lambda: nn.Sequential(nn.ReLU(), nn.Linear(2, 2)),
    "no weights": nn.ReLU,
    "wrong width": lambda: nn.Linear(3, 2),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_module_that_does_anything_else_is_no_chain(make):
    assert chain_layers(make(), X) is None


def test_layers_over_more_axes_than_two_are_no_chain():
    assert chain_layers(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), IMAGES) is None
    assert chain_layers(nn.Sequential(nn.Flatten(2), nn.Linear(9, 2)), IMAGES) is None
    assert chain_layers(CallsTwice(), np.ones((4, 5), dtype="float32")) is None


def test_looking_for_a_chain_changes_nothing():
    module = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), Bounded(4))
    noisy = TrainedOnNoise()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    states = torch.get_rng_state(), random.getstate()
    data = X.copy()
    assert chain_layers(module, data) is None
    chain_layers(noisy, data)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(data, X)


@pytest.mark.parametrize("module", [SkipsAtRandom, SkipsAtRandomByNumpy])
def test_random_numbers_that_torch_does_not_see_are_trained_one_by_one(module, moons):
    """One draw would stand for all members."""
    net = NetClassifier(module, max_epochs=1)
    assert plan_training(net, *moons, 6, "auto", "DeepEnsemble").chunk is None
    with pytest.raises(ValueError, match=f"'module' {module.__name__} draws random numbers"):
        DeepEnsemble(net, 2, vectorize=True).fit(*moons)


def test_members_whose_layers_differ_are_trained_one_by_one(moons):
    """Each is a chain, but not the same."""

    def factory(n_features, n_outputs):
        middle = nn.LayerNorm(n_features) if torch.rand(()) < 0.5 else nn.ReLU()
        return nn.Sequential(nn.Linear(n_features, 2), middle, nn.Linear(2, n_outputs))

    ensemble = DeepEnsemble(NetClassifier(factory, max_epochs=1), 8, random_state=0).fit(*moons)
    kinds = {type(member.module_[1]) for member in ensemble.estimators_}
    assert kinds == {nn.LayerNorm, nn.ReLU}
