"""Operations that take, join, repeat or order places along a dimension."""

from __future__ import annotations

from collections.abc import Iterable

from sklmc.symmetry._algebra._leaves import UNIT, Axis
from sklmc.symmetry._rules._registry import Labelled, Operation, register_rule

_CHOSEN = "a place along the axis is chosen"


@register_rule("aten::select", "aten::select_copy")
def select(op: Operation):
    """One index of a dimension, which is gone afterwards."""
    x = op["self"]
    dim = op.dim("dim", x.ndim)
    k = op["index"] % x.shape[dim]
    return Labelled(tuple(op.labels.pick(x.axes, dim, k, op.reason(_CHOSEN))), op.shape())


@register_rule("aten::unbind")
def unbind(op: Operation):
    """Every index of a dimension on its own."""
    x = op["self"]
    dim = op.dim("dim", x.ndim)
    reason = op.reason(_CHOSEN)
    return [
        Labelled(tuple(op.labels.pick(x.axes, dim, k, reason)), op.shape(k))
        for k in range(x.shape[dim])
    ]


@register_rule("aten::slice", "aten::narrow", "aten::slice_copy", "aten::narrow_copy")
def narrow(op: Operation):
    """A stretch of a dimension; every other place only of an axis that does not move."""
    x = op["self"]
    dim = op.dim("dim", x.ndim)
    size, length = x.shape[dim], op.shape()[dim]
    start = op["start"] or 0
    start = max(start + size, 0) if start < 0 else min(start, size)
    if (op.get("step") or 1) != 1:
        op.order(x, [dim], "every other place is taken")
        return _replaced(op, x, dim, op.fresh(length, "every other place is taken"), None)
    return _piece(op, x, dim, start, length, None)


@register_rule("aten::split", "aten::split_with_sizes", "aten::chunk", "aten::tensor_split")
def split(op: Operation):
    """Stretches of a dimension, one after the other."""
    x = op["self"]
    dim = op.dim("dim", x.ndim)
    found, start = [], 0
    for index, output in enumerate(op.outputs):
        length = int(output.shape[dim])
        found.append(_piece(op, x, dim, start, length, index))
        start += length
    return found


def _piece(op: Operation, x: Labelled, dim: int, start: int, length: int, index) -> Labelled:
    """Return the label of a stretch of one dimension."""
    axis, size = x.axes[dim], x.shape[dim]
    if length == size or axis is None:
        return _replaced(op, x, dim, axis, index)
    if length == 1:
        axes = op.labels.pick(x.axes, dim, start, op.reason(_CHOSEN))
        axes.insert(dim, UNIT)
        return Labelled(tuple(axes), op.shape(index))
    bounds = [bound for bound in (start, start + length) if 0 < bound < size]
    pieces = op.labels.cut(axis, bounds)
    return _replaced(op, x, dim, pieces[1 if start > 0 else 0], index)


def _replaced(op: Operation, x: Labelled, dim: int, axis: Axis | None, index=None) -> Labelled:
    """Return the result's label: that of x with one axis exchanged."""
    axes = list(x.axes)
    axes[dim] = axis
    return Labelled(tuple(axes), op.shape(index))


@register_rule("aten::cat", "aten::concat", "aten::concatenate")
def concatenate(op: Operation):
    """Segments of a sum along one dimension; the other dimensions move together."""
    shape = op.shape()
    tensors = [tensor for tensor in op["tensors"] if tensor.ndim == len(shape)]
    return _concatenated(op, tensors, op.dim("dim", len(shape)))


@register_rule(
    "aten::hstack", "aten::vstack", "aten::row_stack", "aten::dstack", "aten::column_stack"
)
def concatenate_widened(op: Operation):
    """As a concatenation, of operands that first get the dimensions that they lack."""
    kind = op.name.removeprefix("aten::")
    before, after = {"vstack": (1, 0), "row_stack": (1, 0), "dstack": (1, 1)}.get(kind, (0, 0))
    tensors = []
    for tensor in op["tensors"]:
        axes, sizes = tensor.axes or (UNIT,), tensor.shape or (1,)
        if len(sizes) == 1:
            end = 1 if kind == "column_stack" else after
            axes = (UNIT,) * before + axes + (UNIT,) * end
            sizes = (1,) * before + sizes + (1,) * end
        elif len(sizes) == 2 and after:
            axes, sizes = (*axes, UNIT), (*sizes, 1)
        tensors.append(Labelled(axes, sizes))
    flat = kind == "hstack" and tensors[0].ndim == 1
    dims = {"hstack": 1, "column_stack": 1, "dstack": 2}
    return _concatenated(op, tensors, 0 if flat else dims.get(kind, 0))


def _concatenated(op: Operation, tensors: list[Labelled], dim: int) -> Labelled:
    """Return the label of tensors of one rank, one after the other along one dimension."""
    shape = op.shape()
    operands, parts = [], []
    for index, tensor in enumerate(tensors):
        size = tensor.shape[dim]
        if size == 0:
            continue
        axis = tensor.axes[dim]
        parts.append(op.fresh(size) if axis is None else axis)
        others = tensor.roles(range(len(shape)))
        others.pop(dim, None)
        if size > 1:
            others["part", index] = axis
        operands.append(others)
    axes = dict(op.join(*operands))
    axes[dim] = tuple(segment for part in parts for segment in part)
    return op.result(range(len(shape)), axes)


@register_rule("aten::stack")
def stack(op: Operation):
    """A new dimension whose places are the operands."""
    names = list(range(len(op.shape()) - 1))
    axes = op.join(*(tensor.roles(names) for tensor in op["tensors"]))
    dim = op.dim("dim", len(names) + 1)
    order: list = list(names)
    order.insert(dim, "stack")
    return op.result(order, {**axes, "stack": op.fresh(op.shape()[dim], _CHOSEN)})


@register_rule("aten::pad", "aten::constant_pad_nd")
def pad(op: Operation):
    """A constant border is uniform; any other border depends on places."""
    x, shape = op["self"], op.shape()
    widths = op["pad"]
    axes = list(x.axes)
    constant = op.get("mode", "constant") == "constant"
    for d in range(len(widths) // 2):
        dim = x.ndim - 1 - d
        before, after = widths[2 * d], widths[2 * d + 1]
        if before == after == 0:
            continue
        if (
            x.axes[dim] is None
            or op.labels.is_fixed(x.axes[dim])
            or not constant
            or (min(before, after) < 0)
        ):
            op.order(x, [dim], "a border is added")
            axes[dim] = op.fresh(shape[dim], "a border is added")
            continue
        left = op.fresh(before) if before else ()
        right = op.fresh(after) if after else ()
        axes[dim] = (*left, *x.axes[dim], *right)
    return Labelled(tuple(axes), shape)


@register_rule("aten::repeat", "aten::tile")
def repeat(op: Operation):
    """Copies one after the other: a uniform outer factor."""
    x, shape = op["self"], op.shape()
    padding = len(shape) - x.ndim
    axes = []
    for dim, size in enumerate(shape):
        old = 1 if dim < padding else x.shape[dim - padding]
        axis = UNIT if dim < padding else x.axes[dim - padding]
        if size == old or axis is None:
            axes.append(axis)
        else:
            axes.append(None if old == 1 else op.labels.merge([op.fresh(size // old), axis]))
    return Labelled(tuple(axes), shape)


@register_rule("aten::repeat_interleave")
def repeat_interleave(op: Operation):
    """Copies side by side: a uniform inner factor."""
    if not isinstance(op.get("repeats"), int) or op.get("dim") is None:
        return everything_fixed(op, "places are repeated")
    x = op["self"]
    dim = op.dim("dim", x.ndim)
    axis, times = x.axes[dim], op["repeats"]
    if axis is None or times == 1:
        return _replaced(op, x, dim, axis)
    if x.shape[dim] == 1:
        return _replaced(op, x, dim, None)
    return _replaced(op, x, dim, op.labels.merge([axis, op.fresh(times)]))


@register_rule(
    "aten::cumsum",
    "aten::cumprod",
    "aten::cummax",
    "aten::cummin",
    "aten::logcumsumexp",
    "aten::flip",
    "aten::roll",
    "aten::diff",
    "aten::fliplr",
    "aten::flipud",
    "aten::rot90",
)
def ordered(op: Operation):
    """The order of places along some dimensions counts."""
    x = op["self"]
    dims = op.get("dim", op.get("dims"))
    dims = [dims] if isinstance(dims, int) else dims
    return renewed(op, x, dims or range(x.ndim), "the order along the axis counts")


def renewed(op: Operation, x: Labelled, dims: Iterable[int], kind: str):
    """Return the label of x with new places along some dimensions, made of all the old ones."""
    chosen = {d % max(x.ndim, 1) for d in dims}
    op.order(x, chosen, kind)

    def label(index):
        shape = op.shape(index)
        return Labelled(
            tuple(
                op.fresh(shape[d], kind) if d in chosen else axis for d, axis in enumerate(x.axes)
            ),
            shape,
        )

    if isinstance(op.outputs, (list, tuple)):
        return [label(index) for index in range(len(op.outputs))]
    return label(None)


@register_rule("aten::triu", "aten::tril")
def triangle(op: Operation):
    """The last two dimensions are compared place by place."""
    x = op["self"]
    axes = list(x.axes)
    op.order(x, [-2, -1], "a triangle is cut out")
    for d in (-2, -1):
        axes[d] = op.fresh(x.shape[d], "a triangle is cut out")
    return Labelled(tuple(axes), op.shape())


@register_rule("aten::unfold")
def unfold(op: Operation):
    """Windows along a dimension."""
    x = op["self"]
    dim = op.dim("dimension", x.ndim)
    kind = "windows are taken"
    op.order(x, [dim], kind)
    shape = op.shape()
    axes = [op.fresh(shape[d], kind) if d == dim else axis for d, axis in enumerate(x.axes)]
    return Labelled((*axes, op.fresh(shape[-1], kind)), shape)


def everything_fixed(op: Operation, kind: str):
    """The safe answer: nothing that the operation touches may move."""
    for tensor in op.tensors:
        for axis in tensor.axes:
            op.fix(axis, kind)
    if isinstance(op.outputs, (list, tuple)):
        return [
            op.fixed(kind, index) if hasattr(output, "shape") else None
            for index, output in enumerate(op.outputs)
        ]
    return op.fixed(kind) if hasattr(op.outputs, "shape") else None
