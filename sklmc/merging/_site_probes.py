"""What repairs read off the sites of a forward pass, block by block: rows and moments."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.nn import functional

from sklmc.merging._weight_sites import Norm, Probe, Site, watch
from sklmc.models import BLOCK_ROWS, Inputs, ModelView, Moments, State

MAX_ROWS = 64_000  # of one regression; positions of an image are rows too
N_BLOCKS = 10  # at least, so that folds are of different samples


def fold_blocks(inputs: Inputs) -> Iterator[tuple[int, tuple[torch.Tensor, ...]]]:
    """Number all samples in blocks, enough of them for folds."""
    return enumerate(inputs.blocks(min(BLOCK_ROWS, math.ceil(len(inputs) / N_BLOCKS))))


class OutputProbe(Probe):
    """Keeps the chosen rows of one output."""

    def __init__(self, kind: str, n_samples: int, n_block: int, seed: tuple[int, int]):
        self.kind = kind
        self._draw = (n_block, n_samples, seed)
        self.rows: torch.Tensor | None = None

    def after(self, output: torch.Tensor) -> None:
        chosen = choose_rows(count_rows(output, self.kind), *self._draw)
        self.rows = output_rows(output, self.kind, chosen)


class SiteProbe(Probe):
    """Keeps the chosen rows of what reaches one layer, and the arguments until then."""

    def __init__(self, site: Site, n_samples: int, n_block: int, seed: tuple[int, int]):
        self.site = site
        self._draw = (n_block, n_samples, seed)
        self.rows: torch.Tensor | None = None

    def before(self, arguments: dict) -> None:
        self._arguments = arguments

    def after(self, output: torch.Tensor) -> None:
        chosen = choose_rows(count_rows(output, self.site.kind), *self._draw)
        self.rows = input_rows(self.site, self._arguments, chosen)
        del self._arguments


class OperandProbe(Probe):
    """Keeps the chosen rows of one operand of an addition."""

    def __init__(self, operand: int, kind: str, n_samples: int, n_block: int, seed):
        self.operand = operand
        self.kind = kind
        self._draw = (n_block, n_samples, seed)
        self.rows: torch.Tensor | None = None

    def before(self, arguments: dict) -> None:
        value = arguments["input" if self.operand == 0 else "other"]
        chosen = choose_rows(count_rows(value, self.kind), *self._draw)
        self.rows = output_rows(value, self.kind, chosen).clone()  # the addition may be in place


class MomentProbe(Probe):
    """Adds one output, or one input, to running moments per unit."""

    def __init__(self, moments: Moments, kind: str, of_input: bool = False):
        self.moments = moments
        self.kind = kind
        self.of_input = of_input

    def before(self, arguments: dict) -> None:
        if self.of_input:
            self._add(arguments["input"])

    def after(self, output: torch.Tensor) -> None:
        if not self.of_input:
            self._add(output)

    def _add(self, values: torch.Tensor) -> None:
        self.moments.add(values, unit_axis=1 if self.kind == "conv" else -1)


def lone_statistics(
    look: ModelView, state: State, norm: Norm, inputs: Inputs
) -> dict[str, torch.Tensor]:
    """Return the mean and variance of what reaches a batch norm that follows no layer."""
    moments = Moments()
    for _, args in fold_blocks(inputs):
        watch(look, args, state, {norm.call: MomentProbe(moments, "conv", of_input=True)})
    return {norm.mean: moments.mean, norm.variance: moments.variance(correction=1)}


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
