"""Steps on values: pointwise functions, complex numbers, writing in place, control flow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.symmetry.fuzz._layers import parameter
from tests.symmetry.fuzz._nets import Draw, Step, Unfit, kind

POINTWISE = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "silu": F.silu,
    "elu": F.elu,
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "softplus": F.softplus,
    "logsigmoid": F.logsigmoid,
    "hardtanh": F.hardtanh,
    "softshrink": F.softshrink,
    "abs": torch.abs,
    "sin": torch.sin,
    "square": torch.square,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "floor_divide": lambda x: x + torch.div(x, 0.5, rounding_mode="floor"),
    "floor_operator": lambda x: x + x // 0.7,
    "remainder": lambda x: x + x % 0.7,
    "isclose": lambda x: x * torch.isclose(x, torch.zeros(()), atol=0.5),
    "bucketize": lambda x: x + torch.bucketize(x, torch.tensor([-0.5, 0.0, 0.5])),
    "searchsorted": lambda x: (
        x + torch.searchsorted(torch.tensor([-0.5, 0.0, 0.5]), x.contiguous())
    ),
    "where": lambda x: torch.where(x > 0, x, -0.3 * x.square()),
    "masked_fill": lambda x: x.masked_fill(x < 0, -0.1),
    "rsub": lambda x: 1 - x,
    "pow": lambda x: (x.abs() + 0.1) ** 0.7,
    "nan_to_num": lambda x: torch.nan_to_num(x) + torch.sign(x),
    "dropout": lambda x: F.dropout(x, 0.0, True),
    "huber": lambda x: F.huber_loss(x, torch.zeros_like(x), reduction="none"),
    "threshold": lambda x: F.threshold(x, 0.1, -0.2),
    "erf": torch.erf,
    "detach": lambda x: x + x.detach(),
    "checked": lambda x: x.to(torch.float32) if x.dtype == torch.float16 else x * 1.5,
}


@kind("pointwise")
def pointwise(draw: Draw, x, y):
    act = POINTWISE[draw.choice(POINTWISE)]
    return Step(lambda m, x, y: act(x))


@kind("pointwise")
def prelu(draw: Draw, x, y):
    return Step(lambda m, x, y: m.a(x), a=nn.PReLU(x.shape[1] if draw.flag() else 1))


@kind("pointwise")
def activation_module(draw: Draw, x, y):
    modules = (nn.RReLU, nn.Hardswish, nn.Mish, nn.SELU, nn.CELU, nn.ReLU6, nn.Softsign)
    act = draw.choice((*modules, nn.Tanhshrink, nn.LogSigmoid, nn.Identity))
    if act is nn.RReLU:
        return Step(lambda m, x, y: F.rrelu(x, 0.1, 0.3, training=False))
    return Step(lambda m, x, y: m.a(x), a=act())


@kind("pointwise")
def constant_added(draw: Draw, x, y):
    """A constant of forward or a buffer along one axis, or the same everywhere."""
    axis = draw.axis(x)
    n, how = x.shape[axis], draw.choice(("arange", "ones", "linspace", "eye", "buffer", "same"))
    shape = [n if d == axis else 1 for d in range(x.ndim)]
    buffer = torch.ones(n) if how == "same" else torch.arange(n) * 0.1

    def run(m, x, y):
        made = {
            "arange": lambda: torch.arange(n) * 0.3,
            "ones": lambda: torch.ones(n),
            "linspace": lambda: torch.linspace(0, 1, n),
            "eye": lambda: torch.eye(n).sum(0),
            "buffer": lambda: m.buffer,
            "same": lambda: m.buffer,
        }[how]()
        return x + made.view(shape)

    return Step(run, buffer=buffer)


@kind("pointwise")
def constant_product(draw: Draw, x, y):
    """A product with a matrix made in forward."""
    n = x.shape[-1]
    makes = {
        "eye": lambda: torch.eye(n),
        "ones": lambda: torch.ones(n, n),
        "tril": lambda: torch.ones(n, n).tril(),
        "full": lambda: torch.full((n, 2), 0.5),
        "mixed": lambda: torch.eye(n) - 1 / n,
    }
    make = makes[draw.choice(makes)]
    return Step(lambda m, x, y: x @ make())


@kind("complex")
def fourier(draw: Draw, x, y):
    axis = draw.axis(x)
    acts = {
        "abs": lambda x: torch.fft.fft(x, dim=axis).abs(),
        "real": lambda x: torch.fft.fft(x, dim=axis).real,
        "both": lambda x: torch.view_as_real(torch.fft.rfft(x, dim=axis)).flatten(-2),
        "there and back": lambda x: torch.fft.irfft(
            torch.fft.rfft(x, dim=axis), x.shape[axis], axis
        ),
        "two": lambda x: torch.fft.fft2(x, dim=(axis, -1) if axis < x.ndim - 1 else (0, 1)).real,
        "shift": lambda x: torch.fft.fftshift(x, axis),
        "hfft": lambda x: torch.fft.hfft(
            x.to(torch.complex64 if x.dtype == torch.float32 else torch.complex128), dim=axis
        ),
        "stft": lambda x: torch.fft.rfft(x, dim=axis).abs().square(),
    }
    act = acts[draw.choice(acts)]
    return Step(lambda m, x, y: act(x))


@kind("complex")
def fourier_filter(draw: Draw, x, y):
    axis = draw.axis(x)
    n = x.shape[axis]
    other = draw.axis(x)
    shape = [1] * x.ndim
    shape[axis], shape[other] = n // 2 + 1, x.shape[other] if other != axis else n // 2 + 1

    def run(m, x, y):
        h = torch.fft.rfft(x, dim=axis)
        return torch.fft.irfft(h * torch.complex(m.a, m.b), n, axis)

    return Step(run, a=parameter(*shape), b=parameter(*shape))


@kind("complex")
def complex_layer(draw: Draw, x, y):
    width, size = x.shape[-1], draw.size()
    parts = {"a": parameter(size, width), "b": parameter(size, width), "c": nn.Linear(width, width)}
    how = draw.choice(("abs", "cat", "angle", "stack", "conj", "polar"))

    def run(m, x, y):
        h = torch.complex(x, m.c(x)) @ torch.complex(m.a, m.b).t()
        return {
            "abs": lambda: h.abs(),
            "cat": lambda: torch.cat([h.real, h.imag], -1),
            "angle": lambda: h.angle().cos() + h.real,
            "stack": lambda: torch.view_as_real(h).flatten(-2),
            "conj": lambda: (h * h.conj()).real,
            "polar": lambda: torch.polar(h.abs(), h.real).real,
        }[how]()

    return Step(run, **parts)


@kind("complex")
def pairs_as_complex(draw: Draw, x, y):
    if x.shape[-1] % 2:
        raise Unfit
    weight = parameter(x.shape[-1] // 2, 2)

    def run(m, x, y):
        h = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(h * torch.view_as_complex(m.w)).flatten(-2)

    return Step(run, w=weight)


@kind("in place")
def in_place(draw: Draw, x, y):
    how = draw.choice(("relu_", "add_", "mul_", "clamp_", "copy_", "fill", "sigmoid_view"))

    def run(m, x, y):
        h = x.clone()
        if how == "relu_":
            h.relu_()
        elif how == "add_":
            h.add_(x.tanh())
        elif how == "mul_":
            h.mul_(0.5).add_(1)
        elif how == "clamp_":
            h.clamp_(-1, 1)
        elif how == "copy_":
            h.copy_(x.sin())
        elif how == "fill":
            h.masked_fill_(x > 0, 0.5)
        else:
            h.flatten(1).sigmoid_()
        return h

    return Step(run)


@kind("in place")
def part_written(draw: Draw, x, y):
    axis = draw.axis(x)
    index = draw.choice(range(x.shape[axis]))
    how = draw.choice(("set", "add", "narrow", "head", "scale"))
    place = (slice(None),) * axis

    def run(m, x, y):
        h = x.clone()
        if how == "set":
            h[(*place, index)] = 0.5
        elif how == "add":
            h[(*place, index)] += x.select(axis, 0)
        elif how == "narrow":
            h.narrow(axis, index, 1).mul_(2)
        elif how == "head":
            h[(*place, slice(index, None))] = x[(*place, slice(index, None))].relu()
        else:
            h.select(axis, index).sigmoid_()
        return h

    return Step(run)


@kind("in place")
def filled_in_turn(draw: Draw, x, y):
    axis, before = draw.axis(x), draw.flag()
    place = (slice(None),) * axis

    def run(m, x, y):
        h = torch.zeros_like(x)
        for i in range(x.shape[axis]):
            part = x[(*place, i)].tanh()
            h[(*place, i)] = part + h[(*place, i - 1)] if before else part
        return h

    return Step(run)


@kind("in place")
def scattered(draw: Draw, x, y):
    axis = draw.axis(x)
    index = torch.tensor(draw.order(x.shape[axis]))
    shape = [-1 if d == axis else 1 for d in range(x.ndim)]
    how = draw.choice(("scatter", "scatter_add", "index_add", "index_copy", "index_put"))
    place = (slice(None),) * axis

    def run(m, x, y):
        wide = m.index.view(shape).expand_as(x)
        if how == "scatter":
            return torch.zeros_like(x).scatter(axis, wide, x)
        if how == "scatter_add":
            return x.scatter_add(axis, wide, x.tanh())
        if how == "index_put":
            h = x.clone()
            h[(*place, m.index)] = x.relu()
            return h
        return getattr(x, how)(axis, m.index, x.tanh())

    return Step(run, index=index)


@kind("control")
def looped(draw: Draw, x, y):
    axis = draw.axis(x)

    def run(m, x, y):
        total, scale = torch.zeros_like(x.select(axis, 0)), 1.0
        for i in range(x.shape[axis]):
            total = total + scale * x.select(axis, i)
            scale = scale * 0.5 if i % 2 else scale
        return x + total.unsqueeze(axis)

    return Step(run)


@kind("control")
def chosen_by_constant(draw: Draw, x, y):
    limit = draw.size()

    def run(m, x, y):
        if x.shape[-1] > limit:
            x = x * 2
        if m.training and limit > 100:
            x = x + 1
        for i in range(x.ndim):
            x = x.tanh() if i == 1 else x + i
        return x

    return Step(run)


@kind("control")
def layer_list(draw: Draw, x, y):
    width, n = x.shape[-1], draw.choice((2, 3))
    skips = draw.flag()

    def run(m, x, y):
        kept = []
        for layer in m.layers:
            x = layer(x).relu()
            kept.append(x)
        return sum(kept) if skips else torch.cat(kept, -1)

    return Step(run, layers=nn.ModuleList(nn.Linear(width, width) for _ in range(n)))


@kind("control")
def fixed_point(draw: Draw, x, y):
    width = x.shape[-1]
    parts = {"a": nn.Linear(width, width), "b": nn.Linear(width, width)}

    def run(m, x, y):
        h = torch.zeros_like(x)
        for _ in range(3):
            h = (m.a(h) + m.b(x)).tanh()
        return h

    return Step(run, **parts)
