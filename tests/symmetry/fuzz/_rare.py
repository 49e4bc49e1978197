"""Steps that few nets have: linear algebra, sharing across places, modes, old-fashioned calls."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, weight_norm
from torch.utils.checkpoint import checkpoint

from tests.symmetry.fuzz._layers import parameter
from tests.symmetry.fuzz._nets import Draw, Step, Unfit, kind


@kind("shared")
def shared_between(draw: Draw, x, y):
    """One layer at two places, with or without its norm."""
    width = x.shape[-1]
    parts = {"a": nn.Linear(width, width), "b": nn.Linear(width, width)}
    if draw.flag():
        parts["norm"] = nn.LayerNorm(width, eps=0.1)

        def run(m, x, y):
            return m.norm(m.a(m.norm(m.b(x).relu())) + x)

    else:

        def run(m, x, y):
            return m.a(x).relu() + m.a(m.b(x).tanh())

    return Step(run, **parts)


@kind("shared")
def shared_batch_norm(draw: Draw, x, y):
    n = x.shape[1]
    makes = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    if x.ndim not in makes:
        raise Unfit
    norm = makes[x.ndim](n, momentum=draw.choice((0.1, None)))
    return Step(lambda m, x, y: m.norm(m.norm(x).relu() - 0.3), norm=norm)


@kind("shared")
def siamese(draw: Draw, x, y):
    """One layer for both live tensors."""
    layer, turn = nn.Linear(x.shape[-1], draw.size()), nn.Linear(y.shape[-1], x.shape[-1])

    def run(m, x, y):
        other = m.a(m.turn(y)).flatten(1, -2).mean(1) if y.ndim > 2 else m.a(m.turn(y))
        return m.a(x).relu() * other.view(len(x), *(1,) * (x.ndim - 2), -1)

    return Step(run, a=layer, turn=turn)


@kind("shared")
def tied_embedding(draw: Draw, x, y):
    """Logits over a table, and what the table gives for them."""
    table, hard = nn.Embedding(draw.size(), x.shape[-1]), draw.flag()

    def run(m, x, y):
        logits = F.linear(x, m.table.weight)
        if hard:
            return x + m.table(logits.argmax(-1))
        return x + logits.softmax(-1) @ m.table.weight

    return Step(run, table=table)


@kind("shared")
def weight_in_two_roles(draw: Draw, x, y):
    """A square weight that is read by rows here and by columns there."""
    width = x.shape[-1]
    how = draw.choice(("both sides", "gram", "trace", "diagonal", "scaled", "row"))
    acts = {
        "both sides": lambda x, w: (x @ w).relu() @ w,
        "gram": lambda x, w: x @ (w @ w.t()),
        "trace": lambda x, w: x @ w * w.trace(),
        "diagonal": lambda x, w: x @ w + w.diagonal(),
        "scaled": lambda x, w: F.linear(x, w / w.norm(dim=1, keepdim=True)),
        "row": lambda x, w: x @ w + w[0],
    }
    return Step(lambda m, x, y: acts[how](x, m.w), w=parameter(width, width))


@kind("linear algebra")
def decomposed(draw: Draw, x, y):
    width = x.shape[-1]
    how = draw.choice(("inverse", "solve", "exponential", "power", "determinant", "pinv"))
    eye = torch.eye(width) * 4

    def run(m, x, y):
        w = m.w.tanh() + m.buffer
        return {
            "inverse": lambda: x @ torch.linalg.inv(w),
            "solve": lambda: torch.linalg.solve(w, x.flatten(0, -2).t()).t().reshape(x.shape),
            "exponential": lambda: x @ torch.matrix_exp((m.w - m.w.t()) / 8),
            "power": lambda: x @ torch.linalg.matrix_power(w / 5, 2),
            "determinant": lambda: x * torch.linalg.slogdet(w).logabsdet,
            "pinv": lambda: x @ torch.linalg.pinv(w),
        }[how]()

    return Step(run, w=parameter(width, width), buffer=eye)


@kind("linear algebra")
def distances(draw: Draw, x, y):
    """Distances to learned centres, and kernels of them."""
    n, act = draw.size(), draw.choice(("cdist", "by hand", "kernel", "product"))

    def run(m, x, y):
        h = x.flatten(1, -2) if x.ndim > 2 else x[:, None]
        return {
            "cdist": lambda: torch.cdist(h, m.p.expand(len(h), -1, -1)),
            "by hand": lambda: (h[:, :, None] - m.p).square().sum(-1),
            "kernel": lambda: (h[:, :, None] - m.p).square().mean(-1).neg().exp(),
            "product": lambda: F.cosine_similarity(h[:, :, None], m.p, -1, 0.1),
        }[act]()

    return Step(run, p=parameter(n, x.shape[-1]))


@kind("linear algebra")
def old_calls(draw: Draw, x, y):
    width, size = x.shape[-1], draw.size()
    how = draw.choice(("addmm", "tensordot", "baddbmm", "addcmul", "block_diag", "mv", "chain"))
    parts = {"w": parameter(width, size), "b": parameter(size), "v": parameter(size, size)}

    def run(m, x, y):
        flat = x.flatten(0, -2)
        h = {
            "addmm": lambda: torch.addmm(m.b, flat, m.w),
            "tensordot": lambda: torch.tensordot(flat, m.w, 1),
            "baddbmm": lambda: torch.baddbmm(m.b, flat[:, None], m.w.expand(len(flat), -1, -1))[
                :, 0
            ],
            "addcmul": lambda: torch.addcmul(m.b, flat @ m.w, m.b),
            "block_diag": lambda: (
                torch.cat([flat @ m.w] * 2, 1) @ torch.block_diag(m.v, m.v)[:, :size]
            ),
            "mv": lambda: flat @ m.w * torch.mv(flat, m.w[:, 0])[:, None],
            "chain": lambda: torch.linalg.multi_dot([flat, m.w, m.v]),
        }[how]()
        return h.view(*x.shape[:-1], size)

    return Step(run, **parts)


@kind("modes")
def wrapped(draw: Draw, x, y):
    """Layers within a mode of torch, or behind a wrapper."""
    width, how = x.shape[-1], draw.choice(("no_grad", "checkpoint", "sequential", "autocast"))
    layers = nn.Sequential(nn.Linear(width, draw.size()), nn.ReLU())

    def run(m, x, y):
        if how == "no_grad":
            with torch.no_grad():
                return m.a(x)
        if how == "checkpoint":
            return checkpoint(m.a, x, use_reentrant=False)
        if how == "autocast":
            with torch.autocast("cpu", enabled=False):
                return m.a(x)
        return m.a(x)

    return Step(run, a=layers)


@kind("modes")
def train_only(draw: Draw, x, y):
    """Train mode does more, and keeps an average of what it saw."""
    width = x.shape[-1]

    def run(m, x, y):
        if m.training:
            seen = x.detach().flatten(0, -2).mean(0)
            m.running_mean.mul_(0.9).add_(0.1 * seen)
        return x - m.running_mean

    return Step(run, running_mean=torch.zeros(width))


@kind("modes")
def modules_of_old(draw: Draw, x, y):
    """Modules in the place of functions, with sizes of their own."""
    a, b = draw.factors(x.shape[-1])
    fold = draw.choice(("unflatten", "softmax2d", "alpha", "bilinear", "shuffle"))
    if fold == "unflatten":
        return Step(
            lambda m, x, y: m.a(x), a=nn.Sequential(nn.Unflatten(-1, (a, b)), nn.Softmax(-2))
        )
    if fold == "alpha":
        return Step(lambda m, x, y: m.a(x), a=nn.Sequential(nn.AlphaDropout(0.0), nn.Softmax(-1)))
    if fold == "bilinear":
        return Step(lambda m, x, y: m.a(x[..., :a], x[..., a:]), a=nn.Bilinear(a, a * b - a, b))
    if x.ndim != 4:
        raise Unfit
    if fold == "softmax2d":
        return Step(lambda m, x, y: m.a(x), a=nn.Softmax2d())
    groups = draw.choice([g for g in (2, 3) if x.shape[1] % g == 0])
    return Step(lambda m, x, y: m.a(x), a=nn.ChannelShuffle(groups))


@kind("parametrised")
def orthogonal_weight(draw: Draw, x, y):
    width = x.shape[-1]
    layer = orthogonal(nn.Linear(width, width), orthogonal_map="matrix_exp")
    return Step(lambda m, x, y: m.a(x), a=layer)


@kind("parametrised")
def weight_normed_convolution(draw: Draw, x, y):
    if x.ndim != 4:
        raise Unfit
    n = x.shape[1]
    layer = nn.Conv2d(n, draw.size() * n, 1, groups=draw.choice((1, n)))
    return Step(lambda m, x, y: m.a(x).relu(), a=weight_norm(layer))


@kind("parametrised")
def standardised_convolution(draw: Draw, x, y):
    """A convolution whose weights are standardised, channel by channel."""
    if x.ndim != 4:
        raise Unfit
    layer = nn.Conv2d(x.shape[1], draw.size(), 2, padding=1)

    def run(m, x, y):
        w = m.a.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 0.1)
        return F.conv2d(x, w, m.a.bias)

    return Step(run, a=layer)


@kind("recurrent")
def time_first(draw: Draw, x, y):
    if x.ndim != 3:
        raise Unfit
    make, width = draw.choice((nn.RNN, nn.GRU, nn.LSTM)), draw.size()
    layer = make(x.shape[-1], width, bidirectional=draw.flag())
    return Step(lambda m, x, y: m.a(x.transpose(0, 1))[0].transpose(0, 1), a=layer)


@kind("pooling")
def folded(draw: Draw, x, y):
    if x.ndim != 4:
        raise Unfit
    size = x.shape[-2:]

    def run(m, x, y):
        patches = F.unfold(x, 2, padding=1)
        return F.fold(patches.softmax(1), size, 2, padding=1)

    return Step(run)
