"""What forward makes itself (states, masks, matrices) is as wide as the net, wherever it is run."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from sklmc import LMCScorer, PermutationAligner
from sklmc.merging import merge_models
from sklmc.symmetry import PermutationSymmetry, discover_symmetry
from sklmc.symmetry._proof._runners import ModuleRunner, Widening
from tests.symmetry.zoo import Net

EXACT = 1e-12  # rounding in float64


def gru_cell(net, x):
    h = torch.zeros(len(x), 5)
    for step in x.unbind(1):
        h = net.a(step, h)
    return net.b(h)


def lstm_cell(net, x):
    h = c = torch.zeros(len(x), 5)
    for step in x.unbind(1):
        h, c = net.a(step, (h, c))
    return net.b(h)


def stateless_cell(net, x):
    return net.b(net.a(x[:, 0]))


def causal_mask(net, x):
    n = x.shape[1]
    mask = torch.triu(torch.ones(n, n), diagonal=1) * -1e9
    h = net.a(x)
    scores = (h @ h.transpose(1, 2) + mask).softmax(-1)
    return net.b(scores @ h)


def masked_sum(net, x):
    n = x.shape[1]
    return net.b(torch.tril(torch.ones(n, n)) @ net.a(x).relu())


def identity_matrix(net, x):
    return net.b(torch.eye(x.shape[1]) @ net.a(x).relu())


def divided_integers(net, x):
    return net.b((torch.arange(x.shape[1]) / 4).unsqueeze(0) @ net.a(x).relu())


def narrowed(net, x):
    return net.b.weight.float() @ net.a(x).float().relu().transpose(1, 2)


FORWARDS = {
    gru_cell: nn.GRUCell,
    lstm_cell: nn.LSTMCell,
    stateless_cell: nn.GRUCell,
    causal_mask: nn.Linear,
    masked_sum: nn.Linear,
    identity_matrix: nn.Linear,
    divided_integers: nn.Linear,
    narrowed: nn.Linear,
}


def net_of(forward, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(forward, a=FORWARDS[forward](3, 5), b=nn.Linear(5, 2))


X = torch.randn(8, 4, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("forward", FORWARDS, ids=lambda forward: forward.__name__)
def test_discovery_finds_and_proves_the_hidden_units(forward):
    symmetry = discover_symmetry(net_of(forward), X)
    assert [group.size for group in symmetry.groups] == [5]
    assert symmetry.evidence["failed"] == {}
    assert symmetry.evidence["error"] < EXACT
    assert symmetry.verify(net_of(forward), X) < EXACT


@pytest.mark.parametrize("forward", [gru_cell, identity_matrix], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_nets_of_any_width_are_run_with_their_own(forward, dtype):
    symmetry = discover_symmetry(net_of(forward).to(dtype), X.to(dtype))
    assert [group.size for group in symmetry.groups] == [5]
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.parametrize("forward", [gru_cell, lstm_cell, causal_mask], ids=lambda f: f.__name__)
def test_aligning_merging_and_paths_run(forward):
    a, b, y = net_of(forward), net_of(forward, 1), torch.zeros(8, dtype=torch.int64)
    if forward is causal_mask:
        a, b = (Net(lambda net, x: causal_mask(net, x)[:, -1], a=n.a, b=n.b) for n in (a, b))
    for method in ("weight", "activation"):
        aligner = PermutationAligner(method=method, random_state=0).fit(a, b, X, y)
        moved = aligner.transform(b)
        with torch.no_grad():
            assert torch.allclose(moved(X), b(X), atol=1e-5)
    assert merge_models([a, moved], X)(X).shape == (8, 2)
    assert LMCScorer(n_alphas=3).path(a, moved, X, y).loss.shape == (3,)


def test_a_spec_is_proved_on_a_net_that_cannot_be_traced():
    def forward(net, x):
        h = net.a(x)
        if h.sum() > 1e9:
            h = h + 1
        return net.b(torch.eye(x.shape[1]) @ h.float())

    spec = {"a.weight": ("h", None), "a.bias": ("h",), "b.weight": (None, "h")}
    net = Net(forward, a=nn.Linear(3, 5), b=nn.Linear(5, 2))
    symmetry = PermutationSymmetry.from_axes_to_perm(spec, net, X)
    assert symmetry.evidence["modes"] == ["eval"]
    assert symmetry.evidence["error"] < EXACT


def test_widening_reaches_attributes_casts_and_writes_in_place():
    class Awkward(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.plain = torch.full((3, 3), 0.5)  # neither parameter nor buffer
            self.counts = torch.zeros(3)

        def forward(self, x):
            self.counts[0] = 7.0
            self.counts.add_(x.detach().sum(0))
            new = x.new_zeros(3, dtype=torch.float32)
            new += 1
            return self.a(x).half() @ self.plain + new, torch.ones(2, dtype=torch.int64) / 2

    runner = ModuleRunner(Awkward(), (torch.ones(4, 3, dtype=torch.float64),))
    state = {name: t.detach().double() for name, t in runner.module.state_dict().items()}
    outputs = runner(state)
    assert [output.dtype for output in outputs] == [torch.float64] * 2
    assert runner.module.counts.tolist() == [11.0, 4.0, 4.0]


def test_widening_is_seen_by_its_own_thread_only():
    made = []
    with Widening():
        thread = threading.Thread(target=lambda: made.append(torch.zeros(1)))
        thread.start()
        thread.join()
        made.append(torch.zeros(1))
    assert [tensor.dtype for tensor in made] == [torch.float32, torch.float64]
