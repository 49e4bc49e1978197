"""Which layer's outputs are interpolated in place of its weights: the first, if it is linear."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sklmc.connectivity._path_evaluator import first_weight_layer, values_last
from sklmc.models import view


class Twice(nn.Module):
    """A layer that is called again after others."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.b(self.a(self.a(x)))


class Shared(nn.Module):
    """A weight that two layers hold."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x))


class Late(nn.Module):
    """A first layer that is defined last."""

    def __init__(self):
        super().__init__()
        self.second, self.first = nn.Linear(4, 2), nn.Linear(3, 4)

    def forward(self, x):
        return self.second(self.first(x).relu())


@pytest.mark.parametrize(
    "net, shape, name",
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), (5, 2, 3), "1"),
        (nn.Sequential(nn.Conv1d(2, 4, 1), nn.Flatten(), nn.Linear(12, 2)), (5, 2, 3), "0"),
        (Late(), (5, 3), "first"),
        (nn.Linear(3, 2), (5, 3), None),  # no layer of a net: the net itself
        (nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 2)), (5, 3), None),
        (nn.Sequential(nn.PReLU(), nn.Linear(3, 2)), (5, 3), None),
        (Twice(), (5, 3), None),
        (Shared(), (5, 3), None),
        (nn.Sequential(nn.Tanh()), (5, 3), None),
    ],
    ids=[
        *("linear", "convolution", "late", "net", "norm", "slopes", "twice", "shared"),
        "no weights",
    ],
)
def test_first_weight_layer_is_linear_called_once_and_its_own(net, shape, name):
    look = view(net, caller="test")
    assert first_weight_layer(look, look.state, (torch.randn(shape),)) == name


@pytest.mark.parametrize("classify", [False, True])
def test_outputs_come_with_samples_and_tokens_last(classify):
    outputs = torch.arange(30.0).view(5, 3, 2)  # three tokens, two classes
    found = values_last(outputs, classify)
    if classify:
        assert found.shape == (2, 15)
        assert found[1].tolist() == outputs[..., 1].flatten().tolist()
    else:
        assert found.shape == (6, 5)
        assert found[:, 2].tolist() == outputs[2].flatten().tolist()
