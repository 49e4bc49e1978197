"""The dialect of axes_to_perm: what it can say is said, what it cannot is refused or left out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklmc.exceptions import SymmetryError
from sklmc.symmetry import PermutationSymmetry, discover_symmetry
from tests.symmetry.zoo import Net


def chain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


SPEC = {
    "0.weight": ("a", None),
    "0.bias": ("a",),
    "2.weight": ("b", "a"),
    "2.bias": ("b",),
    "4.weight": (None, "b"),
}


def test_a_spec_comes_back_with_none_for_what_it_left_out():
    symmetry = PermutationSymmetry.from_axes_to_perm(SPEC, chain())
    assert symmetry.to_axes_to_perm() == {**SPEC, "4.bias": (None,)}
    assert [(group.name, group.size) for group in symmetry.groups] == [("a", 4), ("b", 5)]
    assert symmetry.group("a").places == (("0.weight", 0), ("0.bias", 0), ("2.weight", 1))
    frozen = [(entry.tensor, entry.axis, entry.size) for entry in symmetry.frozen]
    assert frozen == [("0.weight", 1, 3), ("4.weight", 0, 2), ("4.bias", 0, 2)]
    assert {(entry.reason, entry.kind) for entry in symmetry.frozen} == {("not in the spec",) * 2}


@pytest.mark.parametrize(
    "change, told",
    [
        ({"nowhere": ("a",)}, "the model has no tensor 'nowhere'"),
        ({"2.bias": ("b", None)}, r"'2.bias' has 1 axes \(shape \(5,\)\), the spec gives it 2"),
        ({"2.bias": ("a",)}, r"group 'a' has size 4 at 0.weight\[0\] but 5 at 2.bias\[0\]"),
        ({"2.bias": (None,)}, "moving the units of group 'b' changes .* that fail: 'b'"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused_by_name(change, told):
    with pytest.raises(SymmetryError, match=told):
        PermutationSymmetry.from_axes_to_perm({**SPEC, **change}, chain())


def test_of_several_wrong_groups_the_worst_is_named_first():
    net = chain()
    with torch.no_grad():
        net[0].bias.mul_(100)
    wrong = {**SPEC, "0.bias": (None,), "2.bias": (None,)}
    with pytest.raises(SymmetryError, match=r"all groups that fail: 'a', 'b'\.") as told:
        PermutationSymmetry.from_axes_to_perm(wrong, net)
    symmetry = PermutationSymmetry.from_axes_to_perm(wrong, net, verify=False)
    assert symmetry.evidence is None
    assert "group 'a'" in str(told.value) or "group 'b'" in str(told.value)


def test_a_tied_tensor_has_the_axes_of_its_other_name():
    def forward(net, x):
        return net.b(net.c(net.a(x)).tanh())

    net = Net(forward, a=nn.Linear(3, 4), c=nn.Linear(4, 4), b=nn.Linear(4, 2))
    net.d = nn.Linear(4, 4)
    net.d.weight = net.c.weight
    spec = {"c.weight": ("h", None), "c.bias": ("h",), "b.weight": (None, "h")}
    symmetry = PermutationSymmetry.from_axes_to_perm(spec, net, torch.randn(8, 3))
    assert symmetry.to_axes_to_perm()["d.weight"] == ("h", None)


def in_heads(x):
    return x.view(len(x), 3, 2).softmax(2).flatten(1)


def test_what_moves_within_heads_cannot_be_said():
    def forward(net, x):
        return net.c(net.b(in_heads(net.a(x))).tanh())

    parts = {"a": nn.Linear(3, 6), "b": nn.Linear(6, 5), "c": nn.Linear(5, 2)}
    symmetry = discover_symmetry(Net(forward, **parts), torch.randn(8, 3))
    assert [group.size for group in symmetry.groups] == [3, 2, 5]
    with pytest.raises(SymmetryError, match=r"along a\.weight\[0\], a\.bias\[0\], b\.weight\[1\]"):
        symmetry.to_axes_to_perm()
    said = symmetry.to_axes_to_perm(lossy=True)
    assert said["b.weight"] == ("b", None)
    assert said["a.weight"] == said["c.bias"] * 2 == (None, None)


def test_a_group_that_is_only_part_of_an_axis_elsewhere_is_lost_everywhere():
    def forward(net, x):
        h = net.a(x).tanh()
        return net.b(torch.cat([h, F.relu(net.c(h))], 1))

    parts = {"a": nn.Linear(3, 4), "c": nn.Linear(4, 5), "b": nn.Linear(9, 2)}
    symmetry = discover_symmetry(Net(forward, **parts), torch.randn(8, 3))
    said = symmetry.to_axes_to_perm(lossy=True)
    assert set(said) == set(symmetry.shapes)
    assert all(name is None for names in said.values() for name in names)
