"""The sums of one step of a refit: as moments, and as the tensors of a message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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


def unreached_tensors(steps: Sequence[Step]) -> set[str]:
    """Return the tensors that these steps solve for and the sums of the first do not depend on.

    What goes into a layer is read as its call begins; nothing that is first used there, or later,
    has a say in it.
    """
    end = max(_last_call(one) for one in steps[0].calls)
    first_use: dict[str | None, int] = {}
    for step in steps:
        for one in step.calls:
            for name, call in _uses(one):
                first_use[name] = min(call, first_use.get(name, call))
    return {name for name, call in first_use.items() if name is not None and call >= end}


def _last_call(step: Step) -> int:
    """Return the call at which all that goes into a step has been read."""
    if step.norm is not None or step.operand is not None:
        return step.read
    return max(layer.call for layer in step.layers)


def _uses(step: Step) -> Iterator[tuple[str | None, int]]:
    """Yield the tensors that a step solves for, each with the call that uses it."""
    for layer in step.layers:
        yield from ((name, layer.call) for name in (layer.weight, layer.bias))
    for norm in (step.norm, *(layer.norm for layer in step.layers)):
        if norm is not None:
            names = (norm.mean, norm.variance, norm.scale, norm.shift)
            yield from ((name, norm.call) for name in names)


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
