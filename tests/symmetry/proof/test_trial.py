"""The net itself is run as well: what its trace does not show is refused."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torch import nn

from sklmc.exceptions import SymmetryError
from sklmc.symmetry import PermutationSymmetry, discover_symmetry
from sklmc.symmetry._groups._blocks import Block, BlockAxis
from sklmc.symmetry._groups._mover import Mover
from sklmc.symmetry._proof._trial import Trial
from tests.symmetry.zoo import ZOO, Net


def hurried(net, x):
    """A net that leaves out a step while it is compiled or exported."""
    h = net.a(x).relu()
    if not torch.compiler.is_compiling():
        h = h * torch.linspace(0.5, 1.5, h.shape[-1], dtype=h.dtype)
    return net.c(net.b(h).relu())


def forgetful(net, x):
    """A net that keeps its first weights, transposed, for later calls."""
    if not torch.compiler.is_compiling():
        net.kept = getattr(net, "kept", net.a.weight.detach().T.clone())
        h = x @ net.kept + net.a.bias
    else:
        h = net.a(x)
    return net.c(net.b(h.relu()).relu())


def three_layers(forward):
    return Net(forward, a=nn.Linear(3, 6), b=nn.Linear(6, 5), c=nn.Linear(5, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_another_path_while_traced_is_refused_with_the_group(dtype):
    net = three_layers(hurried).to(dtype)
    with pytest.raises(SymmetryError, match=r"units of group 'a' move .*another path"):
        discover_symmetry(net, torch.randn(8, 3))
    assert [g.size for g in discover_symmetry(net, torch.randn(8, 3), verify=False).groups] == [
        6,
        5,
    ]


def test_tensors_kept_from_an_earlier_call_are_made_anew_or_refused():
    net, X = three_layers(forgetful), torch.randn(8, 3)
    assert [group.size for group in discover_symmetry(net, X).groups] == [6, 5]
    net(X)
    with pytest.raises(SymmetryError, match=r"units of group 'a' move .*kept from an earlier call"):
        discover_symmetry(net, X)


def test_a_given_spec_is_tried_on_the_net_itself_too():
    spec = {"a.weight": ("h", None), "a.bias": ("h",), "b.weight": (None, "h")}
    with pytest.raises(SymmetryError, match=r"axes_to_perm: run as it is, .* group 'h' move"):
        PermutationSymmetry.from_axes_to_perm(spec, three_layers(hurried), torch.randn(8, 3))


@pytest.mark.parametrize("name", ["mlp_norms", "conv_batch_norm", "two_encoder_layers", "gpt"])
def test_own_weights_are_part_of_the_evidence(name):
    net, inputs = ZOO[name].make()
    symmetry = discover_symmetry(net.float(), inputs)
    assert 0 < symmetry.evidence["own_error"] < 1e-5
    assert symmetry.evidence["own_dtype"] == "float32"
    again = PermutationSymmetry.from_dict(symmetry.to_dict())
    assert again.evidence == symmetry.evidence
    assert f"{symmetry.evidence['own_error']:.1e} (float32)" in repr(symmetry)


def rounding_net():
    """Enough sums of enough terms that their order shows in float16 on any processor."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 512), nn.Tanh(), nn.Linear(512, 2000))
        return net.half(), torch.randn(8, 4)


def test_rounding_of_a_narrow_dtype_is_no_fault():
    net, X = rounding_net()
    symmetry = discover_symmetry(net, X)
    assert symmetry.evidence["own_dtype"] == "float64"
    assert symmetry.evidence["own_error"] < 1e-12


def test_casts_in_forward_are_widened_with_the_net():
    inner, X = rounding_net()
    net = Net(lambda net, x: net.inner(x.half() @ torch.eye(4).half()), inner=inner)
    evidence = discover_symmetry(net, X).evidence
    assert evidence["own_dtype"] == "float64"
    assert evidence["own_error"] < 1e-12


def test_a_net_that_cannot_be_widened_is_judged_by_its_own_rounding():
    def forward(net, x):
        if next(net.parameters()).dtype is not torch.float16:
            raise TypeError("half precision only")
        return net.inner(x.half())

    inner, X = rounding_net()
    evidence = discover_symmetry(Net(forward, inner=inner), X).evidence
    assert evidence["own_dtype"] == "float16"
    assert 1e-5 < evidence["own_error"] < 0.1


@pytest.mark.parametrize(
    "name, left",
    [
        ("lstm", "rnn.bias_ih_l0"),
        ("gru_two_layers", "weight_hh_l0"),
        ("two_encoder_layers", "1.linear2.weight"),
    ],
)
def test_a_tensor_left_behind_is_seen_whatever_runs_it(name, left):
    net, (X,) = ZOO[name].make()
    net.float().eval()
    symmetry = discover_symmetry(net, X.float())
    state = {key: tensor.detach() for key, tensor in net.state_dict().items()}
    (left,) = [key for key in state if key.endswith(left)][:1]
    shape = state[left].shape
    still = Block(left, tuple(BlockAxis(np.arange(size), (None,)) for size in shape))
    right, wrong = symmetry.blocks, {**symmetry.blocks, left: (still,)}
    trial = Trial(net, (X.float(),), state, {})
    moved = trial.moved(Mover(right, symmetry.groups), symmetry.groups)
    assert moved.error < 1e-5
    assert moved.worst is None
    moved = trial.moved(Mover(wrong, symmetry.groups), symmetry.groups)
    assert moved.error > 1e-3
    assert moved.worst in {group.name for group in symmetry.groups}


@pytest.mark.parametrize("noise, is_random", [(1e-3, True), (1e-8, False)])
def test_an_answer_that_changes_by_more_than_rounding_is_refused(noise, is_random):
    inner = nn.Linear(3, 2).double()
    net = Net(lambda net, x: net.inner(x) + noise * torch.randn(8, 2), inner=inner)
    trial = Trial(net, (torch.randn(8, 3).double(),), dict(net.state_dict()), {})
    with pytest.raises(SymmetryError, match="random") if is_random else contextlib.nullcontext():
        trial.check_deterministic("test")
