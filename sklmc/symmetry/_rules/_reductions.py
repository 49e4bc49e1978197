"""Operations that sum, average or take an extreme over dimensions."""

from __future__ import annotations

from sklmc.symmetry._algebra._leaves import UNIT
from sklmc.symmetry._rules._registry import Labelled, Operation, register_rule


@register_rule(
    "aten::sum",
    "aten::mean",
    "aten::amax",
    "aten::amin",
    "aten::aminmax",
    "aten::var",
    "aten::std",
    "aten::var_mean",
    "aten::std_mean",
    "aten::norm",
    "aten::linalg_vector_norm",
    "aten::any",
    "aten::all",
    "aten::prod",
    "aten::logsumexp",
    "aten::nansum",
    "aten::nanmean",
    "aten::count_nonzero",
    "aten::frobenius_norm",
    "aten::numel",
)
def reduce(op: Operation):
    """Drop the dimensions that are reduced; the order of summands does not count."""
    x = op.tensors[0]
    dims = op.get("dim")
    if isinstance(dims, int):
        dims = [dims]
    reduced = {d % max(x.ndim, 1) for d in dims} if dims else set(range(x.ndim))
    if isinstance(op.outputs, (list, tuple)):
        return [_without(op, x, reduced, index) for index in range(len(op.outputs))]
    return _without(op, x, reduced, None)


def _without(op: Operation, x: Labelled, reduced: set[int], index: int | None) -> Labelled:
    """Return the label of a reduced tensor, with or without the reduced dimensions."""
    shape = op.shape(index)
    if len(shape) == x.ndim:
        axes = [UNIT if d in reduced else axis for d, axis in enumerate(x.axes)]
    else:
        axes = [axis for d, axis in enumerate(x.axes) if d not in reduced]
    return Labelled(tuple(axes), shape)


@register_rule("aten::max", "aten::min", "aten::median", "aten::nanmedian", "aten::mode")
def extreme(op: Operation):
    """Over everything, between two tensors, or along a dimension with the place of the extreme."""
    x = op["self"]
    if op.get("other") is not None:
        other = op["other"]
        ndim = max(x.ndim, other.ndim)
        names = list(range(ndim))
        axes = op.join(x.roles(names[ndim - x.ndim :]), other.roles(names[ndim - other.ndim :]))
        return op.result(names, axes)
    if not isinstance(op.outputs, (list, tuple)):
        return _without(op, x, set(range(x.ndim)), None)
    dim = op.dim("dim", x.ndim)
    if uses(op, 1):
        op.fix(x.axes[dim], "the place of an extreme is used")
    return [_without(op, x, {dim}, index) for index in range(2)]


@register_rule("aten::quantile", "aten::nanquantile")
def quantile(op: Operation):
    """Dimensions are dropped as in a sum; several quantiles come first."""
    x, q, dim, shape = op["self"], op["q"], op.get("dim"), op.shape()
    reduced = set(range(x.ndim)) if dim is None else {dim % max(x.ndim, 1)}
    lead = q.axes if isinstance(q, Labelled) else ()
    kept = [UNIT if d in reduced else axis for d, axis in enumerate(x.axes)]
    if not op["keepdim"]:
        kept = [axis for d, axis in enumerate(kept) if d not in reduced]
    return Labelled((*lead, *kept), shape)


@register_rule("aten::argmax", "aten::argmin")
def place_of_extreme(op: Operation):
    """The result is a place: the dimension is fixed."""
    x = op["self"]
    dim = op.get("dim")
    reduced = set(range(x.ndim)) if dim is None else {dim % max(x.ndim, 1)}
    for d in reduced:
        op.fix(x.axes[d], "the place of an extreme is used")
    return _without(op, x, reduced, None)


@register_rule("aten::topk", "aten::sort", "aten::kthvalue", "aten::msort", "aten::argsort")
def ordered(op: Operation):
    """Values in order do not know where they came from; their places do."""
    x = op["self"]
    dim = op.get("dim")
    dim = (0 if op.name == "aten::msort" else -1) if dim is None else dim
    dim %= max(x.ndim, 1)
    op.mix(x, [dim])
    several = isinstance(op.outputs, (list, tuple))
    if op.name == "aten::argsort" or (several and uses(op, 1)):
        op.fix(x.axes[dim], "places in an order are used")
    if not several:
        return _ranked(op, x, dim, None)
    return [_ranked(op, x, dim, index) for index in range(2)]


def _ranked(op: Operation, x: Labelled, dim: int, index: int | None) -> Labelled:
    """Return the label of ranked values: the rank is fixed, the other dimensions are carried."""
    shape = op.shape(index)
    if len(shape) < x.ndim:
        return _without(op, x, {dim}, index)
    axes = list(x.axes)
    axes[dim] = op.fresh(shape[dim], "rank in an order")
    return Labelled(tuple(axes), shape)


def uses(op: Operation, index: int) -> bool:
    """Say whether the result at this index of a tuple is used."""
    return any(user.args[1] == index and user.users for user in op.node.users)
