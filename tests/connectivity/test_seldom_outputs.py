"""Outputs in half precision, and controls of nets with running statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklmc.connectivity._controls import _random_step
from sklmc.connectivity._path_losses import block_sums
from sklmc.models import view


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(dtype):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(4, 300, generator=generator).to(dtype)
    target = torch.randint(4, (300,), generator=generator)
    loss, errors = block_sums(outputs, target, True)
    wanted = F.cross_entropy(outputs.float().T, target, reduction="sum")
    assert float(loss) == pytest.approx(float(wanted), rel=1e-5)
    assert int(errors) == int((outputs.float().argmax(dim=0) != target).sum())


def test_random_step_is_as_long_as_the_way_and_leaves_statistics():
    torch.manual_seed(0)
    a, b = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval() for _ in range(2))
    a[1].running_mean += 3.0
    looks = [view(net, caller="test") for net in (a, b)]
    moved = _random_step(*looks, seed=0).state_dict()
    for name in ("0.weight", "0.bias"):
        step = (moved[name] - a.state_dict()[name]).norm()
        torch.testing.assert_close(step, (b.state_dict()[name] - a.state_dict()[name]).norm())
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(moved[name], a.state_dict()[name])
