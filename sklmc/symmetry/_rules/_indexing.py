"""Look-ups: the axis that is looked up is fixed, the others are carried."""

from __future__ import annotations

import torch

from sklmc.symmetry._algebra._leaves import UNIT
from sklmc.symmetry._rules._registry import Labelled, Operation, register_aten

_LOOKED_UP = "rows are looked up"
_WRITTEN = "places are written by index"


@register_aten("embedding")
def embedding(op: Operation):
    """Rows of a table by index."""
    weight, indices = op["weight"], op["indices"]
    op.order(weight, [0], _LOOKED_UP)
    return Labelled((*indices.axes, weight.axes[1]), op.shape())


@register_aten("embedding_bag _embedding_bag")
def embedding_bag(op: Operation):
    """Rows of a table by index, summed per bag; bags and indices are fixed."""
    weight = op["weight"]
    for tensor in op.tensors:
        op.order(tensor, range(1 if tensor is weight else tensor.ndim), _LOOKED_UP)
    bags, features = op.shape(0)
    result = Labelled((op.fresh(bags, _LOOKED_UP), weight.axes[1]), (bags, features))
    return [result, *(op.fixed(_LOOKED_UP, index) for index in range(1, len(op.outputs)))]


@register_aten("index_select")
def index_select(op: Operation):
    """Places of one dimension by index."""
    x, index = op["self"], op["index"]
    dim = op.dim("dim", x.ndim)
    op.order(x, [dim], _LOOKED_UP)
    return op.like(x, {dim: index.axes[0] if index.ndim else UNIT})


@register_aten("index_fill")
def index_fill(op: Operation):
    """Looked-up places of one dimension get one value."""
    x = op["self"]
    dim = op.dim("dim", x.ndim)
    op.order(x, [dim], _LOOKED_UP)
    return op.like(x, {dim: op.held(x.axes[dim], x.shape[dim], _LOOKED_UP)})


@register_aten("index _unsafe_index")
def index(op: Operation):
    """Indices broadcast against each other and stand where the indexed dimensions stood."""
    x, looked_up = op["self"], _indexed(op)
    if _has_mask(op):
        return op.fix_all("places are chosen by a mask")
    op.order(x, looked_up, _LOOKED_UP)
    names, axes = op.broadcast([op["indices"][d] for d in looked_up])
    order = [d for d in range(x.ndim) if d not in looked_up]
    adjacent = looked_up == list(range(looked_up[0], looked_up[-1] + 1))
    front = looked_up[0] if adjacent else 0
    order[front:front] = names
    return op.result(order, {**axes, **dict(enumerate(x.axes))})


@register_aten("index_put")
def index_put(op: Operation):
    """Values written at looked-up places; other dimensions agree with the values'."""
    x, values, looked_up = op["self"], op["values"], _indexed(op)
    lead = len(looked_up)
    if _has_mask(op) or looked_up != list(range(lead)):
        return op.fix_all(_WRITTEN)
    rest = x.ndim - lead
    indices = (axis for d in looked_up for axis in op["indices"][d].axes)
    for axis in (*x.axes[:lead], *indices, *values.axes[: max(values.ndim - rest, 0)]):
        op.fix(axis, _LOOKED_UP)
    tails = (tensor.roles() for tensor in (x, values))
    axes = op.join(*({d: axis for d, axis in tail.items() if d >= -rest} for tail in tails))
    for d in looked_up:
        axes[d - x.ndim] = op.held(x.axes[d], x.shape[d], _LOOKED_UP)
    return op.result(range(-x.ndim, 0), axes)


@register_aten("gather take_along_dim")
def gather(op: Operation):
    """One place per index along a dimension."""
    x, places = op["self"], op.get("index", op.get("indices"))
    if op.get("dim") is None:
        return op.fix_all(_LOOKED_UP)
    dim = op.dim("dim", x.ndim)
    axes = _along(op, dim, x, places)
    return op.result(range(x.ndim), {**axes, dim: places.axes[dim] if places.ndim else UNIT})


@register_aten("scatter scatter_add scatter_reduce index_add index_copy")
def scatter(op: Operation):
    """Places along a dimension are written: one per index, or whole slices."""
    x = op["self"]
    dim = op.dim("dim", x.ndim)
    tensors = []
    for tensor in op.tensors:
        alike = tensor.ndim == x.ndim  # of slices the index is a vector
        if alike:
            tensors.append(tensor)
        for axis in tensor.axes[dim : dim + 1] if alike else tensor.axes:
            op.fix(axis, _LOOKED_UP)
    agreed = _along(op, dim, *tensors)
    sizes = {d: {tensor.shape[d] for tensor in tensors} for d in range(x.ndim)}
    axes = {
        d: op.held(x.axes[d], x.shape[d], _WRITTEN)
        if d == dim or len(sizes[d]) > 1
        else agreed.get(d)
        for d in range(x.ndim)
    }
    return op.result(range(x.ndim), axes)


def _along(op: Operation, dim: int, x: Labelled, *others: Labelled) -> dict:
    """Fix one dimension of x; the other dimensions agree, or are fixed where sizes differ."""
    if x.ndim:
        op.fix(x.axes[dim], _LOOKED_UP)
    operands = [tensor.roles(range(tensor.ndim)) for tensor in (x, *others)]
    for d in range(x.ndim):
        differs = len({tensor.shape[d] for tensor in (x, *others)}) > 1
        for roles in operands if d == dim or differs else ():
            axis = roles.pop(d, None)
            if d != dim:
                op.fix(axis, "only some places are used")
    axes = op.join(*operands)
    for d, size in enumerate(others[0].shape):
        if d != dim and d not in axes and size > 1:
            axes[d] = op.fresh(size, "only some places are used")
    return axes


@register_aten("bucketize searchsorted")
def searchsorted(op: Operation):
    """Every value on its own; boundaries are in order, for all alike or for each leading index."""
    boundaries, x = op.get("boundaries", op.get("sorted_sequence")), op["self"]
    if op.get("sorter") is not None:
        return op.fix_all("boundaries are in order")
    op.order(boundaries, [-1], "boundaries are in order")
    if not isinstance(x, Labelled):
        return op.result([], {})
    lead = boundaries.roles() if boundaries.ndim > 1 else {}
    lead.pop(-1, None)
    return op.result(range(-x.ndim, 0), op.join(x.roles(), lead))


@register_aten("isin")
def isin(op: Operation):
    """Every element on its own; the others are a set, which has no order."""
    elements = op.get("elements")
    return Labelled(elements.axes if elements is not None else (), op.shape())


@register_aten("one_hot")
def one_hot(op: Operation):
    """Classes are places."""
    return Labelled((*op["self"].axes, op.fresh(op.shape()[-1], "classes are places")), op.shape())


def _indexed(op: Operation) -> list[int]:
    """Return the dimensions for which an index is given."""
    return [d for d, entry in enumerate(op["indices"]) if entry is not None]


def _has_mask(op: Operation) -> bool:
    """Say whether an index is a boolean mask: its result has a shape that depends on data."""
    nodes = [entry for entry in op.node.args[1] if entry is not None]
    return any(node.meta["val"].dtype in (torch.bool, torch.uint8) for node in nodes)
