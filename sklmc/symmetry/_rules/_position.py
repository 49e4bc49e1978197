"""Operations that take, join, repeat or order places along a dimension."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from sklmc.symmetry._algebra._leaves import UNIT, Axis
from sklmc.symmetry._rules._registry import Labelled, Operation, register_aten

_CHOSEN = "a place along the axis is chosen"


@register_aten("select select_copy unbind")
def select(op: Operation):
    """One index of a dimension, which is gone afterwards; `unbind` gives each on its own."""
    x = op["self"]
    dim = op.dim("dim", x.ndim)

    def label(index):
        k = op["index"] % x.shape[dim] if index is None else index
        axes = op.labels.pick(x.axes, dim, k, op.reason(_CHOSEN))
        return Labelled(tuple(axes), op.shape(index))

    return op.each(label)


@register_aten("slice narrow slice_copy narrow_copy split split_with_sizes chunk tensor_split")
def narrow(op: Operation):
    """Stretches of a dimension; every other place only of an axis that does not move."""
    x = op["self"]
    dim = op.dim("dim", x.ndim)
    if (op.get("step") or 1) != 1:
        return op.renew(x, [dim], "every other place is taken")
    lengths = op.each(lambda index: op.shape(index)[dim])
    several = isinstance(lengths, list)
    found = stretches(op.get("start"), x.shape[dim], lengths if several else [lengths])
    return op.each(lambda index: _piece(op, x, dim, *found[index or 0], index))


def stretches(start: int | None, size: int, lengths: Iterable[int]) -> list[tuple[int, int]]:
    """Return begin and end of stretches of a dimension that follow each other from `start` on."""
    first = start or 0
    first = max(first + size, 0) if first < 0 else min(first, size)
    return list(itertools.pairwise(itertools.accumulate(lengths, initial=first)))


def _piece(op: Operation, x: Labelled, dim: int, start: int, stop: int, index) -> Labelled:
    """Return the label of a stretch of one dimension."""
    axis, size = x.axes[dim], x.shape[dim]
    if stop - start == size or axis is None:
        return op.like(x, index=index)
    if stop <= start:  # nothing lies in it: no cut is made for it
        return Labelled((None,) * x.ndim, op.shape(index))
    if stop - start == 1:
        axes = op.labels.pick(x.axes, dim, start, op.reason(_CHOSEN))
        axes.insert(dim, UNIT)
        return Labelled(tuple(axes), op.shape(index))
    pieces = op.labels.cut(axis, [start, stop])
    return op.like(x, {dim: pieces[1 if start > 0 else 0]}, index)


@register_aten("cat concat concatenate")
def concatenate(op: Operation):
    """Segments of a sum along one dimension; the other dimensions move together."""
    return _concatenated(op, op["tensors"], op.dim("dim", len(op.shape())))


@register_aten("hstack vstack row_stack dstack column_stack")
def concatenate_widened(op: Operation):
    """As a concatenation, of operands that first get the dimensions of size one that they lack."""
    kind, ndim = op.name.removeprefix("aten::"), len(op.shape())
    tensors = []
    for tensor in op["tensors"]:
        axes, sizes = tensor.axes or (UNIT,), tensor.shape or (1,)
        lacking = ndim - len(sizes)
        before = {"vstack": lacking, "row_stack": lacking, "dstack": lacking // 2}.get(kind, 0)
        after = lacking - before
        axes = (*[UNIT] * before, *axes, *[UNIT] * after)
        tensors.append(Labelled(axes, (*[1] * before, *sizes, *[1] * after)))
    dims = {"hstack": min(1, ndim - 1), "column_stack": 1, "dstack": 2}
    return _concatenated(op, tensors, dims.get(kind, 0))


def _concatenated(op: Operation, tensors: list[Labelled], dim: int) -> Labelled:
    """Return the label of tensors of one rank, one after the other along one dimension."""
    names = range(len(op.shape()))
    operands, parts = [], []
    for index, tensor in enumerate(tensors):
        axis, size = tensor.axes[dim], tensor.shape[dim]
        parts.append(op.fresh(size) if axis is None else axis)
        roles = tensor.roles(names)
        if dim in roles:
            roles["part", index] = roles.pop(dim)
        operands.append(roles)
    axes = op.join(*operands)
    axes[dim] = tuple(segment for part in parts for segment in part)
    return op.result(names, axes)


@register_aten("stack")
def stack(op: Operation):
    """A new dimension whose places are the operands."""
    order: list = list(range(len(op.shape()) - 1))
    axes = op.join(*(tensor.roles(order) for tensor in op["tensors"]))
    dim = op.dim("dim", len(op.shape()))
    order.insert(dim, "stack")
    return op.result(order, {**axes, "stack": op.fresh(op.shape()[dim], _CHOSEN)})


@register_aten("pad constant_pad_nd")
def pad(op: Operation):
    """A constant border is uniform; any other border depends on places."""
    x, shape, widths = op["self"], op.shape(), op["pad"]
    constant = op.get("mode", "constant") == "constant"
    new: dict[int, Axis] = {}
    for d in range(len(widths) // 2):
        dim = x.ndim - 1 - d
        before, after = widths[2 * d], widths[2 * d + 1]
        axis = x.axes[dim]
        if before == after == 0:
            continue
        if axis is None or op.labels.is_fixed(axis) or not constant or min(before, after) < 0:
            op.order(x, [dim], "a border is added")
            new[dim] = op.fresh(shape[dim], "a border is added")
        else:
            left = op.fresh(before) if before else ()
            right = op.fresh(after) if after else ()
            new[dim] = (*left, *axis, *right)
    return op.like(x, new)


@register_aten("repeat tile")
def repeat(op: Operation):
    """Copies one after the other: a uniform outer factor."""
    x, shape = op["self"], op.shape()
    lead = len(shape) - x.ndim
    old = zip((*[UNIT] * lead, *x.axes), (*[1] * lead, *x.shape), strict=True)
    axes = [
        axis if axis is None or new == size else op.merge((None, new // size), (axis, size))
        for (axis, size), new in zip(old, shape, strict=True)
    ]
    return Labelled(tuple(axes), shape)


@register_aten("repeat_interleave")
def repeat_interleave(op: Operation):
    """Copies side by side: a uniform inner factor."""
    times = op.get("repeats")
    if not isinstance(times, int) or op.get("dim") is None:
        return op.fix_all("places are repeated")
    x = op["self"]
    dim = op.dim("dim", x.ndim)
    if x.axes[dim] is None or times == 1:
        return op.like(x)
    return op.like(x, {dim: op.merge((x.axes[dim], x.shape[dim]), (None, times))})


@register_aten("cumsum cumprod cummax cummin logcumsumexp flip roll diff fliplr flipud rot90")
def ordered(op: Operation):
    """The order of places along some dimensions counts."""
    return op.renew(op["self"], op.dims(op["self"]), "the order along the axis counts")


@register_aten(
    "fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft fft_fft2 fft_ifft2 fft_rfft2 "
    "fft_irfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn fft_fftshift fft_ifftshift"
)
def fourier(op: Operation):
    """Places become frequencies along some dimensions, by default along as many as have sizes."""
    x, sizes = op["self"], op.get("s")
    last = None if sizes is None else range(x.ndim - len(sizes), x.ndim)
    return op.renew(x, op.dims(x, last), "places become frequencies")


@register_aten("triu tril")
def triangle(op: Operation):
    """The last two dimensions are compared place by place."""
    return op.renew(op["self"], [-2, -1], "a triangle is cut out")


@register_aten("unfold")
def unfold(op: Operation):
    """Windows along a dimension."""
    x, shape, kind = op["self"], op.shape(), "windows are taken"
    dim = op.dim("dimension", x.ndim)
    op.order(x, [dim], kind)
    axes = [op.fresh(shape[d], kind) if d == dim else axis for d, axis in enumerate(x.axes)]
    return Labelled((*axes, op.fresh(shape[-1], kind)), shape)
