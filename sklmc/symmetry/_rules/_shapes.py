"""Views: the same numbers under another shape or order of dimensions."""

from __future__ import annotations

from sklmc.symmetry._algebra._leaves import UNIT
from sklmc.symmetry._rules._registry import Labelled, Operation, register_rule

_DIAGONAL = "places on a diagonal"


@register_rule(
    "aten::view",
    "aten::reshape",
    "aten::_unsafe_view",
    "aten::flatten",
    "aten::unflatten",
    "aten::squeeze",
    "aten::unsqueeze",
    "aten::ravel",
    "aten::view_as",
    "aten::reshape_as",
    "aten::atleast_1d",
    "aten::atleast_2d",
    "aten::squeeze_copy",
    "aten::unsqueeze_copy",
    "aten::view_copy",
)
def view(op: Operation):
    """Dimensions are merged and split in row-major order."""
    x = op.tensors[0]
    new = op.shape()
    if op.outputs.dtype.itemsize != 1 and op.get("dtype") is not None:
        return op.fixed("numbers are read as another type")
    return Labelled(tuple(op.labels.view(x.axes, x.shape, new, op.node)), new)


@register_rule("aten::permute", "aten::permute_copy")
def permute(op: Operation):
    """Dimensions in another order."""
    x = op["self"]
    return Labelled(tuple(x.axes[d] for d in op["dims"]), op.shape())


@register_rule("aten::transpose", "aten::swapaxes", "aten::swapdims", "aten::transpose_")
def transpose(op: Operation):
    """Two dimensions exchanged."""
    x = op["self"]
    first, second = (value for name, value in op.arguments.items() if name != "self")
    return Labelled(_exchanged(x.axes, first, second), op.shape())


@register_rule(
    "aten::t", "aten::numpy_T", "aten::mT", "aten::adjoint", "aten::mH", "aten::matrix_H"
)
def transposed(op: Operation):
    """Matrix transposes; `numpy_T` turns all dimensions round."""
    x = op["self"]
    if op.name == "aten::numpy_T" or x.ndim < 3:
        return Labelled(x.axes[::-1], op.shape())
    return Labelled(_exchanged(x.axes, -1, -2), op.shape())


@register_rule("aten::movedim", "aten::moveaxis")
def movedim(op: Operation):
    """Some dimensions move to other places, the rest keep their order."""
    x = op["self"]
    source, target = op["source"], op["destination"]
    source = [source] if isinstance(source, int) else list(source)
    target = [target] if isinstance(target, int) else list(target)
    order: list[int | None] = [None] * x.ndim
    for old, new in zip(source, target, strict=True):
        order[new % x.ndim] = old % x.ndim
    rest = iter([d for d in range(x.ndim) if d not in order])
    return Labelled(tuple(x.axes[next(rest) if d is None else d] for d in order), op.shape())


def _exchanged(axes: tuple, first: int, second: int) -> tuple:
    """Return axes with two of them exchanged."""
    found = list(axes)
    if found:
        found[first], found[second] = found[second], found[first]
    return tuple(found)


@register_rule("aten::diagonal", "aten::diagonal_copy", "aten::linalg_diagonal", "aten::trace")
def diagonal(op: Operation):
    """Rows and columns of a square move together; other diagonals have places."""
    x = op.tensors[0]
    first, second = (op.get(name, d) % x.ndim for name, d in (("dim1", 0), ("dim2", 1)))
    rest = [d for d in range(x.ndim) if d not in (first, second)]
    out = [*rest, "diagonal"][: len(op.shape())]
    if x.shape[first] != x.shape[second] or op.get("offset"):
        op.order(x, [first, second], _DIAGONAL)
        axes = {d: x.axes[d] for d in rest}
        size = op.shape()[-1]
        return op.result(out, {**axes, "diagonal": op.fresh(size, _DIAGONAL)})
    names = ["diagonal" if d in (first, second) else d for d in range(x.ndim)]
    reduced, names = diagonal_of(op, x, names)
    return op.result(out, op.join(reduced.roles(names)))


def diagonal_of(op: Operation, x: Labelled, names: list) -> tuple[Labelled, list]:
    """Return x with dimensions of one name made one: they move together."""
    axes: dict = {}
    for name, axis in zip(names, x.axes, strict=True):
        op.labels.unify(axes.get(name), axis)
        axes[name] = axis if axes.get(name) is None else axes[name]
    sizes = dict(zip(names, x.shape, strict=True))
    return Labelled(tuple(axes.values()), tuple(sizes[name] for name in axes)), list(axes)


@register_rule("aten::diag_embed")
def diag_embed(op: Operation):
    """Rows and columns move together; other diagonals have places."""
    x, shape, n = op["self"], op.shape(), op["self"].shape[-1]
    dims = {op["dim1"] % len(shape), op["dim2"] % len(shape)}
    if op["offset"]:
        op.order(x, [-1], _DIAGONAL)
        inside = iter([op.fresh(shape[d], _DIAGONAL) for d in sorted(dims)])
    else:
        axis = op.fresh(n) if x.axes[-1] is None else x.axes[-1]
        inside = iter([axis, axis])
    rest = iter(x.axes[:-1])
    axes = tuple(next(inside) if d in dims else next(rest) for d in range(len(shape)))
    return Labelled(axes, shape)


@register_rule("aten::expand", "aten::expand_as", "aten::broadcast_to", "aten::expand_copy")
def expand(op: Operation):
    """Dimensions of size one become uniform."""
    x, shape = op.tensors[0], op.shape()
    padded = (1,) * (len(shape) - x.ndim) + x.shape
    axes = (UNIT,) * (len(shape) - x.ndim) + x.axes
    return Labelled(
        tuple(
            axis if old == new else None for axis, old, new in zip(axes, padded, shape, strict=True)
        ),
        shape,
    )


@register_rule("aten::pixel_shuffle")
def pixel_shuffle(op: Operation):
    """Channels (c, r, r) give c channels and r times r places."""
    x, factor = op["self"], op["upscale_factor"]
    shape = op.shape()
    axes = list(x.axes)
    if x.axes[-3] is not None:
        channel, *place = op.labels.split(x.axes[-3], [shape[-3], factor, factor])
        for axis in place:
            op.fix(axis, "place in a pixel")
        op.join({"channel": channel, 0: place[0], 1: place[1]}, {"channel": channel})
        axes[-3] = channel
    return _spatial(op, axes, shape)


@register_rule("aten::pixel_unshuffle")
def pixel_unshuffle(op: Operation):
    """c channels and r times r places give channels (c, r, r)."""
    x, factor = op["self"], op["downscale_factor"]
    shape = op.shape()
    axes = list(x.axes)
    channel = op.fresh(x.shape[-3]) if x.axes[-3] is None else x.axes[-3]
    inside = [op.fresh(factor, "place in a pixel") for _ in range(2)]
    axes[-3] = op.labels.merge([channel, *inside])
    return _spatial(op, axes, shape)


@register_rule("aten::channel_shuffle")
def channel_shuffle(op: Operation):
    """Channels (g, m) in the order (m, g)."""
    x, groups = op["self"], op["groups"]
    axes = list(x.axes)
    if x.axes[1] is not None and 1 < groups < x.shape[1]:
        outer, inner = op.labels.split(x.axes[1], [groups, x.shape[1] // groups])
        axes[1] = op.labels.merge([inner, outer])
    return Labelled(tuple(axes), op.shape())


def _spatial(op: Operation, axes: list, shape: tuple[int, ...]) -> Labelled:
    """Fix the last two dimensions and give the result new ones."""
    op.order(op.tensors[0], [-2, -1], "position in space")
    for d in (-2, -1):
        axes[d] = op.fresh(shape[d], "position in space")
    return Labelled(tuple(axes), shape)
