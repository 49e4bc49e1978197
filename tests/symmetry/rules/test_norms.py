"""Norms by what they sum over: samples and places, places alone, groups of channels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.symmetry.rules.claimed import groups_around


def instances_of_units(x):
    """Every one of two units is an instance, with three channels, summed over the samples."""
    return F.instance_norm(x.permute(1, 2, 0)).permute(2, 0, 1)


def scaled_instances(x):
    scale = torch.arange(1.0, 4.0).to(x)
    return F.instance_norm(x.permute(1, 2, 0), weight=scale).permute(2, 0, 1)


def batch_of_units(x):
    """Three channels, summed over two units and the samples."""
    return F.batch_norm(x.permute(1, 2, 0), None, None, training=True).permute(2, 0, 1)


@pytest.mark.parametrize(
    "op, shape, groups",
    [
        (instances_of_units, (2, 3), [(2, 1), (3, 2)]),
        (scaled_instances, (2, 3), [(2, 1)]),
        (batch_of_units, (2, 3), [(2, 1), (3, 1)]),
        (lambda x: F.layer_norm(x, (3,)), (2, 3), [(2, 1), (3, 2)]),
        (lambda x: F.layer_norm(x, (2, 3)), (2, 3), [(2, 1), (3, 2)]),
        (lambda x: F.layer_norm(x, (3,), torch.arange(3.0).to(x)), (2, 3), [(2, 1)]),
        (lambda x: F.rms_norm(x, (3,)), (2, 3), [(2, 1), (3, 2)]),
        (lambda x: F.group_norm(x, 2), (6, 2), [(2, 1), (2, 1), (3, 2)]),
        (lambda x: F.group_norm(x, 2), (6,), [(2, 1), (3, 2)]),
        (lambda x: F.group_norm(torch.cat([x, x.sin()], 1), 4), (6,), [(2, 1), (3, 2)]),
        (lambda x: F.group_norm(torch.cat([x, x.sin()], 1), 3), (6,), 3 * [(2, 1)]),
        (lambda x: x.softmax(2), (2, 3), [(2, 1), (3, 2)]),
        (lambda x: x.log_softmax(1), (2, 3), [(2, 1), (3, 1)]),
        (lambda x: x.renorm(2, 1, 0.5), (2, 3), [(2, 1), (3, 2)]),
        (lambda x: x.renorm(2, 2, 0.5), (2, 3), [(2, 1), (3, 1)]),
    ],
)
def test_what_a_norm_sums_over_and_what_it_scales(op, shape, groups):
    assert groups_around(op, shape) == groups
