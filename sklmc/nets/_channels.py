"""What convolutional nets share: norms over channels, widths by multiplier, initial weights."""

from __future__ import annotations

import numbers

import torch
from torch import nn

from sklmc._validation import check_option

NORMS = (None, "batch", "layer")
MOST_TIMES = 1e4  # of a multiplier: a layer of five million channels fits into no memory


def check_multiplier(value, caller: str) -> float:
    """Return a positive width multiplier."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{caller}: 'width_multiplier' must be a number, got {value!r}.")
    if not 0 < value <= MOST_TIMES:
        raise ValueError(
            f"{caller}: 'width_multiplier' must be positive and at most {MOST_TIMES:g}, got "
            f"{value!r}."
        )
    return float(value)


def check_norm(value, caller: str) -> str | None:
    """Return the name of a norm, or None."""
    return check_option(value, NORMS, caller, "norm")


def scaled(width: int, multiplier: float) -> int:
    """Return a number of channels, at least one."""
    return max(1, round(width * multiplier))


def channel_norm(norm: str | None, n_channels: int) -> nn.Module:
    """Return a norm over channels; "layer" takes all channels and positions of a sample as one."""
    if norm == "batch":
        return nn.BatchNorm2d(n_channels)
    return nn.GroupNorm(1, n_channels) if norm == "layer" else nn.Identity()


def convolution(n_in: int, n_out: int, norm: str | None, stride: int = 1) -> nn.Conv2d:
    """Return a 3 x 3 convolution that keeps the size; norms make its bias superfluous."""
    return nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=norm is None)


@torch.no_grad()
def initialize(module: nn.Module) -> None:
    """Draw convolutions and hidden linear layers with the gain of ReLU; biases start at zero."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
