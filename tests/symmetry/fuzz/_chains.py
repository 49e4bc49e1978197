"""Steps of which it is known what they leave free: none of these may freeze a unit.

Units lie along the last axis of vectors and sequences, and along axis 1 of images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from tests.symmetry.fuzz._nets import CHAINS, Draw, Step, Unfit, kind
from tests.symmetry.fuzz._values import POINTWISE


def _axis(x: torch.Tensor) -> int:
    return 1 if x.ndim == 4 else x.ndim - 1


def _layer(x: torch.Tensor, size: int) -> nn.Module:
    """A layer along the axis of the units."""
    return nn.Conv2d(x.shape[1], size, 1) if x.ndim == 4 else nn.Linear(x.shape[-1], size)


@kind("layers", CHAINS)
def linear(draw: Draw, x, y):
    size, act = draw.size(), POINTWISE[draw.choice(POINTWISE)]
    return Step(lambda m, x, y: act(m.a(x)), [(size, 1)], a=_layer(x, size))


@kind("layers", CHAINS)
def normed_weight(draw: Draw, x, y):
    size = draw.size()
    layer = draw.choice((weight_norm, spectral_norm))(_layer(x, size))
    return Step(lambda m, x, y: m.a(x).relu(), [(size, 1)], a=layer)


@kind("layers", CHAINS)
def convolved(draw: Draw, x, y):
    if x.ndim != 4:
        raise Unfit
    size, make = draw.size(), draw.choice((nn.Conv2d, nn.ConvTranspose2d))
    return Step(lambda m, x, y: m.a(x).relu(), [(size, 1)], a=make(x.shape[1], size, 3, padding=1))


@kind("layers", CHAINS)
def residual(draw: Draw, x, y):
    size = draw.size()
    parts = {"a": _layer(x, size)}
    parts["b"] = nn.Conv2d(size, x.shape[1], 1) if x.ndim == 4 else nn.Linear(size, x.shape[-1])
    return Step(lambda m, x, y: x + m.b(m.a(x).relu()), [(size, 1)], **parts)


@kind("layers", CHAINS)
def joined_branches(draw: Draw, x, y):
    a, b, c, axis = draw.size(), draw.size(), draw.size(), _axis(x)
    out = nn.Conv2d(a + b, c, 1) if x.ndim == 4 else nn.Linear(a + b, c)
    join = torch.hstack if axis == 1 and draw.flag() else lambda parts: torch.cat(parts, axis)

    def run(m, x, y):
        return m.out(join([m.a(x).relu(), m.b(x).tanh()]))

    return Step(run, [(a, 1), (b, 1), (c, 1)], a=_layer(x, a), b=_layer(x, b), out=out)


@kind("layers", CHAINS)
def gate(draw: Draw, x, y):
    return Step(lambda m, x, y: x * m.a(x).sigmoid(), a=_layer(x, x.shape[_axis(x)]))


@kind("layers", CHAINS)
def squeeze_excite(draw: Draw, x, y):
    if x.ndim != 4:
        raise Unfit
    size, n = draw.size(), x.shape[1]
    parts = {"a": nn.Linear(n, size), "b": nn.Linear(size, n)}

    def run(m, x, y):
        return x * m.b(m.a(x.mean((2, 3))).relu()).sigmoid()[..., None, None]

    return Step(run, [(size, 1)], **parts)


@kind("layers", CHAINS)
def depthwise(draw: Draw, x, y):
    if x.ndim != 4:
        raise Unfit
    n = x.shape[1]
    return Step(lambda m, x, y: m.a(x), a=nn.Conv2d(n, n, 3, padding=1, groups=n))


@kind("sequences", CHAINS)
def recurrent(draw: Draw, x, y):
    if x.ndim != 3:
        raise Unfit
    make, size, layers = draw.choice((nn.RNN, nn.LSTM, nn.GRU)), draw.size(), draw.choice((1, 2))
    both = draw.flag()
    units = [(size, 1)] * layers * (1 + both)
    layer = make(x.shape[-1], size, layers, batch_first=True, bidirectional=both)
    return Step(lambda m, x, y: m.a(x)[0], units, a=layer)


@kind("sequences", CHAINS)
def attention(draw: Draw, x, y):
    width = x.shape[-1]
    if x.ndim != 3:
        raise Unfit
    heads = draw.choice([n for n in (1, 2, 3) if width % n == 0 and width // n > 1])
    hidden, first = draw.size(), draw.flag()
    layer = nn.TransformerEncoderLayer(
        width, heads, hidden, 0.0, batch_first=True, norm_first=first, layer_norm_eps=0.1
    )
    units = [(width // heads, heads)] * 2 + [(hidden, 1)] + [(heads, 1)] * (heads > 1)
    return Step(lambda m, x, y: m.a(x), units, a=layer)


@kind("sequences", CHAINS)
def unrolled(draw: Draw, x, y):
    if x.ndim != 3:
        raise Unfit
    size = draw.size()

    def run(m, x, y):
        h, made = torch.zeros(len(x), size), []
        for t in range(min(x.shape[1], 3)):
            h = m.cell(x[:, t], h)
            made.append(h)
        return torch.stack(made, 1)

    return Step(run, [(size, 1)], cell=draw.choice((nn.RNNCell, nn.GRUCell))(x.shape[-1], size))


@kind("sequences", CHAINS)
def over_time(draw: Draw, x, y):
    """What happens along another axis than that of the units."""
    if x.ndim == 2:
        raise Unfit
    axis = 1 if x.ndim == 3 else 3
    acts = {
        "softmax": lambda x: x.softmax(axis),
        "cumsum": lambda x: x.cumsum(axis),
        "sort": lambda x: x.sort(axis).values,
        "flip": lambda x: x.flip(axis),
        "roll": lambda x: x.roll(1, axis),
        "quantile": lambda x: x - x.quantile(0.3, axis, keepdim=True),
        "fft": lambda x: torch.fft.fft(x, dim=axis).abs() + x,
        "filter": lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=axis), x.shape[axis], axis),
        "normalize": lambda x: F.normalize(x, dim=axis, eps=0.1),
        "top": lambda x: x.topk(2, axis).values,
        "gather": lambda x: x.take_along_dim(x.argsort(axis), axis),
        "diff": lambda x: x.diff(dim=axis),
    }
    act = acts[draw.choice(acts)]
    return Step(lambda m, x, y: act(x))


@kind("sequences", CHAINS)
def summarised(draw: Draw, x, y):
    if x.ndim == 2:
        raise Unfit
    axes = (1,) if x.ndim == 3 else (2, 3)
    how = draw.choice(("mean", "amax", "sum"))
    return Step(lambda m, x, y: getattr(x, how)(axes))


@kind("norms", CHAINS)
def normed(draw: Draw, x, y):
    n, affine = x.shape[_axis(x)], draw.flag()
    if x.ndim == 4:
        norm = draw.choice(
            (
                nn.BatchNorm2d(n, affine=affine),
                nn.BatchNorm2d(n, affine=affine, momentum=None),
                nn.InstanceNorm2d(n, affine=affine, eps=0.1),
                nn.GroupNorm(1, n, eps=0.1, affine=affine),
            )
        )
    elif x.ndim == 2 and draw.flag():
        norm = nn.BatchNorm1d(n, affine=affine)
    else:
        norm = draw.choice((nn.LayerNorm, nn.RMSNorm))(n, eps=0.1, elementwise_affine=affine)
    return Step(lambda m, x, y: m.norm(x), norm=norm)


@kind("norms", CHAINS)
def along_units(draw: Draw, x, y):
    """Functions of all units that treat them alike."""
    axis = _axis(x)
    acts = {
        "softmax": lambda x: x.softmax(axis),
        "log_softmax": lambda x: x.log_softmax(axis),
        "normalize": lambda x: F.normalize(x, dim=axis, eps=0.1),
        "less max": lambda x: x - x.amax(axis, True),
        "less mean": lambda x: x - x.mean(axis, keepdim=True),
        "less std": lambda x: x - x.std(axis, keepdim=True),
        "less norm": lambda x: x - torch.linalg.vector_norm(x, dim=axis, keepdim=True),
        "less logsumexp": lambda x: x - x.logsumexp(axis, True),
        "quantile": lambda x: x - x.quantile(0.3, axis, keepdim=True),
        "cosine": lambda x: x * F.cosine_similarity(x, x.tanh(), axis, 0.1).unsqueeze(axis),
    }
    act = acts[draw.choice(acts)]
    return Step(lambda m, x, y: act(x))


@kind("values", CHAINS)
def pointwise(draw: Draw, x, y):
    act = POINTWISE[draw.choice(POINTWISE)]
    return Step(lambda m, x, y: act(x))


@kind("values", CHAINS)
def two_values(draw: Draw, x, y):
    """Functions of two values of one unit."""
    acts = {
        "huber": lambda x, y: F.huber_loss(x, y, reduction="none") + x,
        "smooth": lambda x, y: F.smooth_l1_loss(x, y, reduction="none") - y,
        "isclose": lambda x, y: x * torch.isclose(x, y, atol=0.5),
        "complex": lambda x, y: torch.complex(x, y).abs() + torch.complex(x, y).real,
        "distance": lambda x, y: F.pairwise_distance(x, y, 2, 0.1)[..., None] * x,
        "diagonal": lambda x, y: torch.diag_embed(x) @ y[..., None],
        "hypot": torch.hypot,
        "lerp": lambda x, y: torch.lerp(x, y, 0.3),
    }
    name = draw.choice(acts)
    if name == "diagonal":
        return Step(lambda m, x, y: acts[name](x, x.tanh()).squeeze(-1))
    if name == "distance" and x.ndim == 4:
        raise Unfit
    return Step(lambda m, x, y: acts[name](x, x.tanh()))


@kind("values", CHAINS)
def in_place(draw: Draw, x, y):
    how = draw.choice(("relu_", "sigmoid_", "abs_", "tanh_"))
    return Step(lambda m, x, y: getattr(x.clone(), how)())
