"""The net halfway: its parameters, its loss, and its distance from the mean of both outputs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklmc.alignment._straight_through import Midpoint
from sklmc.models import Arrays, view


def net_of(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).eval()


@pytest.fixture
def ends():
    return net_of(0), net_of(1)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(50, 3, generator=generator), torch.arange(50) % 2


def midpoint_from(a):
    return Midpoint(SimpleNamespace(a=view(a, caller="test")))


def outputs_at(a, b, alpha, x):
    state = {n: torch.lerp(t, b.state_dict()[n], alpha) for n, t in a.state_dict().items()}
    with torch.no_grad():
        return torch.func.functional_call(a, state, (x,))


def test_loss_is_that_of_the_mean_of_the_weights(ends, data):
    a, b = ends
    x, y = data
    found = midpoint_from(a).loss(b.state_dict(), Arrays(x), y)
    assert found == pytest.approx(float(F.cross_entropy(outputs_at(a, b, 0.5, x), y)), rel=1e-5)


def test_distance_is_one_minus_the_correlation_with_the_mean_output(ends, data):
    a, b = ends
    x, _ = data
    midpoint = midpoint_from(a)
    wanted = (outputs_at(a, b, 0.0, x) + outputs_at(a, b, 1.0, x)).double() / 2
    middle = outputs_at(a, b, 0.5, x).double()
    wanted, middle = (t - t.mean(dim=0) for t in (wanted, middle))
    cosine = float(F.cosine_similarity(wanted.reshape(1, -1), middle.reshape(1, -1)))
    assert midpoint.distance(b.state_dict(), Arrays(x)) == pytest.approx(1 - cosine, rel=1e-4)
    assert midpoint.distance(a.state_dict(), Arrays(x)) == pytest.approx(0.0, abs=1e-6)


def test_outputs_that_do_not_vary_are_as_far_as_can_be(ends, data):
    a, _ = ends
    silent = {name: torch.zeros_like(tensor) for name, tensor in a.state_dict().items()}
    with torch.no_grad():
        a[2].weight.zero_()
    midpoint = midpoint_from(a)
    assert midpoint.distance(silent, Arrays(data[0])) == 1.0


def test_batch_norm_uses_each_batch_and_the_model_is_left_alone(data):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    net[1].running_mean += 7.0
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    x, y = data
    found = midpoint_from(net).loss(net.state_dict(), Arrays(x), y)
    with torch.no_grad():
        hidden = F.batch_norm(net[0](x), None, None, net[1].weight, net[1].bias, training=True)
        wanted = float(F.cross_entropy(net[2](hidden), y))
    assert found == pytest.approx(wanted, rel=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_tied_tensor_is_halfway_as_well(data):
    nets = []
    for seed in range(2):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
        net[2].weight = net[0].weight
        nets.append(net.eval())
    found = midpoint_from(nets[0])
    between = found.between(view(nets[1], caller="test").state)
    middle = (nets[0][0].weight + nets[1][0].weight).detach() / 2
    assert set(between) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    torch.testing.assert_close(between["2.weight"], middle)
    outputs = found.outputs(between, (data[0],)).detach()
    bias = [(nets[0][k].bias + nets[1][k].bias).detach() / 2 for k in (0, 2)]
    hidden = F.linear(data[0], middle, bias[0]).tanh()
    torch.testing.assert_close(outputs, F.linear(hidden, middle, bias[1]))
