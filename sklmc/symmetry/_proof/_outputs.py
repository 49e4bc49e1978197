"""How much the outputs of a net changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

TOLERANCE = 1e-9  # largest relative change of an output that rounding may cause in float64
_TINY = 1e-4  # of the largest output: below, rounding may be most of an output


def output_change(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    """Return the largest change of an output relative to its largest value.

    An output that is tiny beside the net's other outputs is measured by those: it may be zero up
    to rounding.
    """
    worst = 0.0
    for a, b, scale in zip(before, after, scales(before), strict=True):
        if not (a.is_floating_point() or a.is_complex()):
            worst = max(worst, 0.0 if torch.equal(a, b) else float("inf"))
            continue
        finite = torch.isfinite(a)
        if not torch.equal(finite, torch.isfinite(b)):
            return float("inf")
        if finite.any():
            worst = max(worst, float((a[finite] - b[finite]).abs().max()) / scale)
    return worst


def scales(outputs: Sequence[torch.Tensor]) -> list[float]:
    """Return by what each output is measured: its largest finite value, none by far the least."""
    sizes = [_largest(value) for value in outputs]
    least = _TINY * max(sizes, default=0.0)
    return [max(size, least) or 1.0 for size in sizes]


def _largest(value: torch.Tensor) -> float:
    """Return the largest finite absolute value of a floating tensor; 0 where there is none."""
    if not (value.is_floating_point() or value.is_complex()):
        return 0.0
    finite = value.detach()[torch.isfinite(value)]
    return float(finite.abs().max()) if finite.numel() else 0.0
