"""Steps that act along one axis: norms, softmax, sums that run, sorting, index maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.symmetry.fuzz._nets import Draw, Step, Unfit, kind


def _standardised(x, axis):
    return (x - x.mean(axis, keepdim=True)) / (x.std(axis, keepdim=True) + 0.5)


def _shared(x, axis):
    return x / (x.abs().sum(axis, keepdim=True) + 0.5)


def _layer_normed(x, axis):
    return F.layer_norm(x.movedim(axis, -1), x.shape[axis : axis + 1], eps=0.1).movedim(-1, axis)


def _rms_normed(x, axis):
    return F.rms_norm(x.movedim(axis, -1), x.shape[axis : axis + 1], eps=0.1).movedim(-1, axis)


def _group_normed(x, axis):
    return F.group_norm(x.movedim(axis, 1), 1, eps=0.1).movedim(1, axis)


def _group_normed_each(x, axis):
    return F.group_norm(x.movedim(axis, 1), x.shape[axis], eps=0.1).movedim(1, axis)


def _instance_normed(x, axis):
    return F.instance_norm(x.flatten(1)[:, None], eps=0.1).view(x.shape) + x.amax(axis, True)


def _batch_normed(x, axis):
    return F.batch_norm(x.movedim(axis, 1), None, None, training=True).movedim(1, axis)


ALONG = {
    "softmax": lambda x, a: x.softmax(a),
    "log_softmax": lambda x, a: x.log_softmax(a),
    "softmin": lambda x, a: F.softmin(x, a),
    "normalize": lambda x, a: F.normalize(x, dim=a, eps=0.1),
    "normalize_1": lambda x, a: F.normalize(x, p=1, dim=a, eps=0.1),
    "cumsum": lambda x, a: x.cumsum(a),
    "cumprod": lambda x, a: x.tanh().cumprod(a),
    "logcumsumexp": lambda x, a: x.logcumsumexp(a),
    "cummax": lambda x, a: x.cummax(a).values,
    "sort": lambda x, a: x.sort(a).values,
    "standardise": _standardised,
    "share": _shared,
    "layer_norm": _layer_normed,
    "rms_norm": _rms_normed,
    "group_norm": _group_normed,
    "group_norm_each": _group_normed_each,
    "instance_norm": _instance_normed,
    "batch_norm": _batch_normed,
    "less_max": lambda x, a: x - x.amax(a, True),
    "less_mean": lambda x, a: x - x.mean(a, True),
    "less_logsumexp": lambda x, a: x - x.logsumexp(a, True),
    "ranks": lambda x, a: x * x.argsort(a).argsort(a).to(x.dtype),
    "renorm": lambda x, a: x.renorm(2, a, 1.5),
    "less_median": lambda x, a: x - x.median(a, True).values,
    "local_response": lambda x, a: F.local_response_norm(x.movedim(a, 1), 3).movedim(1, a),
    "median_of": lambda x, a: x.quantile(0.3, a, keepdim=True) + x,
}


@kind("along an axis")
def along(draw: Draw, x, y):
    axis, act = draw.choice(range(x.ndim)), ALONG[draw.choice(ALONG)]
    return Step(lambda m, x, y: act(x, axis))


@kind("along an axis under a view")
def along_in_view(draw: Draw, x, y):
    """An axis is cut in two, and one of the two is normalised over (or both, in turn)."""
    axis = draw.axis(x)
    sizes, inner, act = draw.factors(x.shape[axis]), draw.choice((0, 1)), ALONG[draw.choice(ALONG)]
    back = draw.flag()

    def run(m, x, y):
        h = act(x.unflatten(axis, sizes), axis + inner)
        return h.flatten(axis, axis + 1) if back else h

    return Step(run)


@kind("a grid of units")
def linear_along_in_view(draw: Draw, x, y):
    """A layer makes a grid of units, and one of its sides is normalised over."""
    a, b = draw.choice((2, 3, 3, 4)), draw.choice((2, 2, 3, 3, 4))
    inner, act = draw.choice((1, 2)), ALONG[draw.choice(ALONG)]
    layer = nn.Linear(x[0].numel(), a * b)
    return Step(lambda m, x, y: act(m.a(x.flatten(1)).view(-1, a, b), inner), a=layer)


@kind("along an axis under a view")
def normed_in_view(draw: Draw, x, y):
    """Norms with and without weights, over trailing axes of a grid of units."""
    axis = draw.axis(x)
    a, b = draw.factors(x.shape[axis])
    shape = draw.choice([(b,), (a, b)])
    make = draw.choice((nn.LayerNorm, nn.RMSNorm))
    norm = make(shape, eps=0.1, elementwise_affine=draw.flag())

    def run(m, x, y):
        h = x.movedim(axis, -1)
        return m.norm(h.unflatten(-1, (a, b))).flatten(-2).movedim(-1, axis)

    return Step(run, norm=norm)


@kind("norms")
def batch_norm(draw: Draw, x, y):
    makes = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    if x.ndim not in makes:
        raise Unfit
    options = {
        "affine": draw.flag(),
        "track_running_stats": draw.choice((True, True, False)),
        "momentum": draw.choice((0.1, None)),
    }
    return Step(lambda m, x, y: m.norm(x), norm=makes[x.ndim](x.shape[1], **options))


@kind("norms")
def batch_norm_along(draw: Draw, x, y):
    axis = draw.axis(x)
    norm = nn.BatchNorm1d(x.shape[axis], affine=draw.flag(), momentum=draw.choice((0.1, None)))

    def run(m, x, y):
        h = x.movedim(axis, -1)
        return m.norm(h.flatten(0, -2)).view(h.shape).movedim(-1, axis)

    return Step(run, norm=norm)


@kind("norms")
def layer_norm(draw: Draw, x, y):
    start = draw.axis(x)
    norm = nn.LayerNorm(x.shape[start:], eps=0.1, elementwise_affine=draw.flag())
    return Step(lambda m, x, y: m.norm(x), norm=norm)


@kind("norms")
def rms_norm(draw: Draw, x, y):
    start = draw.axis(x)
    norm = nn.RMSNorm(x.shape[start:], eps=0.1, elementwise_affine=draw.flag())
    return Step(lambda m, x, y: m.norm(x), norm=norm)


@kind("norms")
def group_norm(draw: Draw, x, y):
    n = x.shape[1]
    groups = draw.choice([g for g in range(1, n + 1) if n % g == 0])
    norm = nn.GroupNorm(groups, n, eps=0.1, affine=draw.flag())
    return Step(lambda m, x, y: m.norm(x), norm=norm)


@kind("norms")
def instance_norm(draw: Draw, x, y):
    makes = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}
    if x.ndim not in makes:
        raise Unfit
    options = {"affine": draw.flag(), "track_running_stats": draw.flag(), "eps": 0.1}
    return Step(lambda m, x, y: m.norm(x), norm=makes[x.ndim](x.shape[1], **options))


@kind("norms")
def normed_block(draw: Draw, x, y):
    """A residual block as transformers and their kin have it."""
    width, hidden, first = x.shape[-1], draw.size(), draw.flag()
    norm = draw.choice((nn.LayerNorm, nn.RMSNorm))(width, eps=0.1)
    parts = {"norm": norm, "a": nn.Linear(width, hidden), "b": nn.Linear(hidden, width)}

    def run(m, x, y):
        return x + m.b(m.a(m.norm(x)).relu()) if first else m.norm(x + m.b(m.a(x).relu()))

    return Step(run, **parts)


@kind("index maps")
def selected(draw: Draw, x, y):
    axis = draw.axis(x)
    index = torch.tensor([draw.choice(range(x.shape[axis])) for _ in range(draw.size())])
    return Step(lambda m, x, y: x.index_select(axis, m.index), index=index)


@kind("index maps")
def flipped(draw: Draw, x, y):
    axis, how = draw.axis(x), draw.choice(("flip", "flip_add", "roll", "roll_add"))
    moved = (lambda x: x.flip(axis)) if "flip" in how else (lambda x: x.roll(1, axis))
    return Step((lambda m, x, y: x + moved(x)) if "add" in how else (lambda m, x, y: moved(x)))


@kind("index maps")
def permuted(draw: Draw, x, y):
    axis = draw.axis(x)
    order = draw.order(x.shape[axis])
    sum_too = draw.flag()

    def run(m, x, y):
        moved = x.transpose(0, axis)[order].transpose(0, axis)
        return x + moved if sum_too else moved

    return Step(run)


@kind("index maps")
def gathered(draw: Draw, x, y):
    axis = draw.axis(x)
    index = torch.tensor(draw.order(x.shape[axis]))
    shape = [-1 if d == axis else 1 for d in range(x.ndim)]
    return Step(lambda m, x, y: x.gather(axis, m.index.view(shape).expand_as(x)), index=index)


@kind("index maps")
def sorted_by(draw: Draw, x, y):
    axis, other = draw.axis(x), draw.flag()

    def run(m, x, y):
        order = x.argsort(axis)
        return x.take_along_dim(order, axis) * (x if other else 1)

    return Step(run)


@kind("index maps")
def top(draw: Draw, x, y):
    axis = draw.axis(x)
    k = draw.choice(range(1, x.shape[axis] + 1))
    what = draw.choice(("values", "mask", "kth", "gathered"))

    def run(m, x, y):
        found = x.topk(k, axis)
        if what == "values":
            return found.values
        if what == "mask":
            return x.masked_fill(x < found.values.amin(axis, True), 0.0)
        if what == "kth":
            return x - x.kthvalue(k, axis, keepdim=True).values
        return x.sin().gather(axis, found.indices)

    return Step(run)


@kind("index maps")
def argmax(draw: Draw, x, y):
    axis, what = draw.axis(x), draw.choice(("one_hot", "embedding", "mask"))
    if what == "embedding":
        table = nn.Embedding(x.shape[axis], draw.size())
        return Step(lambda m, x, y: m.table(x.argmax(axis)), table=table)
    if what == "mask":
        return Step(lambda m, x, y: x * (x == x.amax(axis, True)))
    size = x.shape[axis]
    return Step(lambda m, x, y: F.one_hot(x.argmax(axis), size).to(x.dtype).movedim(-1, axis) * x)


@kind("index maps")
def cut_by_hand(draw: Draw, x, y):
    axis = draw.axis(x)
    start = draw.choice(range(x.shape[axis]))
    step = draw.choice((1, 1, 2))
    place = (slice(None),) * axis
    return Step(lambda m, x, y: x[(*place, slice(start, None, step))])


@kind("index maps")
def one_chosen(draw: Draw, x, y):
    axis = draw.axis(x)
    index = draw.choice(range(x.shape[axis]))
    if draw.flag():
        return Step(lambda m, x, y: x * x.narrow(axis, index, 1))
    if x.ndim < 3:
        raise Unfit
    return Step(lambda m, x, y: x.select(axis, index))
