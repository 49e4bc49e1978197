"""The sums of one step of a refit: as moments, and as the tensors of a message."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._layer_moments import LayerMoments
from sklmc.merging._repairs._steps import Step, mean_weights
from sklmc.models import Moments

Tensors = Mapping[str, torch.Tensor]


def to_tensors(moments: LayerMoments | Moments) -> dict[str, torch.Tensor]:
    """Return what a fit needs of moments."""
    if isinstance(moments, LayerMoments):
        return moments.to_tensors()
    count = torch.tensor(float(moments.count), dtype=torch.float64)
    return {"count": count, "means": moments.mean.cpu(), "squares": moments.squares.cpu()}


def to_moments(tensors: Tensors) -> LayerMoments | Moments:
    """Return what `to_tensors` was given."""
    if "means" not in tensors:
        return LayerMoments.from_tensors(tensors)
    found = Moments()
    found.count = float(tensors["count"])
    found.mean, found.squares = tensors["means"], tensors["squares"]
    return found


def are_finite(tensors: Tensors) -> bool:
    """Say whether no value is NaN or infinite."""
    return all(bool(torch.isfinite(one).all()) for one in tensors.values())


def check_sums(tensors: Tensors, step: Step, ends: EndPoints, about: str) -> None:
    """Refuse what are not the sums of a step; `about` says whose they are."""
    wanted = _shapes(step, ends)
    seen = {name: tuple(one.shape) for name, one in tensors.items()}
    if seen != wanted:
        raise ValueError(
            f"{about} hold tensors of shapes {seen!r}, and the open round takes {wanted!r}; make "
            "them with site_moments."
        )
    in_doubles = {one.dtype for one in tensors.values()} == {torch.float64}
    if not in_doubles or not are_finite(tensors) or not tensors["count"] > 0:
        raise ValueError(
            f"{about} hold values that are no sums over rows (NaN, infinite, not float64, or a "
            "count of none); make them with site_moments, or leave that site out."
        )


def _shapes(step: Step, ends: EndPoints) -> dict[str, tuple]:
    """Return the shapes of the sums of a step."""
    if step.norm is not None:
        channels = tuple(ends.states[0][step.norm.mean].shape)
        return {"count": (), "means": channels, "squares": channels}
    start = torch.cat([mean_weights(layer, ends) for layer in step.layers], dim=2)
    n_groups, n_outputs, n_inputs = start.shape
    return {
        "count": (),
        "input_means": (n_groups, n_inputs),
        "output_means": (n_groups, n_outputs),
        "input_products": (n_groups, n_inputs * (n_inputs + 1) // 2),
        "output_products": (n_groups, n_outputs, n_inputs),
    }
