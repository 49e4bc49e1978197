"""Views: the same numbers under another shape or order of dimensions."""

from __future__ import annotations

from sklmc.symmetry._rules._registry import Labelled, Operation, register_aten

_DIAGONAL = "places on a diagonal"
_PAIR = "real and imaginary part"


@register_aten(
    "view reshape _unsafe_view flatten unflatten squeeze unsqueeze ravel view_as reshape_as "
    "atleast_1d atleast_2d squeeze_copy unsqueeze_copy view_copy"
)
def view(op: Operation):
    """Dimensions are merged and split in row-major order."""
    x = op.tensors[0]
    new = op.shape()
    if op.outputs.dtype.itemsize != 1 and op.get("dtype") is not None:
        return op.fixed("numbers are read as another type")
    return Labelled(tuple(op.labels.view(x.axes, x.shape, new, op.node)), new)


@register_aten("expand expand_as broadcast_to expand_copy")
def expand(op: Operation):
    """Dimensions of size one become uniform."""
    return op.result(range(-len(op.shape()), 0), op.tensors[0].roles())


@register_aten("permute permute_copy")
def permute(op: Operation):
    """Dimensions in another order."""
    return _reordered(op, op["dims"])


@register_aten("transpose swapaxes swapdims transpose_ t numpy_T mT adjoint mH matrix_H")
def transpose(op: Operation):
    """Two dimensions exchanged, by default the last two; `numpy_T` turns all of them round."""
    ndim = op["self"].ndim
    order = list(range(ndim))
    dims = [value for name, value in op.arguments.items() if name != "self"]
    if op.name == "aten::numpy_T" or (not dims and ndim < 3):
        order.reverse()
    elif ndim:
        first, second = dims or (-1, -2)
        order[first], order[second] = order[second], order[first]
    return _reordered(op, order)


@register_aten("movedim moveaxis")
def movedim(op: Operation):
    """Some dimensions move to other places, the rest keep their order."""
    ndim = op["self"].ndim
    ends = (op["source"], op["destination"])
    source, target = ([end] if isinstance(end, int) else end for end in ends)
    moved = {new % ndim: old % ndim for old, new in zip(source, target, strict=True)}
    rest = iter([d for d in range(ndim) if d not in moved.values()])
    return _reordered(op, [moved[d] if d in moved else next(rest) for d in range(ndim)])


def _reordered(op: Operation, order) -> Labelled:
    """Return the label of a tensor with its dimensions in this order."""
    return Labelled(tuple(op["self"].axes[d] for d in order), op.shape())


@register_aten("diagonal diagonal_copy linalg_diagonal trace")
def diagonal(op: Operation):
    """Rows and columns of a square move together; other diagonals have places."""
    x = op.tensors[0]
    first, second = (op.get(name, d) % x.ndim for name, d in (("dim1", 0), ("dim2", 1)))
    rest = [d for d in range(x.ndim) if d not in (first, second)]
    out = [*rest, "diagonal"][: len(op.shape())]
    if x.shape[first] != x.shape[second] or op.get("offset"):
        op.order(x, [first, second], _DIAGONAL)
        places = op.fresh(op.shape()[-1], _DIAGONAL)
        return op.result(out, {**dict(enumerate(x.axes)), "diagonal": places})
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


@register_aten("diag_embed")
def diag_embed(op: Operation):
    """Rows and columns move together; other diagonals have places."""
    x, shape = op["self"], op.shape()
    dims = {op["dim1"] % len(shape), op["dim2"] % len(shape)}
    if op["offset"]:
        op.order(x, [-1], _DIAGONAL)
        inside = iter([op.fresh(shape[d], _DIAGONAL) for d in sorted(dims)])
    else:
        axis = op.fresh(x.shape[-1]) if x.axes[-1] is None else x.axes[-1]
        inside = iter([axis, axis])
    rest = iter(x.axes[:-1])
    axes = tuple(next(inside) if d in dims else next(rest) for d in range(len(shape)))
    return Labelled(axes, shape)


@register_aten("channel_shuffle")
def channel_shuffle(op: Operation):
    """Channels (g, m) in the order (m, g)."""
    x, groups = op["self"], op["groups"]
    if x.axes[1] is None or not 1 < groups < x.shape[1]:
        return op.like(x)
    outer, inner = op.labels.split(x.axes[1], [groups, x.shape[1] // groups])
    return op.like(x, {1: op.labels.merge([inner, outer])})


@register_aten("view_as_real")
def view_as_real(op: Operation):
    """A last dimension of two: real and imaginary part."""
    return Labelled((*op["self"].axes, op.fresh(2, _PAIR)), op.shape())


@register_aten("view_as_complex")
def view_as_complex(op: Operation):
    """The last dimension is gone."""
    x = op["self"]
    op.order(x, [-1], _PAIR)
    return Labelled(x.axes[:-1], op.shape())
