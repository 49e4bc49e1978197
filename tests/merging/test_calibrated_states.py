"""Which tensors a calibrated merge scales: those that the logits are proportional to."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sklmc.merging._averager import calibrate_state
from sklmc.models import Arrays, view

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def made(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), *layers).eval()


@pytest.mark.parametrize(
    "last, scaled",
    [
        ([nn.Linear(4, 2)], {"2.weight", "2.bias"}),
        ([nn.Linear(4, 2, bias=False)], {"2.weight"}),
        ([nn.Linear(4, 2), nn.BatchNorm1d(2)], {"3.weight", "3.bias"}),
    ],
)
def test_logits_grow_by_one_factor_and_nothing_else_changes(last, scaled):
    net = made(*last)
    nn.init.uniform_(list(net.parameters())[-1])  # a batch norm begins with a shift of zero
    state, beta = calibrate_state(view(net, caller="test"), Arrays(X), Y)
    before = net.state_dict()
    assert {name for name in before if not torch.equal(before[name], state[name])} == scaled
    logits = net(X)
    net.load_state_dict(state)
    torch.testing.assert_close(net(X), beta * logits)


@pytest.mark.parametrize(
    "last", [[nn.Linear(4, 2), nn.BatchNorm1d(2, affine=False)], [nn.Linear(4, 2), nn.Tanh()]]
)
def test_net_whose_logits_no_layer_scales_is_refused(last):
    with pytest.raises(ValueError, match="test: 'calibrate' scales the layer that gives"):
        calibrate_state(view(made(*last), caller="test"), Arrays(X), Y)
