"""Operations that sum, average or take an extreme over dimensions."""

from __future__ import annotations

from collections.abc import Collection

from sklmc.symmetry._algebra._leaves import UNIT
from sklmc.symmetry._rules._registry import Labelled, Operation, register_aten


@register_aten(
    "sum mean amax amin aminmax var std var_mean std_mean norm linalg_vector_norm any all prod "
    "logsumexp nansum nanmean count_nonzero frobenius_norm"
)
def reduce(op: Operation):
    """Drop the dimensions that are reduced; the order of summands does not count."""
    x = op.tensors[0]
    return op.each(lambda index: _without(op, x, op.dims(x), index))


def _without(op: Operation, x: Labelled, dims: Collection[int], index: int | None) -> Labelled:
    """Return the label of a reduced tensor, with or without the reduced dimensions."""
    shape = op.shape(index)
    return Labelled(_remaining(x, dims, keepdim=len(shape) == x.ndim), shape)


def _remaining(x: Labelled, dims: Collection[int], keepdim: bool) -> tuple:
    """Return the axes of x when some dimensions are reduced."""
    axes = enumerate(x.axes)
    return tuple(UNIT if d in dims else axis for d, axis in axes if keepdim or d not in dims)


@register_aten("max min median nanmedian mode")
def extreme(op: Operation):
    """Over everything, between two tensors, or along a dimension with the place of the extreme."""
    if op.get("other") is not None:
        return op.result(*op.broadcast(op.tensors))
    return place_of_extreme(op) if _tells_places(op) else reduce(op)


@register_aten("argmax argmin")
def place_of_extreme(op: Operation):
    """The result is a place: the dimension is fixed."""
    for d in op.dims(op["self"]):
        op.fix(op["self"].axes[d], "the place of an extreme is used")
    return reduce(op)


@register_aten("quantile nanquantile")
def quantile(op: Operation):
    """Dimensions are dropped as in a sum; several quantiles come first."""
    x, q = op["self"], op["q"]
    lead = q.axes if isinstance(q, Labelled) else ()
    return Labelled((*lead, *_remaining(x, op.dims(x), op["keepdim"])), op.shape())


@register_aten("topk sort kthvalue msort argsort")
def ordered(op: Operation):
    """Values in order do not know where they came from; their places do."""
    x = op["self"]
    dims = op.dims(x, default=[0] if op.name == "aten::msort" else None)
    op.mix(x, dims)
    if op.name == "aten::argsort" or _tells_places(op):
        for d in dims:
            op.fix(x.axes[d], "places in an order are used")

    def label(index):
        shape = op.shape(index)
        if len(shape) < x.ndim:  # one rank alone
            return _without(op, x, dims, index)
        return op.like(x, {d: op.fresh(shape[d], "rank in an order") for d in dims}, index)

    return op.each(label)


def _tells_places(op: Operation) -> bool:
    """Say whether values come with their places, in a second result, and these are used."""
    several = isinstance(op.outputs, (list, tuple))
    return several and any(user.args[1] == 1 and user.users for user in op.node.users)
