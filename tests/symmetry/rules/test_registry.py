"""How a rule is found, and what new axes of a result may depend on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sklmc.symmetry._rules._registry import RULES, find_rule
from tests.symmetry.rules.claimed import groups_around, true_groups
from tests.symmetry.zoo import Net

aten = torch.ops.aten


@pytest.mark.parametrize("name", ["cumsum", "relu", "squeeze", "index_put"])
def test_an_operation_in_place_has_the_rule_of_its_twin(name):
    twin, in_place = (find_rule(getattr(aten, name + end).default) for end in ("", "_"))
    assert in_place is twin is not None


def test_what_torch_calls_pointwise_has_that_rule_and_the_unknown_has_none():
    assert find_rule(aten.erfinv.default) is RULES["pointwise"]
    assert find_rule(aten.erfinv_.default) is RULES["pointwise"]
    assert find_rule(aten.linalg_eigh.default) is None
    assert find_rule(aten.random_.default) is not RULES["pointwise"]


@torch.library.custom_op("sklmc_test::double_", mutates_args={"x"})
def double_(x: torch.Tensor) -> None:
    x.mul_(2)


@torch.library.custom_op("sklmc_test::counted", mutates_args=())
def counted(x: torch.Tensor) -> tuple[torch.Tensor, int]:
    return x.sin(), len(x)


@counted.register_fake
def _(x):
    return torch.empty_like(x), len(x)


def test_an_operation_in_place_without_a_twin_is_unknown():
    assert find_rule(torch.ops.sklmc_test.double_.default) is None


def test_a_result_that_is_no_tensor_has_no_label():
    assert groups_around(lambda x: x + counted(x.detach())[0].sum(), (6,)) == []


def test_new_axes_of_one_operation_move_each_on_its_own():
    torch.manual_seed(0)
    layer = nn.RNN(3, 5, bidirectional=True)
    net = Net(lambda net, x: net.b(net.a(x)[0]), a=layer, b=nn.Linear(10, 2))
    assert true_groups(net, torch.randn(4, 2, 3)) == [(5, 1), (5, 1)]


def test_a_new_axis_moves_at_every_index_of_the_operands():
    """Every unit is written twice, and read twice: which comes first is free for each."""
    groups = groups_around(lambda x: x.repeat_interleave(2, 1), (6,))
    assert groups == [(2, 6), (6, 1)]
