"""Merging parallel units and dropping dead ones."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn

from sklmc import NetClassifier, average_models
from sklmc.exceptions import SklmcWarning
from sklmc.features import RedundancyReducer
from sklmc.features._redundancy._unit_merger import nearest_kept
from sklmc.nets import MLP
from tests.features.nets import linears, mlp, samples
from tests.models.conftest import snapshot

EXACT = 1e-10  # relative change of an output that float64 rounding may cause


def duplicated(seed=0, width=32, n_directions=5, depth=1, norm=None):
    """A float64 net whose hidden units repeat a few directions with random positive factors."""
    net = mlp(seed, width=width, depth=depth, norm=norm)
    generator = torch.Generator().manual_seed(seed)
    parts = list(net.layers)
    with torch.no_grad():
        for place, layer in enumerate(parts[:-1]):
            if not isinstance(layer, nn.Linear):
                continue
            which = torch.arange(width) % n_directions
            factor = torch.rand(width, generator=generator, dtype=torch.float64) + 0.5
            follower = parts[place + 1]
            if isinstance(follower, nn.BatchNorm1d):
                for tensor in (layer.weight, layer.bias, *follower.state_dict().values()):
                    if tensor.ndim:
                        tensor.copy_(tensor[which])
                follower.weight.mul_(factor)
                follower.bias.mul_(factor)
            else:
                layer.weight.copy_(layer.weight[which] * factor[:, None])
                layer.bias.copy_(layer.bias[which] * factor)
    return net


def change(a, b, x):
    before, after = a(x), b(x)
    return ((after - before).abs().max() / before.abs().max()).item()


def test_many_units_in_few_directions_reduce_exactly():
    net = mlp(0, d=8, width=512, depth=1, n_outputs=3)
    generator = torch.Generator().manual_seed(1)
    directions = torch.randn(20, 9, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        factor = torch.rand(512, 1, generator=generator, dtype=torch.float64) + 0.1
        rows = directions[torch.arange(512) % 20] * factor
        net.layers[0].weight.copy_(rows[:, :8])
        net.layers[0].bias.copy_(rows[:, 8])
    before = snapshot(net)
    reducer = RedundancyReducer()
    small = reducer.fit_transform(net)
    assert snapshot(net) == before
    assert reducer.n_units_ == {"layers.0": 20}
    assert small.layers[0].weight.shape == (20, 8)
    assert (small.layers[0].out_features, small.layers[2].in_features) == (20, 20)
    assert change(net, small, samples(50, 8)) < EXACT
    assert reducer.function_change_ < EXACT


@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("options", [{}, {"shrink": False}, {"balance": True}])
def test_duplicates_change_nothing(norm, options):
    net, x = duplicated(depth=2, norm=norm), samples()
    reducer = RedundancyReducer(**options)
    small = reducer.fit_transform(net)
    assert list(reducer.n_units_.values()) == [5, 5]
    assert change(net, small, x) < EXACT
    width = 32 if options.get("shrink") is False else 5
    assert [len(layer.weight) for layer in linears(small)[:-1]] == [width, width]
    fates = reducer.units_.fate.value_counts()
    assert fates.to_dict() == {"merged": 54, "kept": 10}


def test_units_that_shrink_away_come_last_with_zero_weights():
    net = duplicated()
    padded = RedundancyReducer(shrink=False).fit_transform(net)
    assert (linears(padded)[0].weight[5:] == 0).all()
    assert (linears(padded)[0].bias[5:] == 0).all()
    assert (linears(padded)[1].weight[:, 5:] == 0).all()
    assert (linears(padded)[0].weight[:5] != 0).any(dim=1).all()
    average_models([padded, RedundancyReducer(shrink=False).fit_transform(duplicated(1))])


def test_balanced_units_have_equal_norms():
    net = mlp(0, width=6, depth=2)
    balanced = RedundancyReducer(tol=0, balance=True).fit_transform(net)
    assert change(net, balanced, samples()) < EXACT
    first, second = balanced.layers[0], balanced.layers[2]
    incoming = torch.cat([first.weight, first.bias[:, None]], dim=1).norm(dim=1)
    # the second layer's own balance multiplies its rows afterwards, so compare that one
    last = balanced.layers[4]
    rows = torch.cat([second.weight, second.bias[:, None]], dim=1).norm(dim=1)
    torch.testing.assert_close(rows, last.weight.norm(dim=0))
    assert incoming.shape == (6,)


def test_ratio_is_that_of_incoming_norms():
    net = MLP(2, 1, width=2).double()
    with torch.no_grad():
        net.layers[0].weight.copy_(torch.tensor([[3.0, 4.0], [0.6, 0.8]]))
        net.layers[0].bias.copy_(torch.tensor([5.0, 1.0]))
        net.layers[2].weight.copy_(torch.tensor([[1.0, 1.0]]))
    reducer = RedundancyReducer()
    small = reducer.fit_transform(net)
    assert small.layers[2].weight.item() == pytest.approx(1.2)
    merged = reducer.units_.iloc[1]
    assert (merged.fate, merged["into"]) == ("merged", 0)
    assert merged.ratio == pytest.approx(0.2)


def test_only_provably_dead_units_are_dropped_without_data():
    net = mlp(0, width=6, depth=1)
    first, last = linears(net)
    with torch.no_grad():
        first.weight[0] = 0
        first.bias[0] = -1.0  # constant and off
        first.weight[1] = 0
        first.bias[1] = 2.0  # constant and on
        first.weight[2] = 0
        first.bias[2] = 0  # nothing enters
        last.weight[:, 3] = 0  # nothing leaves
        first.bias[4] = -1e3  # off on any sample of moderate size
    reducer = RedundancyReducer()
    x = samples(200)
    small = reducer.fit_transform(net)
    fates = reducer.units_.set_index("unit").fate
    assert fates.tolist() == ["dead", "kept", "dead", "dead", "kept", "kept"]
    assert change(net, small, 1e4 * x) < EXACT
    on_data = RedundancyReducer().fit(net, x)
    assert on_data.units_.fate.tolist() == ["dead", "kept", "dead", "dead", "dead on X", "kept"]
    assert on_data.function_change_ < EXACT


def test_a_layer_of_dead_units_keeps_one():
    net = mlp(0, width=4, depth=1)
    with torch.no_grad():
        linears(net)[0].weight.zero_()
        linears(net)[0].bias.zero_()
    reducer = RedundancyReducer()
    assert change(net, reducer.fit_transform(net), samples()) == 0
    assert reducer.n_units_ == {"layers.0": 1}


def test_convolutions_with_batch_norm_pooling_and_flatten():
    def block(n_in, n_out):
        return nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()

    net = nn.Sequential(
        *block(1, 8), nn.MaxPool2d(2), *block(8, 6), nn.Flatten(), nn.Linear(6 * 9, 2)
    ).double()
    with torch.no_grad():
        for place, width in ((0, 8), (4, 6)):
            which = torch.arange(width) % 3
            conv, norm = net[place], net[place + 1]
            norm.running_mean.copy_(torch.linspace(-0.1, 0.1, width))
            norm.bias.fill_(1.0)  # no unit is off on all of X
            for tensor in (conv.weight, conv.bias, norm.running_mean, norm.weight, norm.bias):
                tensor.copy_(tensor[which])
            norm.weight[-1] *= 2
            norm.bias[-1] *= 2
    net.eval()
    x = torch.randn(5, 1, 6, 6, dtype=torch.float64)
    reducer = RedundancyReducer(tol=1e-9)
    small = reducer.fit_transform(net, x)
    assert list(reducer.n_units_.values()) == [3, 3]
    assert small[8].weight.shape == (2, 27)
    assert change(net, small, x) < EXACT


class Residual(nn.Module):
    """A stream that several layers write to, with a plain layer inside each block."""

    def __init__(self, activation=nn.ReLU):
        super().__init__()
        self.stem, self.head = nn.Linear(3, 6), nn.Linear(6, 2)
        self.up, self.down, self.act = nn.Linear(6, 8), nn.Linear(8, 6), activation()

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.down(self.act(self.up(x))))


@pytest.mark.filterwarnings("ignore:.*comes back as it is")
def test_units_that_are_not_plain_are_skipped_with_the_reason():
    net = Residual().double()
    with torch.no_grad():
        net.up.weight[4:] = 2 * net.up.weight[:4]
        net.up.bias[4:] = 2 * net.up.bias[:4]
    reducer = RedundancyReducer()
    small = reducer.fit_transform(net)
    assert reducer.n_units_ == {"up": 4}
    assert "2 layers make its units" in reducer.skipped_["stem"]
    assert change(net, small, samples()) < EXACT
    for activation in (nn.GELU, nn.Tanh, nn.ReLU6):
        found = RedundancyReducer().fit(Residual(activation))
        assert "not positively homogeneous" in found.skipped_["up"]
        assert found.n_units_ == {}
        assert found.function_change_ == 0
    with_norm = RedundancyReducer().fit(mlp(0, norm="layer", depth=1))
    assert "not that of a plain layer" in with_norm.skipped_["layers.0"]


@pytest.mark.filterwarnings("ignore:.*comes back as it is")
def test_batch_norm_behind_the_activation_is_not_part_of_the_layer():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    assert "not positively homogeneous" in RedundancyReducer().fit(net).skipped_["0"]


def test_forward_with_the_width_written_into_it_asks_for_shrink_false():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(self.first(x).relu().reshape(-1, 4))

    net = Fixed()
    with torch.no_grad():
        net.first.weight[3] = net.first.weight[2]
        net.first.bias[3] = net.first.bias[2]
    with pytest.raises(ValueError, match="use shrink=False"):
        RedundancyReducer().fit(net)
    assert RedundancyReducer(shrink=False).fit(net).function_change_ < 1e-6


def test_fitted_classifiers_come_back_as_such():
    x = samples().numpy()
    y = np.where(x[:, 0] > 0, "yes", "no")
    net = NetClassifier(max_epochs=2, module__width=16, random_state=0).fit(x, y)
    reducer = RedundancyReducer(tol=0.5)
    small = reducer.fit_transform(net, x)
    assert set(small.predict(x)) <= {"yes", "no"}
    assert len(small.module_.layers[0].weight) == reducer.n_units_["layers.0"] < 16
    assert reducer.function_change_ > 0


def test_estimator_contract():
    reducer = RedundancyReducer(tol=0.2)
    assert clone(reducer).get_params() == {"tol": 0.2, "shrink": True, "balance": False}
    with pytest.raises(NotFittedError):
        reducer.transform(mlp(0))
    assert reducer.fit(mlp(0)) is reducer
    with pytest.raises(ValueError, match="not the net that was fitted"):
        reducer.transform(mlp(1))
    with pytest.raises(ValueError, match="'tol' parameter"):
        RedundancyReducer(tol=-1).fit(mlp(0))
    with pytest.raises(TypeError, match="'model' must be"):
        reducer.fit(samples())


def test_each_unit_joins_the_nearest_kept_one():
    angles = np.array([0.0, 0.12, 0.07, 2.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    tol = 1 - np.cos(0.1)
    assert nearest_kept(rows, [0, 1, 2, 3], tol) == {0: 0, 1: 1, 2: 1, 3: 3}
    assert nearest_kept(rows, [2, 0, 1, 3], tol) == {2: 2, 0: 2, 1: 2, 3: 3}
    assert nearest_kept(rows, [], tol) == {}


def test_a_net_that_comes_back_as_it_is_says_why():
    """Layer norm mixes all units: to leave one out changes the others."""
    net = MLP(3, 2, width=8, depth=2, norm="layer")
    with pytest.warns(SklmcWarning, match="layers.0: .*not that of a plain layer"):
        same = RedundancyReducer().fit_transform(net)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), same.parameters()))
