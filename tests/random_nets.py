"""Small random nets for property tests: every tensor drawn, norm gains of both signs and zero."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

N_FEATURES, N_OUTPUTS, SIDE = 3, 2, 5
NORMS = (None, "batch", "layer", "group")
ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.GELU)


def draw_tensors(module: nn.Module, seed: int, gains=None) -> nn.Module:
    """Draw every tensor of a module; norm gains, where not given, of both signs, one of them 0."""
    rng = np.random.default_rng(seed)
    norms = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
    with torch.no_grad():
        for part in module.modules():
            for name, tensor in part.named_parameters(recurse=False):
                values = rng.normal(size=tuple(tensor.shape))
                if isinstance(part, norms) and name == "weight":
                    sign = rng.choice([-1.0, 1.0], len(tensor))
                    values = sign * rng.uniform(0.3, 1.5, len(tensor))
                    values[rng.integers(len(values))] = 0.0
                    values = values if gains is None else np.resize(gains, len(values))
                tensor.copy_(torch.from_numpy(values))
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.running_mean.copy_(torch.from_numpy(rng.normal(size=part.num_features)))
                part.running_var.copy_(torch.from_numpy(rng.uniform(0.2, 2.0, part.num_features)))
    return module.eval()


def _norm(kind: str | None, width: int, conv: bool) -> list[nn.Module]:
    """Return a norm of a layer of this width, or nothing."""
    if kind is None:
        return []
    if kind == "batch":
        return [(nn.BatchNorm2d if conv else nn.BatchNorm1d)(width)]
    return [nn.LayerNorm(width) if kind == "layer" and not conv else nn.GroupNorm(1, width)]


def build(kind, widths, norm, activation, bias=True) -> nn.Module:
    """Return a chain of linear or convolution layers ("linear", "conv"), or a residual net."""
    if kind == "residual":
        return Residual(widths[0], norm, activation)
    conv, layers, before = kind == "conv", [], 1 if kind == "conv" else N_FEATURES
    for width in widths:
        layers.append(
            nn.Conv2d(before, width, 3, padding=1, bias=bias)
            if conv
            else nn.Linear(before, width, bias=bias)
        )
        layers += [*_norm(norm, width, conv), activation()]
        before = width
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if conv else []
    return nn.Sequential(*layers, *pool, nn.Linear(before, N_OUTPUTS))


class Residual(nn.Module):
    """A stream with one residual branch, and a norm behind the addition."""

    def __init__(self, width, norm, activation):
        super().__init__()
        self.stem = nn.Linear(N_FEATURES, width)
        self.branch = nn.Sequential(
            nn.Linear(width, width + 1),
            *_norm(norm, width + 1, False),
            activation(),
            nn.Linear(width + 1, width),
        )
        self.last = nn.Sequential(*_norm(norm, width, False), activation())
        self.head = nn.Linear(width, N_OUTPUTS)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.last(x + self.branch(x)))


def bits(module: nn.Module) -> list[bytes]:
    """Return the bytes of every tensor of a module."""
    return [tensor.numpy().tobytes() for tensor in module.state_dict().values()]


def samples(module: nn.Module, n_samples: int = 120, seed: int = 0) -> np.ndarray:
    """Return samples in the shape that a net of this file takes."""
    conv = any(isinstance(part, nn.Conv2d) for part in module.modules())
    shape = (n_samples, 1, SIDE, SIDE) if conv else (n_samples, N_FEATURES)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def labels(n_samples: int = 120, seed: int = 1) -> np.ndarray:
    """Return labels for `samples`."""
    return np.random.default_rng(seed).integers(0, N_OUTPUTS, n_samples)


@st.composite
def architectures(draw, kinds=("linear", "conv", "residual"), norms=NORMS):
    """Draw the arguments of `build`."""
    return {
        "kind": draw(st.sampled_from(kinds)),
        "widths": draw(st.lists(st.integers(2, 6), min_size=1, max_size=2)),
        "norm": draw(st.sampled_from(norms)),
        "activation": draw(st.sampled_from(ACTIVATIONS)),
    }


@st.composite
def nets(draw, n=1, **options):
    """Draw n nets of one architecture, in eval mode, with tensors of their own."""
    arguments = draw(architectures(**options))
    seeds = draw(st.lists(st.integers(0, 2**31), min_size=n, max_size=n, unique=True))
    return [draw_tensors(build(**arguments), seed) for seed in seeds]
