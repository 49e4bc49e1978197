"""Layers found in a forward pass."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._layer import Norm, WeightLayer
from sklmc.merging._repairs._layers import find_layers
from sklmc.merging._repairs._refit import refit_state
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.models import Arrays, view
from tests.merging.conftest import Residual, dense


class Block(nn.Module):
    """A residual block with a projection, in place wherever torch allows it."""

    def __init__(self, project=True):
        super().__init__()
        self.first = nn.Conv2d(2, 4 if project else 2, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4 if project else 2)
        self.second = nn.Conv2d(4 if project else 2, 4 if project else 2, 3, padding=1)
        self.drop = nn.Dropout2d(0.5)
        self.project = nn.Conv2d(2, 4, 1) if project else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.drop(self.second(self.relu(self.norm(self.first(x)))))
        y += self.project(x)
        return self.relu(y)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2)
        self.head.bias = self.linear.bias = nn.Parameter(torch.zeros(3))
        self.head.bias = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return self.head(self.linear(self.linear(x)))


class Tied(nn.Module):
    """Scores tokens by the embedding that it looked them up in, under a name of its own or not."""

    def __init__(self, named):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(5, 3), nn.Linear(3, 3)
        if named:
            self.head = nn.Linear(3, 5, bias=False)
            self.head.weight = self.embedding.weight

    def forward(self, x):
        weight = self.head.weight if hasattr(self, "head") else self.embedding.weight
        return nn.functional.linear(self.linear(self.embedding(x)), weight)


class Listed(nn.Module):
    """A convolution whose options are lists."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 2, 3))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = nn.functional.conv1d(x, self.weight, stride=[2], padding=[1])
        return self.head(torch.relu(x).mean(dim=2))


def found(module, *args):
    look = view(module.eval(), caller="f")
    return find_layers(look, look.state, args)


def test_chain_with_batch_norm():
    layers, left = found(dense(0), torch.ones(2, 3))
    assert [layer.weight for layer in layers] == ["0.weight", "3.weight", "6.weight"]
    assert [layer.norm.mean if layer.norm else None for layer in layers] == [
        "1.running_mean",
        "4.running_mean",
        None,
    ]
    assert [layer.is_output for layer in layers] == [False, False, True]
    assert layers[0].bias == "0.bias"
    assert left == []


def test_layers_can_be_told_apart_whatever_their_options_are_written_as():
    layers, _ = found(Listed(), torch.ones(2, 2, 6))
    assert len({*layers}) == 2
    assert layers[0].options == ((2,), (1,), 1, 1, 0)


def test_norm_whose_input_others_read_stands_alone():
    layers, _ = found(Residual(), torch.ones(2, 1, 5, 5))
    assert [layer.weight for layer in layers if isinstance(layer, WeightLayer)] == [
        "stem.weight",
        "inner.weight",
        "head.weight",
    ]
    assert layers[0].norm is not None
    assert layers[1].norm is None  # the norm behind it is called twice
    alone = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    (norm, _), _ = found(alone, torch.ones(2, 3))
    assert isinstance(norm, Norm)
    assert (norm.mean, norm.scale) == ("0.running_mean", "0.weight")


@pytest.mark.parametrize("project", [True, False])
def test_ends_of_a_residual_branch_know_their_addition(project):
    layers, left = found(Block(project), torch.ones(2, 2, 4, 4))
    by_name = {layer.weight: layer for layer in layers}
    assert by_name["first.weight"].addition is None
    assert by_name["second.weight"].addition is not None
    assert by_name["second.weight"].operand == 0
    if project:
        partner = by_name["project.weight"]
        assert partner.addition == by_name["second.weight"].addition
        assert partner.operand == 1
    assert left == []


@pytest.mark.parametrize(
    "module, args, layers, left",
    [
        (Twice(), (torch.ones(2, 3),), ["head.weight"], ["linear.weight"]),
        (
            nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2)), nn.Linear(2, 2)),
            (torch.ones(2, 3),),
            ["1.weight"],
            ["0.parametrizations.weight.original0", "0.parametrizations.weight.original1"],
        ),
        (nn.LSTM(3, 2), (torch.ones(2, 4, 3),), [], ["weight_ih_l0", "weight_hh_l0"]),
        (
            nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2)),
            (torch.zeros(2, 4, dtype=torch.long),),
            ["1.weight"],
            [],
        ),
        *(
            (
                Tied(named),
                (torch.zeros(2, 4, dtype=torch.long),),
                ["linear.weight"],
                ["embedding.weight"],
            )
            for named in (False, True)
        ),
    ],
    ids=[
        *("twice", "weight norm", "lstm", "embedding", "tied", "tied by name"),
    ],
)
def test_what_is_no_layer_of_its_own_is_left(module, args, layers, left):
    seen, missing = found(module, *args)
    assert [layer.weight for layer in seen] == layers
    assert missing == left


def test_reparametrised_weight_with_a_bias_of_its_own_is_left():
    """The bias alone has a name: the layer is no layer that is called again."""
    torch.manual_seed(0)
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2))
    look = view(net.eval(), caller="f")
    x = torch.randn(40, 3)
    ends = EndPoints([look.state, look.state], np.array([0.5, 0.5]))
    state, left = refit_state(look, look.state, ends, SampleSet(Arrays(x)))
    assert left == [name for name in look.state if name.startswith("0.param")]
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
