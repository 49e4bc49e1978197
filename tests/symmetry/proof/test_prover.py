"""The instrument of the proof: lively weights of the usual size, and gradients where there are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sklmc.symmetry._proof._prover import Prover
from sklmc.symmetry._tracing._subject import Subject
from tests.symmetry.zoo import Net


def prover_of(forward, width):
    net = Net(forward, a=nn.Linear(3, width), b=nn.Linear(width, 2))
    subject = Subject(net, torch.randn(8, 3), "test")
    return Prover(subject, [subject.graph(False)])


def test_gradients_are_of_every_tensor_that_the_outputs_depend_on():
    prover = prover_of(lambda net, x: net.b(net.a(x).tanh()), 5)
    found = prover.gradients
    assert set(found) == set(prover.state)
    assert all(float(gradient.abs().max()) > 0 for gradient in found.values())


def test_where_nothing_has_a_derivative_there_are_no_gradients():
    assert prover_of(lambda net, x: net.b(net.a(x)).argmax(1), 5).gradients == {}


def test_drawn_weights_keep_the_size_of_what_they_are_applied_to():
    prover = prover_of(lambda net, x: net.b(net.a(x).tanh()), 4000)
    wide, narrow = prover.state["a.weight"].std(), prover.state["b.weight"].std()
    # variance 1.4 over the number of inputs; of 8000 values it is known to 1.6 percent
    assert float(wide) == pytest.approx((1.4 / 3) ** 0.5, rel=0.05)
    assert float(narrow) == pytest.approx((1.4 / 4000) ** 0.5, rel=0.05)


def test_where_drawn_weights_overflow_the_own_ones_are_taken_with_noise():
    """With weights of the usual size nothing finite comes out of the exponential."""
    net = Net(lambda net, x: net.b(net.a(x).mul(3000).exp()) * net.c, a=nn.Linear(3, 5))
    net.b, net.c = nn.Linear(5, 2), nn.Parameter(torch.tensor([7.0]))
    net.steps = nn.Parameter(torch.arange(5), requires_grad=False)
    with torch.no_grad():
        net.a.weight.mul_(0.01)
        net.a.bias.fill_(0.1)
    subject = Subject(net, torch.rand(8, 3), "test")
    prover = Prover(subject, [subject.graph(False), subject.graph(True)])
    assert all(torch.isfinite(v).all() for values in prover.reference.values() for v in values)
    assert set(prover.reference) == {"eval", "train"}
    own, found = net.state_dict(), prover.state
    spread = float(own["a.weight"].std())
    change = found["a.weight"] - own["a.weight"]
    assert spread / 100 < float(change.std()) < spread / 2
    assert not torch.equal(found["a.bias"], own["a.bias"].double())
    assert float(found["c"]) > 7.0  # of one number no spread is known: it is made larger
    assert torch.equal(found["steps"], own["steps"])
