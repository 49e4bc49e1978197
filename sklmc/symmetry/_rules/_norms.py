"""Normalisations with their scales, shifts and running statistics."""

from __future__ import annotations

from sklmc.symmetry._labels import segment_size
from sklmc.symmetry._rules._registry import Labelled, Operation, register_rule


def _vectors(op: Operation, names: tuple[str, ...], role) -> list[dict]:
    """Return the roles of those per-channel vectors that are there."""
    return [op[name].roles([role]) for name in names if op.get(name) is not None]


@register_rule("aten::batch_norm", "aten::instance_norm")
def batch_norm(op: Operation):
    """Channels with scale, shift and running statistics; sums over all the rest."""
    x = op["input"]
    names = list(range(x.ndim))
    vectors = _vectors(op, ("weight", "bias", "running_mean", "running_var"), 1)
    return op.result(names, op.join(x.roles(names), *vectors))


@register_rule("aten::layer_norm", "aten::rms_norm")
def layer_norm(op: Operation):
    """The last dimensions with their scale and shift."""
    x = op["input"]
    names = list(range(x.ndim))
    last = names[x.ndim - len(op["normalized_shape"]) :]
    vectors = [op[name].roles(last) for name in ("weight", "bias") if op.get(name) is not None]
    return op.result(names, op.join(x.roles(names), *vectors))


@register_rule("aten::group_norm")
def group_norm(op: Operation):
    """Channels split into (group, within), each segment of a concatenation on its own."""
    x, groups = op["input"], op["num_groups"]
    labels = op.labels
    channels = x.axes[1]
    within = x.shape[1] // groups
    if channels is not None and groups > 1 and within > 1:
        segments = labels.resolve(channels)
        if all(segment_size(segment) % within == 0 for segment in segments):
            for segment in segments:
                outer = segment_size(segment) // within
                if outer > 1:
                    labels.split((segment,), [outer, within])
        else:
            labels.split(channels, [groups, within])
    names = list(range(x.ndim))
    axes = op.join(x.roles(names), *_vectors(op, ("weight", "bias"), 1))
    return op.result(names, axes)


@register_rule("aten::_weight_norm")
def weight_norm(op: Operation):
    """The direction v, scaled along one dimension by g."""
    v, g = op["v"], op["g"]
    names = list(range(v.ndim))
    return op.result(names, op.join(v.roles(names), g.roles(names[v.ndim - g.ndim :])))


@register_rule("aten::softmax", "aten::log_softmax", "aten::_softmax", "aten::_log_softmax")
def softmax(op: Operation):
    """Equivariant in every dimension."""
    return Labelled(op.tensors[0].axes, op.shape())


@register_rule("aten::normalize", "aten::renorm")
def normalise(op: Operation):
    """Each slice scaled by its norm."""
    return Labelled(op.tensors[0].axes, op.shape())


@register_rule("aten::local_response_norm")
def response_norm(op: Operation):
    """Neighbouring channels are summed: their order counts."""
    x = op.tensors[0]
    op.fix(x.axes[1], "neighbouring channels are summed")
    return Labelled(x.axes, op.shape())
