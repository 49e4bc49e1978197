"""Normalisations with their scales, shifts and running statistics."""

from __future__ import annotations

from collections.abc import Sequence

from sklmc.symmetry._algebra._leaves import axis_size, segment_size
from sklmc.symmetry._rules._registry import Labelled, Operation, pair, register_aten

_VECTORS = ("weight", "bias", "running_mean", "running_var")


def _scaled(op: Operation, x: Labelled, dims: Sequence[int]) -> Labelled:
    """Return the label of x with scales, shifts and statistics, where there are any, along dims."""
    vectors = [op[name].roles(dims) for name in _VECTORS if op.get(name) is not None]
    names = range(x.ndim)
    return op.result(names, op.join(x.roles(names), *vectors))


@register_aten("batch_norm instance_norm")
def batch_norm(op: Operation):
    """Channels with scale, shift and running statistics; sums over all the rest.

    An instance norm sums over positions only.
    """
    x = op["input"]
    op.mix(x, set(range(x.ndim)) - ({1} if op.name == "aten::batch_norm" else {0, 1}))
    return _scaled(op, x, [1])


@register_aten("layer_norm rms_norm")
def layer_norm(op: Operation):
    """The last dimensions with their scale and shift."""
    x = op["input"]
    last = range(x.ndim - len(op["normalized_shape"]), x.ndim)
    op.mix(x, last)
    return _scaled(op, x, last)


@register_aten("group_norm")
def group_norm(op: Operation):
    """Channels split into (group, within), each segment of a concatenation on its own."""
    x, channels = op["input"], op["input"].axes[1]
    within = x.shape[1] // op["num_groups"]
    rest = {d: axis for d, axis in x.roles(range(x.ndim)).items() if d != 1}
    kept = {d: axis for d, axis in rest.items() if d == 0}
    op.join(rest, kept)
    if channels is not None:
        segments = op.labels.resolve(channels)
        alone = all(segment_size(segment) % within == 0 for segment in segments)
        for axis in [(segment,) for segment in segments] if alone else [channels]:
            split = pair(op.labels, axis, axis_size(axis) // within, within, "group", "within")
            own = {role: part for role, part in split.items() if role == "group"}
            op.join({**rest, **split}, {**kept, **own})
    return _scaled(op, x, [1])


@register_aten("softmax log_softmax _softmax _log_softmax special_softmax special_log_softmax")
def softmax(op: Operation):
    """Equivariant in the dimension that it sums over."""
    x = op.tensors[0]
    op.mix(x, [op.dim("dim", x.ndim)])
    return op.like(x)


@register_aten("renorm")
def renorm(op: Operation):
    """Each slice along one dimension is scaled by its norm over all the others."""
    x = op["self"]
    op.mix(x, set(range(x.ndim)) - {op.dim("dim", x.ndim)})
    return op.like(x)
