"""A symmetry is refused by nets with its tensors and another forward pass, and by no others."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from sklmc.exceptions import ArchitectureMismatchError
from sklmc.symmetry import PermutationSymmetry, discover_symmetry
from sklmc.symmetry._proof._draws import N_DRAWS
from tests.symmetry.zoo import ZOO, Net


class Plain(nn.Module):
    def __init__(self, residual=False, p=0.0):
        super().__init__()
        self.a, self.b, self.drop = nn.Linear(4, 4), nn.Linear(4, 4), nn.Dropout(p)
        self.residual = residual

    def forward(self, x):
        h = self.drop(self.a(x).relu())
        return self.b(x + h if self.residual else h)


class Residual(Plain):
    def forward(self, x):
        return self.b(x + self.a(x).relu())


class Pair(Plain):
    def forward(self, x, scale):
        return self.b(self.a(x).relu() * scale)


def by_lambda(forward):
    return Net(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4))


@pytest.fixture(scope="module")
def found():
    return discover_symmetry(Plain(), torch.randn(8, 4))


@pytest.mark.parametrize("make", [Residual, lambda: Plain(residual=True)], ids=["class", "setting"])
def test_another_forward_pass_is_refused_with_the_group(make, found):
    net = make()
    for refuse in (
        lambda: found.check(net),
        lambda: found.apply(net, found.random_permutation(0)),
        lambda: pickle.loads(pickle.dumps(found)).check(net),
    ):
        with pytest.raises(
            ArchitectureMismatchError, match=r"another forward pass: .*group 'a' move"
        ):
            refuse()
    assert found.verify(net, torch.randn(8, 4)) > 1e-2
    assert found.verify(Plain(), torch.randn(8, 4)) < 1e-12


def test_a_function_that_is_handed_in_belongs_to_the_forward_pass():
    symmetry = discover_symmetry(
        by_lambda(lambda net, x: net.b(net.a(x).relu())), torch.randn(8, 4)
    )
    with pytest.raises(ArchitectureMismatchError, match="another forward pass"):
        symmetry.check(by_lambda(lambda net, x: net.b(x + net.a(x).relu())))
    assert pickle.loads(pickle.dumps(symmetry)).groups == symmetry.groups


def test_other_arguments_are_refused(found):
    with pytest.raises(ArchitectureMismatchError, match=r"does not take the samples .*'scale'"):
        found.check(Pair())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_harmless_differences_are_none(dtype, found):
    class Renamed(Plain):
        pass

    for net in (Plain(p=0.5).to(dtype), Renamed().to(dtype), Plain().to(dtype).train()):
        modes = [part.training for part in net.modules()]
        found.check(net)
        assert [part.training for part in net.modules()] == modes
        assert found.apply(net, found.random_permutation(0)).a.weight.dtype is dtype


def test_a_net_is_tried_once_only(found):
    calls = []

    class Counting(Plain):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    for _ in range(3):
        found.check(Counting())
    assert len(calls) == 2 + N_DRAWS  # the first pass shows what a net keeps between calls


def test_the_net_itself_is_not_run(monkeypatch):
    net, (X,) = ZOO["conv_batch_norm"].make()
    symmetry = discover_symmetry(net, X)
    monkeypatch.setattr(type(net), "__call__", lambda *_: pytest.fail("the net was run"))
    symmetry.check(copy.deepcopy(net).train())
    symmetry.check(copy.deepcopy(net).eval())


def test_without_a_proof_tensors_alone_decide():
    discover_symmetry(Plain(), torch.randn(8, 4), verify=False).check(Residual())


def test_symmetry_from_a_dict_knows_the_forward_pass_by_its_digest():
    spec = discover_symmetry(Plain(), torch.randn(8, 4)).to_dict()
    symmetry = PermutationSymmetry.from_dict(spec)
    symmetry.check(Plain(p=0.5))
    with pytest.raises(ArchitectureMismatchError, match=r"another forward pass: .*group 'a' move"):
        symmetry.check(Residual())
