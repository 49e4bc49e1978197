"""Convolutions and what else works on positions in space."""

from __future__ import annotations

from sklmc.symmetry._rules._registry import Labelled, Operation, pair, register_aten

_SPACE = "position in space"


@register_aten("conv1d conv2d conv3d convolution")
def convolution(op: Operation):
    """Channels are contracted, per group where there are groups; positions are fixed."""
    if op.get("transposed"):
        return transposed_convolution(op)
    return _convolve(op, transposed=False)


@register_aten("conv_transpose1d conv_transpose2d conv_transpose3d")
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
    shape, n_space = op.shape(), weight.ndim - 2
    lead = x.ndim - n_space - 1  # dimensions before the channels
    n_in, n_out = x.shape[lead] // groups, shape[lead] // groups  # within a group
    for axis in (*x.axes[lead + 1 :], *weight.axes[2:]):
        op.fix(axis, _SPACE)

    def within(axis, size, role):
        return pair(op.labels, axis, groups, size, "group", role)

    channels, (first, second) = x.axes[lead], weight.axes[:2]
    if channels is None and groups > 1:
        channels = op.fresh(x.shape[lead])
    batch = {d: x.axes[d] for d in range(lead) if x.shape[d] > 1}
    into = within(channels, n_in, "in")
    if transposed:
        taps = {**within(first, n_in, "in"), **({"out": second} if n_out > 1 else {})}
    else:
        taps = {**within(first, n_out, "out"), **({"in": second} if n_in > 1 else {})}
    out = {role: taps.get(role, into.get(role)) for role in ("group", "out")}
    taps |= {("kernel", d): weight.axes[d] for d in range(2, weight.ndim) if weight.shape[d] > 1}
    biases = [] if bias is None else [within(bias.axes[0], n_out, "out")]
    # the result is an operand as well, one that does not know i
    axes = op.join({**batch, **into}, taps, *biases, {**batch, **out})
    channel = op.merge((axes.get("group"), groups), (axes.get("out"), n_out))
    space = [op.fresh(size, _SPACE) for size in shape[lead + 1 :]]
    return Labelled((*x.axes[:lead], channel, *space), shape)


@register_aten(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
    "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
    "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices lp_pool2d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d "
    "_upsample_nearest_exact1d _upsample_nearest_exact2d "
    "upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d "
    "_upsample_bilinear2d_aa _upsample_bicubic2d_aa "
    "reflection_pad1d reflection_pad2d reflection_pad3d "
    "replication_pad1d replication_pad2d replication_pad3d"
)
def spatial(op: Operation):
    """Channels are carried; positions are fixed and new ones come."""
    x = op.tensors[0]
    n_space = next((int(c) for c in op.name if c in "123"), 2)
    return op.renew(x, range(x.ndim - n_space, x.ndim), _SPACE)


@register_aten("grid_sampler grid_sampler_2d grid_sampler_3d")
def grid_sampler(op: Operation):
    """Channels are carried; positions are looked up."""
    x, grid = op["input"], op["grid"]
    op.order(grid, range(grid.ndim), _SPACE)
    op.join(x.roles(range(x.ndim)), {0: grid.axes[0]})
    return op.renew(x, range(2, x.ndim), _SPACE)


@register_aten("im2col pixel_unshuffle")
def places_to_channels(op: Operation):
    """Places in a patch become channels: (c, place); then come the places of the patches."""
    x, shape = op["self"], op.shape()
    op.order(x, [-2, -1], _SPACE)
    n_places = shape[x.ndim - 3] // x.shape[-3]
    channels = op.merge((x.axes[-3], x.shape[-3]), (op.fresh(n_places, _SPACE), n_places))
    space = [op.fresh(size, _SPACE) for size in shape[x.ndim - 2 :]]
    return Labelled((*x.axes[:-3], channels, *space), shape)


@register_aten("col2im pixel_shuffle")
def channels_to_places(op: Operation):
    """Channels (c, place) are put back, and summed, where their patches lie."""
    x, shape = op["self"], op.shape()
    lead = len(shape) - 3
    op.order(x, range(lead + 1, x.ndim), _SPACE)
    channels = x.axes[lead]
    if channels is not None:
        n_places = x.shape[lead] // shape[lead]
        channels, places = op.labels.split(channels, [shape[lead], n_places])
        op.fix(places, _SPACE)
        op.join({"channel": channels, "place": places}, {"channel": channels})
    return Labelled((*x.axes[:lead], channels, *(op.fresh(n, _SPACE) for n in shape[-2:])), shape)
