"""What is summed over is gone; where a place or a rank is told, its dimension stays put."""

from __future__ import annotations

import pytest
import torch

from tests.symmetry.rules.claimed import groups_around


def spread(x, values):
    """Values of a sample, spread over its units."""
    return x * values.reshape(len(x), *(1,) * (x.ndim - 1))


@pytest.mark.parametrize(
    "op, shape, groups",
    [
        (lambda x: x.sum(1), (2, 3), [(2, 1), (3, 1)]),
        (lambda x: x.sum(2), (2, 3), [(2, 1), (3, 2)]),
        (lambda x: x - x.mean(2, keepdim=True), (2, 3), [(2, 1), (3, 2)]),
        (lambda x: spread(x, x.sum((1, 2))), (2, 3), [(2, 1), (3, 2)]),
        (lambda x: x * x.var(), (2, 3), [(2, 1), (3, 2)]),
        (lambda x: x * x.std(dim=(1, -1), keepdim=True), (2, 3), [(2, 1), (3, 2)]),
        (lambda x: torch.var_mean(x, 2)[0] + torch.var_mean(x, 2)[1], (2, 3), [(2, 1), (3, 2)]),
        (lambda x: x.amax(1), (2, 3), [(2, 1), (3, 1)]),
        (lambda x: x + x.argmax(1, keepdim=True), (2, 3), [(3, 1)]),
        (lambda x: x + x.argmin(-1, keepdim=True), (2, 3), [(2, 1)]),
        (lambda x: x + x.argmax(), (6,), []),
        (lambda x: x.sort(1).values, (6,), [(6, 1)]),
        (lambda x: x.sort(2).values, (2, 3), [(2, 1), (3, 2)]),
        (lambda x: x * x.sort(1).indices, (2, 3), [(3, 1)]),
        (lambda x: x.topk(2, 1).values, (6,), [(6, 1)]),
        (lambda x: x.topk(2, 1).indices.to(x) + x[:, :1], (6,), []),
        (lambda x: x * x.kthvalue(2, 1, keepdim=True).values, (6,), [(6, 1)]),
        (lambda x: x - x.kthvalue(2, 2).values[..., None], (2, 3), [(2, 1), (3, 2)]),
        (lambda x: torch.msort(x.t()).t(), (6,), [(6, 1)]),
        (lambda x: x - torch.quantile(x, 0.3, dim=2, keepdim=True), (2, 3), [(2, 1), (3, 2)]),
        (lambda x: x * torch.quantile(x, 0.3), (2, 3), [(2, 1), (3, 2)]),
        (lambda x: x * x.max(1, keepdim=True).values, (6,), [(6, 1)]),
        (lambda x: torch.maximum(x, x.flip(0)), (6,), [(6, 1)]),
        (lambda x: x * x.norm(dim=1, keepdim=True), (6,), [(6, 1)]),
        (lambda x: x.logsumexp(2), (2, 3), [(2, 1), (3, 2)]),
    ],
)
def test_dimensions_that_are_reduced_or_ranked(op, shape, groups):
    assert groups_around(op, shape) == groups
