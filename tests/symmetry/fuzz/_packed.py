"""Steps whose units lie in packs: projections cut into parts, heads treated unlike, regrouping."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.symmetry.fuzz._axes import ALONG
from tests.symmetry.fuzz._layers import parameter
from tests.symmetry.fuzz._nets import Draw, Step, Unfit, kind

_ACTS = (torch.relu, torch.tanh, torch.sin, torch.sigmoid, torch.neg, torch.clone)


@kind("packed")
def heads_unlike(draw: Draw, x, y):
    """One layer makes several heads; each is treated in its own way, some may be left out."""
    n, width = draw.choice((2, 3, 4)), draw.choice((2, 3))
    acts = [draw.choice(_ACTS) for _ in range(draw.choice(range(1, n + 1)))]
    how = draw.choice(("cat", "stack", "sum", "matrix"))
    inner_first = draw.flag()

    def run(m, x, y):
        h = m.a(x).unflatten(-1, (width, n) if inner_first else (n, width))
        parts = [act(h.select(-1 if inner_first else -2, k)) for k, act in enumerate(acts)]
        if how == "sum":
            return sum(parts)
        if how == "matrix" and len(parts) > 1:
            return parts[0][..., None] * parts[1][..., None, :]
        return torch.stack(parts, -2) if how == "stack" else torch.cat(parts, -1)

    return Step(run, a=nn.Linear(x.shape[-1], n * width))


@kind("packed")
def thirds(draw: Draw, x, y):
    """A projection cut into three, and the parts combined in unlike ways."""
    width, over = draw.size(), draw.choice((-1, -1, 1))
    how = draw.choice(("gate", "distance", "minmax", "reversed", "swapped", "two"))
    act = ALONG[draw.choice(ALONG)]

    def run(m, x, y):
        a, b, c = m.a(x).chunk(3, -1)
        over_axis = over % x.ndim
        return {
            "gate": lambda: a * act(b, over_axis) + c,
            "distance": lambda: (a - b).square() + act(c, over_axis),
            "minmax": lambda: torch.minimum(a, torch.maximum(b, c)),
            "reversed": lambda: a + b.flip(-1) * c,
            "swapped": lambda: torch.cat([c, act(a, over_axis), b], -1),
            "two": lambda: torch.cat([a * b, act(c, over_axis)], -1),
        }[how]()

    return Step(run, a=nn.Linear(x.shape[-1], 3 * width))


@kind("packed")
def weight_in_parts(draw: Draw, x, y):
    """Parts of one weight are layers of their own."""
    width, size = x.shape[-1], draw.size()
    how = draw.choice(("rows", "uneven", "strided", "row by row", "stacked", "columns"))
    cut = draw.choice(range(1, 2 * size))

    def run(m, x, y):
        w = m.w
        if how == "rows":
            return F.linear(x, w[:size]).relu() * F.linear(x, w[size:])
        if how == "uneven":
            return torch.cat([F.linear(x, w[cut:]).relu(), F.linear(x, w[:cut])], -1)
        if how == "strided":
            return F.linear(x, w[::2]).relu() + F.linear(x, w[1::2])
        if how == "row by row":
            return torch.stack([F.linear(x, w[k : k + 1])[..., 0] for k in (0, 1)], -1)
        if how == "stacked":
            a, b = w.view(2, size, width).unbind(0)
            return F.linear(x, a).tanh() - F.linear(x, b)
        part = width // 2
        return F.linear(x[..., :part], w[:, :part]) * F.linear(x[..., part:], w[:, part:]).sin()

    return Step(run, w=parameter(2 * size, width))


@kind("packed")
def stack_of_weights(draw: Draw, x, y):
    """Layers in one tensor, taken by number, or by a softmax over all of them."""
    n, width = draw.choice((2, 3)), x.shape[-1]
    how = draw.choice(("in turn", "first", "mixed", "all", "sum", "paired"))

    def run(m, x, y):
        if how == "in turn":
            for k in range(n):
                x = (x @ m.w[k]).tanh()
            return x
        if how == "first":
            return x @ m.w[0] + (x @ m.w[1]).relu()
        if how == "mixed":
            mixture = m.gate.softmax(0)
            return x @ torch.einsum("n,nij->ij", mixture, m.w)
        if how == "all":
            return torch.einsum("...i,nij->...nj", x, m.w)
        if how == "sum":
            return x @ m.w.sum(0)
        return torch.einsum("...i,nij,nkj->...nk", x, m.w, m.w).sum(-2)

    return Step(run, w=parameter(n, width, width), gate=parameter(n))


@kind("packed")
def scaled_heads(draw: Draw, x, y):
    """Heads with gains for each head, each place within it, or both; then a norm of some kind."""
    n, width = draw.choice((2, 3)), draw.choice((2, 3, 4))
    shape = draw.choice([(n, width), (n, 1), (1, width)])
    act, inner = ALONG[draw.choice(ALONG)], draw.choice((1, 2))
    swap = draw.flag()

    def run(m, x, y):
        h = m.a(x).unflatten(-1, (n, width)) * m.p
        axis = h.ndim - inner
        h = act(h, axis)
        return h.transpose(-1, -2).flatten(-2) if swap else h.flatten(-2)

    return Step(run, a=nn.Linear(x.shape[-1], n * width), p=parameter(*shape))


@kind("packed")
def channels_regrouped(draw: Draw, x, y):
    """Channels of two layers, or padded ones, in groups that do not ask where they come from."""
    if x.ndim != 4:
        raise Unfit
    n, a, b = x.shape[1], draw.choice((1, 2, 3, 4)), draw.choice((1, 2, 3, 4))
    made = draw.choice(("joined", "padded", "repeated", "shuffled"))
    total = {"joined": a + b, "padded": n + 2, "repeated": 2 * n, "shuffled": 2 * n}[made]
    groups = draw.choice([g for g in range(1, total + 1) if total % g == 0])
    then = draw.choice(("convolution", "norm", "depth", "view"))
    parts = {"a": nn.Conv2d(n, a, 1), "b": nn.Conv2d(n, b, 1)}
    if then in ("convolution", "depth"):
        parts["c"] = nn.Conv2d(total, total if then == "depth" else groups * 2, 1, groups=groups)
    else:
        parts["c"] = nn.GroupNorm(groups, total, eps=0.1, affine=draw.flag())

    def run(m, x, y):
        if made == "joined":
            h = torch.cat([m.a(x).relu(), m.b(x).tanh()], 1)
        elif made == "padded":
            h = F.pad(x, (0, 0, 0, 0, 1, 1))
        elif made == "repeated":
            h = x.repeat_interleave(2, 1)
        else:
            h = torch.stack([x, x.sin()], 2).flatten(1, 2)
        h = m.c(h)
        if then == "view" and h.shape[1] % 2 == 0:
            return h.unflatten(1, (2, -1)).amax(1)
        return h

    return Step(run, **parts)


@kind("packed")
def nested_views(draw: Draw, x, y):
    """A grid of three sides, turned, flattened in part, and normalised over."""
    sizes = [draw.choice((2, 3)), draw.choice((2, 2, 3)), draw.choice((1, 2, 3))]
    order = [1 + d for d in draw.order(3)]
    start, act = draw.choice((1, 2, 3)), ALONG[draw.choice(ALONG)]
    stop = draw.choice(range(start, 4))
    layer = nn.Linear(x[0].numel(), sizes[0] * sizes[1] * sizes[2])

    def run(m, x, y):
        h = m.a(x.flatten(1)).view(-1, *sizes).permute(0, *order)
        return act(h.flatten(start, stop), start).flatten(1)

    return Step(run, a=layer)


@kind("packed")
def mixed_tokens(draw: Draw, x, y):
    """A mixer: layers along tokens and along features in turn, with norms of either."""
    if x.ndim != 3:
        raise Unfit
    t, d, hidden = x.shape[1], x.shape[2], draw.size()
    parts = {
        "up": nn.Linear(t, hidden),
        "down": nn.Linear(hidden, t),
        "b": nn.Linear(d, d),
        "norm": nn.LayerNorm(draw.choice((d, (t, d))), eps=0.1, elementwise_affine=draw.flag()),
    }

    def run(m, x, y):
        h = x + m.down(m.up(m.norm(x).transpose(1, 2)).relu()).transpose(1, 2)
        return h + m.b(m.norm(h)).tanh()

    return Step(run, **parts)
