"""Steps that change shapes, cut, join, repeat, pad, pool and reduce."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.symmetry.fuzz._nets import Draw, Step, Unfit, kind


@kind("views")
def split_axis(draw: Draw, x, y):
    axis = draw.axis(x)
    sizes = draw.factors(x.shape[axis])
    return Step(lambda m, x, y: x.unflatten(axis, sizes))


@kind("views")
def flattened(draw: Draw, x, y):
    start = draw.axis(x)
    return Step(lambda m, x, y: x.flatten(start))


@kind("views")
def merged(draw: Draw, x, y):
    if x.ndim < 3:
        raise Unfit
    axis = draw.choice(range(1, x.ndim - 1))
    return Step(lambda m, x, y: x.flatten(axis, axis + 1))


@kind("views")
def permuted_axes(draw: Draw, x, y):
    order = [0, *(1 + d for d in draw.order(x.ndim - 1))]
    return Step(lambda m, x, y: x.permute(order))


@kind("views")
def odd_view(draw: Draw, x, y):
    """The numbers of a sample in another grid."""
    n = x[0].numel()
    first = draw.choice([d for d in range(1, n + 1) if n % d == 0])
    second = draw.choice([d for d in range(1, n // first + 1) if (n // first) % d == 0])
    how = draw.choice(("reshape", "view", "rows"))

    def run(m, x, y):
        if how == "view":
            return x.contiguous().view(-1, first, second, n // first // second)
        if how == "rows":
            return x.contiguous().view(x.shape[0], first, n // first)
        return x.reshape(len(x), first, -1)

    return Step(run)


@kind("views")
def unsqueezed(draw: Draw, x, y):
    axis = draw.axis(x)
    return Step(lambda m, x, y: x.unsqueeze(axis) if x.ndim < 5 else x.squeeze(axis))


@kind("views")
def shuffled_channels(draw: Draw, x, y):
    a, b = draw.factors(x.shape[1])
    return Step(lambda m, x, y: x.unflatten(1, (a, b)).transpose(1, 2).flatten(1, 2))


@kind("views")
def pixel_shuffled(draw: Draw, x, y):
    if x.ndim != 4:
        raise Unfit
    if draw.flag():
        return Step(
            lambda m, x, y: F.pixel_unshuffle(x.repeat_interleave(2, -1).repeat(1, 1, 2, 1), 2)
        )
    layer = nn.Conv2d(x.shape[1], 4 * draw.choice((1, 2)), 1)
    return Step(lambda m, x, y: F.pixel_shuffle(m.a(x), 2).tanh()[..., :4, :3], a=layer)


@kind("views")
def unfolded(draw: Draw, x, y):
    if x.ndim == 4 and draw.flag():
        return Step(lambda m, x, y: F.unfold(x, 2))
    axis, size, step = draw.axis(x), draw.choice((1, 2)), draw.choice((1, 2))
    return Step(lambda m, x, y: x.unfold(axis, size, step))


@kind("views")
def rows_as_samples(draw: Draw, x, y):
    """Samples and an axis are one for a while."""
    if x.ndim < 3:
        raise Unfit
    layer = nn.Linear(x.shape[-1], draw.size())
    return Step(lambda m, x, y: m.a(x.flatten(0, 1)).relu().unflatten(0, (-1, x.shape[1])), a=layer)


@kind("views")
def windows(draw: Draw, x, y):
    """An axis cut into windows that attend to themselves."""
    if x.ndim < 3 or x.shape[1] % 2:
        raise Unfit

    def run(m, x, y):
        h = x.unflatten(1, (-1, 2)).flatten(0, 1).flatten(2)
        h = (h @ h.transpose(1, 2)).softmax(-1) @ h
        return h.reshape(x.shape)

    return Step(run)


@kind("views")
def vmapped(draw: Draw, x, y):
    layer = nn.Linear(x.shape[-1], draw.size())
    return Step(lambda m, x, y: torch.vmap(m.a)(x), a=layer)


@kind("cuts and joins")
def halves(draw: Draw, x, y):
    axis = draw.axis(x)
    if x.shape[axis] % 2:
        raise Unfit
    how = draw.choice(("swap", "add", "multiply", "half", "max", "interleave"))

    def run(m, x, y):
        a, b = x.chunk(2, axis)
        if how == "interleave":
            return torch.stack([a, b], axis + 1).flatten(axis, axis + 1)
        return {
            "swap": lambda: torch.cat([b, a], axis),
            "add": lambda: a + b,
            "multiply": lambda: a * b.sigmoid(),
            "half": lambda: torch.cat([a.relu(), b], axis),
            "max": lambda: torch.maximum(a, b),
        }[how]()

    return Step(run)


@kind("cuts and joins")
def split_unevenly(draw: Draw, x, y):
    axis = draw.axis(x)
    if x.shape[axis] < 2:
        raise Unfit
    cut = draw.choice(range(1, x.shape[axis]))
    back, act = draw.flag(), draw.choice((torch.relu, torch.tanh, torch.sin))

    def run(m, x, y):
        a, b = x.split([cut, x.shape[axis] - cut], axis)
        return torch.cat([b, act(a)] if back else [act(a), b], axis)

    return Step(run)


@kind("cuts and joins")
def joined_to_itself(draw: Draw, x, y):
    axis, act = draw.axis(x), draw.choice((torch.relu, torch.neg, torch.tanh, torch.clone))
    if draw.flag():
        return Step(lambda m, x, y: torch.cat([x, act(x)], axis))
    return Step(lambda m, x, y: torch.stack([x, act(x)], axis))


@kind("cuts and joins")
def unbound(draw: Draw, x, y):
    axis = draw.axis(x)
    how = draw.choice(("sum", "product", "backwards", "running"))
    if x.ndim < 3 and how in ("sum", "product"):
        raise Unfit

    def run(m, x, y):
        parts = x.unbind(axis)
        if how == "backwards":
            return torch.stack(parts[::-1], axis)
        if how == "running":
            made = [parts[0]]
            for part in parts[1:]:
                made.append((made[-1] + part).tanh())
            return torch.stack(made, axis)
        total = parts[0]
        for part in parts[1:]:
            total = total + part if how == "sum" else total * part
        return total

    return Step(run)


@kind("cuts and joins")
def dense_block(draw: Draw, x, y):
    width, new = x.shape[-1], draw.size()
    parts = {"a": nn.Linear(width, new), "b": nn.Linear(width + new, new)}

    def run(m, x, y):
        h = torch.cat([x, m.a(x).relu()], -1)
        return torch.cat([h, m.b(h).relu()], -1) if h.shape[-1] < 12 else m.b(h)

    return Step(run, **parts)


@kind("cuts and joins")
def branches(draw: Draw, x, y):
    axis = draw.axis(x)
    parts = {"a": nn.Linear(x.shape[-1], 2), "b": nn.Linear(x.shape[-1], 2)}
    join = draw.choice((torch.cat, torch.stack))
    return Step(lambda m, x, y: join([m.a(x).relu(), m.b(x).tanh()], axis), **parts)


@kind("repeats")
def repeated(draw: Draw, x, y):
    axis, times = draw.axis(x), draw.choice((2, 3))
    how = draw.choice(("repeat", "interleave", "interleave_part", "expand", "tile"))
    sizes = [times if d == axis else 1 for d in range(x.ndim)]

    def run(m, x, y):
        if how == "repeat":
            return x.repeat(sizes)
        if how == "tile":
            return torch.tile(x, sizes)
        if how == "expand":
            h = x.unsqueeze(axis)
            return h.expand(*(times if d == axis else -1 for d in range(h.ndim))).flatten(
                axis, axis + 1
            )
        h = x.repeat_interleave(times, axis)
        return h if how == "interleave" else h + h.narrow(axis, 0, 1)

    return Step(run)


@kind("repeats")
def repeated_whole_and_part(draw: Draw, x, y):
    """What is repeated is read whole and in part."""
    axis = draw.axis(x)
    h = x.repeat_interleave(2, axis)
    stop = draw.choice(range(1, h.shape[axis]))
    layer = nn.Linear(h[0].numel(), draw.size())
    part = nn.Linear(h.narrow(axis, 0, stop)[0].numel(), layer.out_features)

    def run(m, x, y):
        h = x.repeat_interleave(2, axis)
        return m.a(h.flatten(1)) + m.b(h.narrow(axis, 0, stop).flatten(1))

    return Step(run, a=layer, b=part)


@kind("repeats")
def padded(draw: Draw, x, y):
    mode = draw.choice(("constant", "constant", "replicate", "reflect", "circular"))
    if mode == "constant":
        axis = draw.axis(x)
        pad = [0, 0] * (x.ndim - 1 - axis) + [draw.choice((0, 1)), draw.choice((0, 1, 2))]
        value = draw.choice((0.0, 1.0))
        return Step(lambda m, x, y: F.pad(x, pad, value=value))
    if x.ndim < 3:
        raise Unfit
    return Step(lambda m, x, y: F.pad(x, (1, 1), mode=mode))


@kind("repeats")
def padded_channels(draw: Draw, x, y):
    """A shortcut padded with zeros, and the sum grouped again."""
    n, more = x.shape[1], draw.choice((1, 2))
    pad = [0, 0] * (x.ndim - 2) + [more, more]
    layer = nn.Linear(x[0].numel(), (n + 2 * more) * x[0, 0].numel())

    def run(m, x, y):
        h = F.pad(x, pad)
        return h + m.a(x.flatten(1)).view(h.shape)

    return Step(run, a=layer)


_POOLS = {
    3: (F.max_pool1d, F.avg_pool1d, F.adaptive_avg_pool1d, F.adaptive_max_pool1d),
    4: (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d),
    5: (F.max_pool3d, F.avg_pool3d, F.adaptive_avg_pool3d, F.adaptive_max_pool3d),
}


@kind("pooling")
def pooled(draw: Draw, x, y):
    if x.ndim not in _POOLS:
        raise Unfit
    pool, size = draw.choice(_POOLS[x.ndim]), draw.choice((1, 2))
    return Step(lambda m, x, y: pool(x, size))


@kind("pooling")
def lp_pooled(draw: Draw, x, y):
    if x.ndim != 4:
        raise Unfit
    return Step(lambda m, x, y: F.lp_pool2d(x.abs() + 0.1, 2, 2))


@kind("pooling")
def resized(draw: Draw, x, y):
    if x.ndim not in (3, 4):
        raise Unfit
    mode = draw.choice(("nearest", "linear" if x.ndim == 3 else "bilinear"))
    return Step(lambda m, x, y: F.interpolate(x, scale_factor=2, mode=mode))


@kind("pooling")
def unpooled(draw: Draw, x, y):
    if x.ndim != 4:
        raise Unfit

    def run(m, x, y):
        h, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(h, places, 2, output_size=x.shape[-2:])

    return Step(run)


_REDUCTIONS = {
    "mean": lambda x, a, k: x.mean(a, k),
    "sum": lambda x, a, k: x.sum(a, k),
    "amax": lambda x, a, k: x.amax(a, k),
    "std": lambda x, a, k: x.std(a, keepdim=k),
    "logsumexp": lambda x, a, k: x.logsumexp(a, k),
    "prod": lambda x, a, k: x.prod(a, k),
    "norm": lambda x, a, k: torch.linalg.vector_norm(x, dim=a, keepdim=k),
    "median": lambda x, a, k: x.median(a, k).values,
    "max": lambda x, a, k: x.max(a, k).values,
    "quantile": lambda x, a, k: x.quantile(0.4, a, keepdim=k),
}


@kind("reductions")
def reduced(draw: Draw, x, y):
    axis, act, keep = draw.axis(x), _REDUCTIONS[draw.choice(_REDUCTIONS)], draw.flag()
    if x.ndim < 3 and not keep:
        raise Unfit
    return Step(lambda m, x, y: act(x, axis, keep))


@kind("reductions")
def compared_to_reduced(draw: Draw, x, y):
    axis, act = draw.axis(x), _REDUCTIONS[draw.choice(_REDUCTIONS)]
    how = draw.choice((torch.sub, torch.mul, torch.maximum))
    return Step(lambda m, x, y: how(x, act(x, axis, True)))


@kind("reductions")
def over_batch(draw: Draw, x, y):
    """What depends on all samples together."""
    return Step(lambda m, x, y: x - x.mean(0, keepdim=True))


@kind("index maps")
def diagonal(draw: Draw, x, y):
    how = draw.choice(("embed", "triu", "tril", "diff", "diagonal", "trace"))
    if how == "embed":
        return Step(lambda m, x, y: torch.diag_embed(x))
    if how == "diff":
        axis = draw.axis(x)
        return Step(lambda m, x, y: x.diff(dim=axis))
    if x.ndim < 3:
        raise Unfit
    if how == "diagonal":
        return Step(lambda m, x, y: x.diagonal(dim1=-2, dim2=-1))
    if how == "trace":
        return Step(lambda m, x, y: x * x.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None])
    return Step(lambda m, x, y: x.triu() if how == "triu" else x.tril())
