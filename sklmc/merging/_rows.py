"""Rows of regressions: what goes into a layer and what comes out, at sampled places."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from sklmc.merging._sites import Site

MAX_ROWS = 64_000  # of one regression; positions of an image are rows too


def choose_rows(
    n_rows: int, n_block: int, n_samples: int, seed: tuple[int, int]
) -> torch.Tensor | None:
    """Return the rows to take from a block of samples, the same for every net; None means all."""
    share = math.ceil(MAX_ROWS * n_block / n_samples)
    if n_rows <= share:
        return None
    generator = torch.Generator().manual_seed(seed[0] * 1_000_003 + seed[1])
    return torch.randperm(n_rows, generator=generator)[:share]


def count_rows(output: torch.Tensor, kind: str) -> int:
    """Return how many rows an output has: all axes but that of the units."""
    return output.numel() // output.shape[1 if kind == "conv" else -1]


def output_rows(output: torch.Tensor, kind: str, chosen: torch.Tensor | None) -> torch.Tensor:
    """Return an output as rows (n_rows, n_units); the units of a convolution are axis 1."""
    units_last = output.movedim(1, -1) if kind == "conv" else output
    if chosen is None:
        # a copy, since what follows may overwrite the output in place
        return units_last.reshape(-1, units_last.shape[-1]).clone().cpu()
    places = torch.unravel_index(chosen.to(output.device), units_last.shape[:-1])
    return units_last[places].cpu()


def input_rows(site: Site, arguments: dict, chosen: torch.Tensor | None) -> torch.Tensor:
    """Return what a layer multiplies its weights with, as rows (n_rows, groups, n_inputs)."""
    if site.kind == "linear":
        return output_rows(arguments["input"], "linear", chosen)[:, None]
    windows = _windows(site, arguments["input"], arguments["weight"].shape[2:])
    n_positions = windows.ndim // 2
    if chosen is None:
        rows = windows.flatten(0, n_positions - 1).clone()
    else:
        places = chosen.to(windows.device)
        rows = windows[torch.unravel_index(places, windows.shape[:n_positions])]
    return rows.reshape(len(rows), site.groups, -1).cpu()


def _windows(site: Site, images: torch.Tensor, kernel: torch.Size) -> torch.Tensor:
    """View images as (n_samples, *positions, n_channels, *kernel): a row per position."""
    n_axes = len(kernel)
    stride, padding, dilation = (_per_axis(option, n_axes) for option in site.options[:3])
    pads: list[int] = []
    for axis in reversed(range(n_axes)):
        if site.options[1] == "same":
            total = dilation[axis] * (kernel[axis] - 1)
            pads += [total // 2, total - total // 2]
        else:
            pads += [padding[axis], padding[axis]]
    windows = functional.pad(images, pads)
    for axis in range(n_axes):
        span = dilation[axis] * (kernel[axis] - 1) + 1
        windows = windows.unfold(2 + axis, span, stride[axis])[..., :: dilation[axis]]
    return windows.movedim(1, 1 + n_axes)


def _per_axis(option, n_axes: int) -> tuple[int, ...]:
    """Return an option of a convolution for each axis; a word ("same", "valid") as zeros."""
    if isinstance(option, str):
        return (0,) * n_axes
    values = (option,) if isinstance(option, int) else tuple(option)
    return values * n_axes if len(values) == 1 else values
