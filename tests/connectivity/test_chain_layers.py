"""Which layers the chain's evaluator runs: a plain chain from the first weight layer on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sklmc.connectivity._chain_evaluator import chain_layers
from sklmc.models import view


def layers_of(net, x, first):
    look = view(net, caller="test")
    return chain_layers(look, look.state, (x,), first)


def test_chain_begins_at_the_first_weight_layer():
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    assert layers_of(net, torch.randn(5, 2, 3), "1") == ["1", "2", "3"]
    assert layers_of(nn.Sequential(*net[1:]), torch.randn(5, 6), "0") == ["0", "1", "2"]


@pytest.mark.parametrize(
    "net, x, first",
    [
        (nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(5, 6), "other"),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(5, 2, 3), "0"),
        (nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 2)), torch.randn(5, 6), "0"),
        (nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2)).eval(), torch.randn(5, 6), "1"),
        (nn.Sequential(nn.Linear(6, 4), nn.Softmax(1), nn.Linear(4, 2)), torch.randn(5, 6), "0"),
        (nn.Sequential(nn.Linear(6, 4), nn.RMSNorm(4), nn.Linear(4, 2)), torch.randn(5, 6), "0"),
        (
            nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False)),
            torch.randn(5, 6),
            "0",
        ),
    ],
    ids=[
        *("no such layer", "positions", "begins with a norm", "weights before it"),
        *("units read each other", "another norm", "statistics of each batch"),
    ],
)
def test_what_is_no_such_chain_is_left_to_others(net, x, first):
    assert layers_of(net, x, first) is None
