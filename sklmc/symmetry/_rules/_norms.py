"""Normalisations with their scales, shifts and running statistics."""

from __future__ import annotations

from collections.abc import Hashable

from sklmc.symmetry._algebra._leaves import Axis, axis_size, segment_size
from sklmc.symmetry._rules._registry import Labelled, Operation, pair, register_rule


def _vectors(op: Operation, names: tuple[str, ...], role) -> list[dict]:
    """Return the roles of those per-channel vectors that are there."""
    return [op[name].roles([role]) for name in names if op.get(name) is not None]


@register_rule("aten::batch_norm", "aten::instance_norm")
def batch_norm(op: Operation):
    """Channels with scale, shift and running statistics; sums over all the rest.

    An instance norm sums over positions only.
    """
    x = op["input"]
    names = list(range(x.ndim))
    kept = {1} if op.name == "aten::batch_norm" else {0, 1}
    op.mix(x, set(names) - kept)
    vectors = _vectors(op, ("weight", "bias", "running_mean", "running_var"), 1)
    return op.result(names, op.join(x.roles(names), *vectors))


@register_rule("aten::layer_norm", "aten::rms_norm")
def layer_norm(op: Operation):
    """The last dimensions with their scale and shift."""
    x = op["input"]
    names = list(range(x.ndim))
    last = names[x.ndim - len(op["normalized_shape"]) :]
    op.mix(x, last)
    vectors = [op[name].roles(last) for name in ("weight", "bias") if op.get(name) is not None]
    return op.result(names, op.join(x.roles(names), *vectors))


@register_rule("aten::group_norm")
def group_norm(op: Operation):
    """Channels split into (group, within), each segment of a concatenation on its own."""
    x, groups = op["input"], op["num_groups"]
    labels = op.labels
    channels = x.axes[1]
    within = x.shape[1] // groups
    names = list(range(x.ndim))
    rest: dict[Hashable, Axis | None] = x.roles(names)
    rest.pop(1, None)
    kept = {role: axis for role, axis in rest.items() if role == 0}
    op.join(rest, kept)
    if channels is not None:
        segments = labels.resolve(channels)
        alone = all(segment_size(segment) % within == 0 for segment in segments)
        for axis in [(segment,) for segment in segments] if alone else [channels]:
            split = pair(labels, axis, axis_size(axis) // within, within, "group", "within")
            own = {role: part for role, part in split.items() if role == "group"}
            op.join({**rest, **split}, {**kept, **own})
    axes = op.join(x.roles(names), *_vectors(op, ("weight", "bias"), 1))
    return op.result(names, axes)


@register_rule("aten::_weight_norm")
def weight_norm(op: Operation):
    """The direction v, scaled along one dimension by g."""
    v, g = op["v"], op["g"]
    names = list(range(v.ndim))
    return op.result(names, op.join(v.roles(names), g.roles(names[v.ndim - g.ndim :])))


@register_rule(
    "aten::softmax",
    "aten::log_softmax",
    "aten::_softmax",
    "aten::_log_softmax",
    "aten::special_softmax",
    "aten::special_log_softmax",
)
def softmax(op: Operation):
    """Equivariant in the dimension that it sums over."""
    x = op.tensors[0]
    op.mix(x, [op.dim("dim", x.ndim)])
    return Labelled(x.axes, op.shape())


@register_rule("aten::renorm")
def renorm(op: Operation):
    """Each slice along one dimension is scaled by its norm over all the others."""
    x = op["self"]
    op.mix(x, set(range(x.ndim)) - {op.dim("dim", x.ndim)})
    return Labelled(x.axes, op.shape())
