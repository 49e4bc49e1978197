"""Convolutions and what else works on positions in space."""

from __future__ import annotations

from collections.abc import Hashable

from sklmc.symmetry._algebra._leaves import Axis
from sklmc.symmetry._rules._registry import Labelled, Operation, pair, register_rule

_SPACE = "position in space"


@register_rule("aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::convolution")
def convolution(op: Operation):
    """Channels are contracted, per group where there are groups; positions are fixed."""
    if op.get("transposed"):
        return transposed_convolution(op)
    return _convolve(op, transposed=False)


@register_rule("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d")
def transposed_convolution(op: Operation):
    """As a convolution, with the weight's first two axes exchanged."""
    return _convolve(op, transposed=True)


def _convolve(op: Operation, transposed: bool) -> Labelled:
    """Label a convolution by its sum over roles: batch n, group g, in i, out o, kernel k, place p.

    y[n, (g, o), p] = sum over i, k of x[n, (g, i), p + k] w[(g, o), i, k] + b[(g, o)]

    A channel axis of x or y is the product of g and a channel within the group. The weight shows
    the groups on one axis only: its first is (g, o), its second i, within every group anew; a
    transposed weight has (g, i) and o. So all that hold i hold g as well, and each group may order
    its i in its own way, and likewise o. A depthwise convolution has one channel per group: i and o
    have size one and are left out, g alone moves. Places are compared with places p + k: nothing
    moves there.
    """
    x, weight, bias, groups = op["input"], op["weight"], op["bias"], op["groups"]
    labels, shape = op.labels, op.shape()
    n_space = weight.ndim - 2
    for axis in (*x.axes[x.ndim - n_space :], *weight.axes[2:]):
        op.fix(axis, _SPACE)
    space = [op.fresh(size, _SPACE) for size in shape[len(shape) - n_space :]]
    kernel: dict[Hashable, Axis | None] = {
        ("kernel", d): weight.axes[2 + d] for d in range(n_space) if weight.shape[2 + d] > 1
    }
    batch: dict[Hashable, Axis | None] = {
        d: x.axes[d] for d in range(x.ndim - n_space - 1) if x.shape[d] > 1
    }
    channels = x.axes[x.ndim - n_space - 1]
    n_in = x.shape[x.ndim - n_space - 1]
    n_out = shape[len(shape) - n_space - 1]
    first, second = weight.axes[:2]
    if groups == 1:  # x (n, i, p), w (o, i, k) or transposed (i, o, k)
        read, write = (first, second) if transposed else (second, first)
        into: dict[Hashable, Axis | None] = {"in": channels}
        out: dict[Hashable, Axis | None] = {"out": write}
        taps: dict[Hashable, Axis | None] = {"in": read, "out": write, **kernel}
    else:
        per_group = n_in // groups  # x (n, (g, i), p), w ((g, o), i, k) or ((g, i), o, k)
        if channels is None:
            channels = op.fresh(n_in)
        into = pair(labels, channels, groups, per_group, "group", "in")
        if transposed:
            taps = pair(labels, first, groups, per_group, "group", "in")
            taps.update({"out": second} if n_out > groups else {})
        else:
            taps = pair(labels, first, groups, n_out // groups, "group", "out")
            taps.update({"in": second} if per_group > 1 else {})
        out = {role: taps.get(role, into.get(role)) for role in ("group", "out")}
        taps.update(kernel)
    operands = [{**batch, **into}, taps]
    if bias is not None:
        bias_axis = bias.axes[0]
        operands.append(
            {"out": bias_axis}
            if groups == 1
            else pair(labels, bias_axis, groups, n_out // groups, "group", "out")
        )
    operands.append({**batch, **out})  # the result, which does not know i
    axes = op.join(*operands)
    made = [
        (axes.get(role), size)
        for role, size in (("group", groups), ("out", n_out // groups))
        if size > 1
    ]
    channel = None  # uniform where all filters are equal and no group tells them apart
    if any(axis is not None for axis, _ in made):
        channel = labels.merge([op.fresh(n) if axis is None else axis for axis, n in made])
    lead = [batch.get(d, ((),)) for d in range(x.ndim - n_space - 1)]
    return Labelled((*lead, channel if n_out > 1 else ((),), *space), shape)


@register_rule(
    "aten::max_pool1d",
    "aten::max_pool2d",
    "aten::max_pool3d",
    "aten::avg_pool1d",
    "aten::avg_pool2d",
    "aten::avg_pool3d",
    "aten::adaptive_avg_pool1d",
    "aten::adaptive_avg_pool2d",
    "aten::adaptive_avg_pool3d",
    "aten::adaptive_max_pool1d",
    "aten::adaptive_max_pool2d",
    "aten::adaptive_max_pool3d",
    "aten::max_pool1d_with_indices",
    "aten::max_pool2d_with_indices",
    "aten::max_pool3d_with_indices",
    "aten::upsample_nearest1d",
    "aten::upsample_nearest2d",
    "aten::upsample_nearest3d",
    "aten::_upsample_nearest_exact1d",
    "aten::_upsample_nearest_exact2d",
    "aten::upsample_linear1d",
    "aten::upsample_bilinear2d",
    "aten::upsample_bicubic2d",
    "aten::upsample_trilinear3d",
    "aten::_upsample_bilinear2d_aa",
    "aten::_upsample_bicubic2d_aa",
    "aten::lp_pool2d",
    "aten::reflection_pad1d",
    "aten::reflection_pad2d",
    "aten::reflection_pad3d",
    "aten::replication_pad1d",
    "aten::replication_pad2d",
    "aten::replication_pad3d",
)
def spatial(op: Operation):
    """Channels are carried; positions are fixed and new ones come."""
    x = op.tensors[0]
    n_space = next((int(c) for c in op.name if c in "123"), 2)
    op.order(x, range(x.ndim - n_space, x.ndim), _SPACE)

    def label(index):
        shape = op.shape(index)
        space = [op.fresh(size, _SPACE) for size in shape[x.ndim - n_space :]]
        return Labelled((*x.axes[: x.ndim - n_space], *space), shape)

    if isinstance(op.outputs, (list, tuple)):
        return [label(index) for index in range(len(op.outputs))]
    return label(None)


@register_rule("aten::grid_sampler", "aten::grid_sampler_2d", "aten::grid_sampler_3d")
def grid_sampler(op: Operation):
    """Channels are carried; positions are looked up."""
    x, grid = op["input"], op["grid"]
    op.order(x, range(2, x.ndim), _SPACE)
    op.order(grid, range(grid.ndim), _SPACE)
    op.join(x.roles(range(x.ndim)), {0: grid.axes[0]} if grid.shape[0] > 1 else {})
    shape = op.shape()
    return Labelled((*x.axes[:2], *(op.fresh(size, _SPACE) for size in shape[2:])), shape)


@register_rule("aten::im2col")
def im2col(op: Operation):
    """Patches: channels (c, places in the patch), and where the patches lie."""
    x, shape = op["self"], op.shape()
    op.order(x, [-2, -1], _SPACE)
    channels = op.fresh(x.shape[-3]) if x.axes[-3] is None else x.axes[-3]
    places = shape[-2] // x.shape[-3]
    channels = op.labels.merge([channels, op.fresh(places, _SPACE)])
    return Labelled((*x.axes[:-3], channels, op.fresh(shape[-1], _SPACE)), shape)


@register_rule("aten::col2im")
def col2im(op: Operation):
    """Patches put back and summed."""
    x, shape = op["self"], op.shape()
    op.order(x, [-1], _SPACE)
    channels = x.axes[-2]
    if channels is not None:
        channels, places = op.labels.split(channels, [shape[-3], x.shape[-2] // shape[-3]])
        op.fix(places, _SPACE)
        op.join({"channel": channels, "place": places}, {"channel": channels})
    space = [op.fresh(size, _SPACE) for size in shape[-2:]]
    return Labelled((*x.axes[:-2], channels, *space), shape)
