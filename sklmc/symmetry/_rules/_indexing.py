"""Look-ups: the axis that is looked up is fixed, the others are carried."""

from __future__ import annotations

import torch

from sklmc.symmetry._algebra._leaves import UNIT
from sklmc.symmetry._rules._position import everything_fixed
from sklmc.symmetry._rules._registry import Labelled, Operation, register_rule

_LOOKED_UP = "rows are looked up"


@register_rule("aten::embedding")
def embedding(op: Operation):
    """Rows of a table by index."""
    weight, indices = op["weight"], op["indices"]
    op.order(weight, [0], _LOOKED_UP)
    return Labelled((*indices.axes, weight.axes[1]), op.shape())


@register_rule("aten::embedding_bag", "aten::_embedding_bag")
def embedding_bag(op: Operation):
    """Rows of a table by index, summed per bag; bags and indices are fixed."""
    weight = op["weight"]
    for tensor in op.tensors:
        op.order(tensor, range(1 if tensor is weight else tensor.ndim), _LOOKED_UP)
    bags, features = op.shape(0)
    result = Labelled((op.fresh(bags, _LOOKED_UP), weight.axes[1]), (bags, features))
    return [result, *(op.fixed(_LOOKED_UP, index) for index in range(1, len(op.outputs)))]


@register_rule("aten::index_select")
def index_select(op: Operation):
    """Places of one dimension by index."""
    x, index = op["self"], op["index"]
    dim = op.dim("dim", x.ndim)
    op.order(x, [dim], _LOOKED_UP)
    axes = list(x.axes)
    axes[dim] = index.axes[0] if index.ndim else UNIT
    return Labelled(tuple(axes), op.shape())


@register_rule("aten::index", "aten::_unsafe_index")
def index(op: Operation):
    """Indices broadcast against each other and stand where the indexed dimensions stood."""
    x, indices = op["self"], op["indices"]
    if _has_mask(op):
        return everything_fixed(op, "places are chosen by a mask")
    looked_up = [d for d, entry in enumerate(indices) if entry is not None]
    op.order(x, looked_up, _LOOKED_UP)
    given = [indices[d] for d in looked_up]
    ndim = max(entry.ndim for entry in given)
    names = [("index", d) for d in range(ndim)]
    axes = op.join(*(entry.roles(names[ndim - entry.ndim :]) for entry in given))
    rest = [d for d in range(x.ndim) if d not in looked_up]
    adjacent = looked_up == list(range(looked_up[0], looked_up[-1] + 1))
    front = looked_up[0] if adjacent else 0
    order: list = list(rest)
    order[front:front] = names
    axes = {**axes, **{d: x.axes[d] for d in rest}}
    return op.result(order, axes)


@register_rule("aten::index_put")
def index_put(op: Operation):
    """Values written at looked-up places; other dimensions agree with the values'."""
    x, indices, values = op["self"], op["indices"], op["values"]
    looked_up = [d for d, entry in enumerate(indices) if entry is not None]
    leading = looked_up == list(range(len(looked_up)))
    if _has_mask(op) or not leading:
        return everything_fixed(op, "places are written by index")
    for d in looked_up:
        op.fix(x.axes[d], _LOOKED_UP)
    for entry in (indices[d] for d in looked_up):
        for axis in entry.axes:
            op.fix(axis, _LOOKED_UP)
    rest = list(range(len(looked_up), x.ndim))
    last = values.ndim - len(rest)
    for axis in values.axes[: max(last, 0)]:
        op.fix(axis, _LOOKED_UP)
    tail = Labelled(values.axes[max(last, 0) :], values.shape[max(last, 0) :])
    roles = {d: x.axes[d] for d in rest if x.shape[d] > 1}
    axes = op.join(roles, tail.roles(rest[max(-last, 0) :]))
    for d in looked_up:
        axes[d] = op.held(x.axes[d], x.shape[d], _LOOKED_UP)
    return op.result(range(x.ndim), axes)


@register_rule("aten::index_add", "aten::index_copy")
def index_add(op: Operation):
    """Slices added at looked-up places of one dimension."""
    x, source = op["self"], op["source"]
    dim = op.dim("dim", x.ndim)
    for tensor in (x, source, op["index"]):
        axis = tensor.axes[dim] if tensor.ndim == x.ndim else tensor.axes[0]
        op.fix(axis, _LOOKED_UP)
    roles, others = x.roles(range(x.ndim)), source.roles(range(x.ndim))
    roles.pop(dim, None)
    others.pop(dim, None)
    axes = op.join(roles, others)
    return op.result(range(x.ndim), {**axes, dim: op.fresh(x.shape[dim], _LOOKED_UP)})


@register_rule("aten::gather", "aten::take_along_dim")
def gather(op: Operation):
    """One place per index along a dimension."""
    x, places = op["self"], op.get("index", op.get("indices"))
    if op.get("dim") is None:
        return everything_fixed(op, _LOOKED_UP)
    dim = op.dim("dim", x.ndim)
    axes = _along(op, dim, x, places)
    return op.result(range(x.ndim), {**axes, dim: places.axes[dim] if places.ndim else UNIT})


@register_rule("aten::scatter", "aten::scatter_add", "aten::scatter_reduce")
def scatter(op: Operation):
    """One place per index along a dimension is written."""
    x, places, source = op["self"], op["index"], op.get("src")
    dim = op.dim("dim", x.ndim)
    tensors = [x, places] + ([source] if isinstance(source, Labelled) else [])
    for tensor in tensors:
        if tensor.ndim:
            op.fix(tensor.axes[dim], _LOOKED_UP)
    agreed = _along(op, dim, *tensors)
    kind = "places are written by index"
    sizes = {d: {tensor.shape[d] for tensor in tensors} for d in range(x.ndim)}
    axes = {
        d: op.held(x.axes[d], x.shape[d], kind) if d == dim or len(sizes[d]) > 1 else agreed.get(d)
        for d in range(x.ndim)
    }
    return op.result(range(x.ndim), axes)


def _along(op: Operation, dim: int, x: Labelled, *others: Labelled) -> dict:
    """Fix one dimension of x; the other dimensions agree, or are fixed where sizes differ."""
    if x.ndim:
        op.fix(x.axes[dim], _LOOKED_UP)
    operands = []
    for tensor in (x, *others):
        roles = tensor.roles(range(tensor.ndim))
        roles.pop(dim, None)
        operands.append(roles)
    for d in range(x.ndim):
        sizes = {tensor.shape[d] for tensor in (x, *others)}
        if d != dim and len(sizes) > 1:
            for roles in operands:
                op.fix(roles.pop(d, None), "only some places are used")
    axes = op.join(*operands)
    for d, size in enumerate(others[0].shape):
        if d != dim and d not in axes and size > 1:
            axes[d] = op.fresh(size, "only some places are used")
    return axes


@register_rule("aten::bucketize")
def bucketize(op: Operation):
    """Every value on its own; boundaries are in order."""
    op.order(op["boundaries"], [0], "boundaries are in order")
    x = op["self"]
    return Labelled(x.axes if isinstance(x, Labelled) else (), op.shape())


@register_rule("aten::searchsorted")
def searchsorted(op: Operation):
    """As `bucketize`, with one row of boundaries for all or one for each leading index."""
    boundaries, x = op["sorted_sequence"], op["self"]
    if op.get("sorter") is not None:
        return everything_fixed(op, "boundaries are in order")
    op.order(boundaries, [-1], "boundaries are in order")
    if not isinstance(x, Labelled):
        return op.result([], {})
    names = list(range(x.ndim))
    lead = boundaries.roles([*names[:-1], "place"]) if boundaries.ndim > 1 else {}
    lead.pop("place", None)
    return op.result(names, op.join(x.roles(names), lead))


@register_rule("aten::isin")
def isin(op: Operation):
    """Every element on its own; the others are a set, which has no order."""
    elements = op.get("elements")
    return Labelled(elements.axes if elements is not None else (), op.shape())


@register_rule("aten::index_fill")
def index_fill(op: Operation):
    """Looked-up places of one dimension get one value."""
    x = op["self"]
    dim = op.dim("dim", x.ndim)
    op.order(x, [dim], _LOOKED_UP)
    axes = dict(enumerate(x.axes))
    axes[dim] = op.held(x.axes[dim], x.shape[dim], _LOOKED_UP)
    return op.result(range(x.ndim), axes)


@register_rule("aten::one_hot")
def one_hot(op: Operation):
    """Classes are places."""
    return Labelled((*op["self"].axes, op.fresh(op.shape()[-1], "classes are places")), op.shape())


def _has_mask(op: Operation) -> bool:
    """Say whether an index is a boolean mask: its result has a shape that depends on data."""
    nodes = [entry for entry in op.node.args[1] if entry is not None]
    return any(node.meta["val"].dtype in (torch.bool, torch.uint8) for node in nodes)
