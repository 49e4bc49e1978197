"""Steps with weights: linear maps, convolutions, gates, reuse, ties, parametrisations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from tests.symmetry.fuzz._nets import Draw, Step, Unfit, kind


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


@kind("linear")
def linear(draw: Draw, x, y):
    return Step(lambda m, x, y: m.a(x), a=nn.Linear(x.shape[-1], draw.size(), draw.flag()))


@kind("linear")
def linear_wide(draw: Draw, x, y):
    layer = nn.Linear(x.shape[-1], draw.size() * draw.size(), draw.flag())
    return Step(lambda m, x, y: m.a(x).relu(), a=layer)


@kind("linear")
def linear_along(draw: Draw, x, y):
    axis = draw.axis(x)
    layer = nn.Linear(x.shape[axis], draw.size())
    return Step(lambda m, x, y: m.a(x.movedim(axis, -1)).movedim(-1, axis), a=layer)


@kind("linear")
def linear_viewed(draw: Draw, x, y):
    """A linear layer whose units are laid out in a grid."""
    shape = (draw.size(), draw.size())
    layer = nn.Linear(x[0].numel(), shape[0] * shape[1])
    return Step(lambda m, x, y: m.a(x.flatten(1)).view(-1, *shape), a=layer)


@kind("linear")
def residual(draw: Draw, x, y):
    width, hidden = x.shape[-1], draw.size()
    parts = {"a": nn.Linear(width, hidden), "b": nn.Linear(hidden, width)}
    return Step(lambda m, x, y: x + m.b(m.a(x).relu()), **parts)


@kind("linear")
def reused(draw: Draw, x, y):
    width, times = x.shape[-1], draw.choice((2, 3))

    def run(m, x, y):
        for _ in range(times):
            x = m.a(x).tanh()
        return x

    return Step(run, a=nn.Linear(width, width))


@kind("linear")
def tied(draw: Draw, x, y):
    layer, through = nn.Linear(x.shape[-1], draw.size()), draw.flag()

    def run(m, x, y):
        h = m.a(x).relu()
        return F.linear(h, m.a.weight.t()) if through else h @ m.a.weight

    return Step(run, a=layer)


@kind("linear")
def transposed_weight(draw: Draw, x, y):
    return Step(lambda m, x, y: x @ m.w, w=parameter(x.shape[-1], draw.size()))


@kind("linear")
def per_copy_weight(draw: Draw, x, y):
    """A weight of its own for every index of the axis before the last."""
    if x.ndim < 3:
        raise Unfit
    weight, bias = parameter(x.shape[-2], x.shape[-1], draw.size()), draw.flag()
    if bias:
        parts = {"w": weight, "b": parameter(weight.shape[0], weight.shape[2])}
        return Step(lambda m, x, y: torch.einsum("...hd,hde->...he", x, m.w) + m.b, **parts)
    return Step(lambda m, x, y: torch.einsum("...hd,hde->...he", x, m.w), w=weight)


@kind("linear")
def experts(draw: Draw, x, y):
    n, hidden, width = draw.size(), draw.size(), x.shape[-1]
    parts = {
        "gate": nn.Linear(width, n),
        "a": parameter(n, width, hidden),
        "b": parameter(n, hidden, width),
    }

    def run(m, x, y):
        h = torch.einsum("...d,ndh->...nh", x, m.a).relu()
        h = torch.einsum("...nh,nhd->...nd", h, m.b)
        return (m.gate(x).softmax(-1)[..., None] * h).sum(-2)

    return Step(run, **parts)


@kind("linear")
def bilinear(draw: Draw, x, y):
    return Step(lambda m, x, y: m.a(x, x), a=nn.Bilinear(x.shape[-1], x.shape[-1], draw.size()))


@kind("linear")
def scaled(draw: Draw, x, y):
    """A weight that is broadcast along some axes."""
    shape = [size if draw.flag() else 1 for size in x.shape[1:]]
    if draw.flag():
        return Step(lambda m, x, y: x + m.p, p=parameter(*shape))
    return Step(lambda m, x, y: x * m.p, p=parameter(*shape))


@kind("gates")
def gate(draw: Draw, x, y):
    width = x.shape[-1]
    return Step(lambda m, x, y: x * m.a(x).sigmoid(), a=nn.Linear(width, width))


@kind("gates")
def glu(draw: Draw, x, y):
    axis = draw.axis(x)
    if x.shape[axis] % 2:
        raise Unfit
    return Step(lambda m, x, y: F.glu(x, axis))


@kind("gates")
def packed_gate(draw: Draw, x, y):
    hidden, width = draw.size(), x.shape[-1]
    parts = {"a": nn.Linear(width, 2 * hidden), "b": nn.Linear(hidden, width)}

    def run(m, x, y):
        h, gate = m.a(x).chunk(2, -1)
        return m.b(h * F.silu(gate))

    return Step(run, **parts)


@kind("gates")
def squeeze_excite(draw: Draw, x, y):
    axis, hidden = draw.axis(x), draw.size()
    others = [d for d in range(1, x.ndim) if d != axis]
    shape = [-1, *(x.shape[axis] if d == axis else 1 for d in range(1, x.ndim))]
    parts = {"a": nn.Linear(x.shape[axis], hidden), "b": nn.Linear(hidden, x.shape[axis])}

    def run(m, x, y):
        squeezed = x.mean(others) if others else x
        return x * m.b(m.a(squeezed).relu()).sigmoid().view(shape)

    return Step(run, **parts)


@kind("gates")
def made_weights(draw: Draw, x, y):
    """Weights that a layer makes."""
    rows, width = draw.size(), x.shape[-1]
    maker = nn.Linear(x[0].numel(), rows * width)

    def run(m, x, y):
        weights = m.maker(x.flatten(1)).view(-1, rows, width)
        return torch.bmm(weights, x.flatten(1, -2).transpose(1, 2) if x.ndim > 2 else x[..., None])

    return Step(run, maker=maker)


@kind("parametrised")
def weight_normed(draw: Draw, x, y):
    layer = nn.Linear(x.shape[-1], draw.size())
    return Step(lambda m, x, y: m.a(x), a=weight_norm(layer, dim=draw.choice((0, 1))))


@kind("parametrised")
def spectral_normed(draw: Draw, x, y):
    layer = spectral_norm(nn.Linear(x.shape[-1], draw.size()))
    return Step(lambda m, x, y: m.a(x), a=layer)


@kind("parametrised")
def symmetric(draw: Draw, x, y):
    width, sign = x.shape[-1], draw.choice((1, -1))
    return Step(lambda m, x, y: x @ (m.w + sign * m.w.t()), w=parameter(width, width))


@kind("parametrised")
def shaped_weight(draw: Draw, x, y):
    """A weight that is used in another shape or order than it is stored in."""
    a, b = x.shape[-1], draw.size()
    how = draw.choice(("flat", "turned", "softmax", "normal", "flipped", "positive"))
    along = draw.choice((0, 1))
    uses = {
        "flat": lambda w: w.view(-1).view(b, a),
        "turned": lambda w: w.t().reshape(b, a),
        "softmax": lambda w: w.softmax(along),
        "normal": lambda w: F.normalize(w, dim=along),
        "flipped": lambda w: w.flip(along),
        "positive": lambda w: w.abs() + w.square(),
    }
    return Step(lambda m, x, y: F.linear(x, uses[how](m.w)), w=parameter(b, a))


_CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
_TRANSPOSED = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d}


@kind("convolution")
def convolution(draw: Draw, x, y):
    if x.ndim not in _CONVOLUTIONS:
        raise Unfit
    channels = x.shape[1]
    groups = draw.choice([g for g in range(1, channels + 1) if channels % g == 0])
    out = groups * draw.choice((1, 2, 3)) if groups > 1 else draw.size()
    kernel = draw.choice((1, 2, 3))
    options = {
        "groups": groups,
        "bias": draw.flag(),
        "dilation": draw.choice((1, 1, 2)),
        "stride": draw.choice((1, 1, 2)),
        "padding": kernel // 2,
        "padding_mode": draw.choice(("zeros", "zeros", "circular", "replicate")),
    }
    return Step(lambda m, x, y: m.a(x), a=_CONVOLUTIONS[x.ndim](channels, out, kernel, **options))


@kind("convolution")
def depthwise(draw: Draw, x, y):
    if x.ndim not in _CONVOLUTIONS:
        raise Unfit
    n, many = x.shape[1], draw.choice((1, 2))
    make = _CONVOLUTIONS[x.ndim]
    parts = {"a": make(n, n * many, 3, padding=1, groups=n), "b": make(n * many, draw.size(), 1)}
    return Step(lambda m, x, y: m.b(m.a(x).relu()), **parts)


@kind("convolution")
def transposed(draw: Draw, x, y):
    if x.ndim not in _TRANSPOSED:
        raise Unfit
    channels = x.shape[1]
    groups = draw.choice([g for g in range(1, channels + 1) if channels % g == 0])
    out = groups * draw.choice((1, 2, 3)) if groups > 1 else draw.size()
    options = {"groups": groups, "stride": draw.choice((1, 2)), "bias": draw.flag()}
    layer = _TRANSPOSED[x.ndim](channels, out, draw.choice((1, 2)), **options)
    return Step(lambda m, x, y: m.a(x), a=layer)


@kind("convolution")
def convolved_residual(draw: Draw, x, y):
    if x.ndim not in _CONVOLUTIONS:
        raise Unfit
    n, hidden, make = x.shape[1], draw.size(), _CONVOLUTIONS[x.ndim]
    parts = {"a": make(n, hidden, 3, padding=1), "b": make(hidden, n, 1)}
    return Step(lambda m, x, y: x + m.b(m.a(x).relu()), **parts)


@kind("convolution")
def convolved_by_input(draw: Draw, x, y):
    """A convolution whose weight is another layer's output."""
    if x.ndim != 4:
        raise Unfit
    out, channels = draw.size(), x.shape[1]
    maker = nn.Linear(channels, out * channels)

    def run(m, x, y):
        weight = m.maker(x.mean((0, 2, 3))).view(out, channels, 1, 1)
        return F.conv2d(x, weight)

    return Step(run, maker=maker)
