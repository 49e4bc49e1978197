"""What repairs read off the layers of a forward pass, block by block: rows and moments."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch.nn import functional

from sklmc.merging._repairs._layers import Layer, Norm, name_arguments, takes_part
from sklmc.models import BLOCK_ROWS, Call, Inputs, ModelView, Moments, State, Watcher, end_pass

MAX_ROWS = 64_000  # of one regression; positions of an image are rows too
N_BLOCKS = 10  # at least, so that folds are of different samples

Choice = Callable[[int], torch.Tensor | None]  # n_rows -> the rows to take; None means all


def fold_blocks(inputs: Inputs) -> Iterator[tuple[int, tuple[torch.Tensor, ...]]]:
    """Number all samples in blocks, enough of them for folds."""
    return enumerate(inputs.blocks(min(BLOCK_ROWS, math.ceil(len(inputs) / N_BLOCKS))))


def read_calls(
    look: ModelView,
    args: tuple[torch.Tensor, ...],
    state: State,
    before: Mapping[int, Callable[[dict], object]],
    after: Mapping[int, Callable[[torch.Tensor], object]],
) -> dict[int, object]:
    """Run one block, and return what readers make of some calls; stop after the last of these.

    `before` holds readers of a call's arguments by name, `after` of its output.
    """
    found: dict[int, object] = {}
    last = max((*before, *after))

    def entering(call: Call) -> None:
        if call.index in before:
            found[call.index] = before[call.index](name_arguments(call))

    def leaving(call: Call, output) -> None:
        if call.index in after:
            found[call.index] = after[call.index](output)
        if call.index == last:
            end_pass()

    with Watcher(look, entering, leaving, modules=(), functions=takes_part) as watcher:
        watcher.run(args, state)
    return found


def output_moments(
    look: ModelView, state: State, inputs: Inputs, kinds: Mapping[int, str]
) -> dict[int, Moments]:
    """Return the moments of the units of some calls' outputs; `kinds` are their layers'."""
    moments = {call: Moments() for call in kinds}
    readers = {
        call: functools.partial(moments[call].add, unit_axis=1 if kind == "conv" else -1)
        for call, kind in kinds.items()
    }
    for _, args in fold_blocks(inputs):
        read_calls(look, args, state, {}, readers)
    return moments


def lone_moments(look: ModelView, state: State, norm: Norm, inputs: Inputs) -> Moments:
    """Return the moments of what reaches a batch norm that follows no layer."""
    moments = Moments()
    reader = {norm.call: lambda arguments: moments.add(arguments["input"], unit_axis=1)}
    for _, args in fold_blocks(inputs):
        read_calls(look, args, state, reader, {})
    return moments


def norm_changes(norm: Norm, moments: Moments) -> dict[str, torch.Tensor]:
    """Return the statistics of a batch norm that moments make."""
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


def output_rows(output: torch.Tensor, kind: str, choose: Choice) -> torch.Tensor:
    """Return an output as rows (n_rows, n_units); the units of a convolution are axis 1."""
    units_last = output.movedim(1, -1) if kind == "conv" else output
    return _take_rows(units_last, units_last.ndim - 1, choose).cpu()


def operand_rows(arguments: dict, operand: int, kind: str, choose: Choice) -> torch.Tensor:
    """Return an operand of an addition as rows, likewise."""
    return output_rows(arguments["input" if operand == 0 else "other"], kind, choose)


def input_rows(arguments: dict, layer: Layer, choose: Choice) -> torch.Tensor:
    """Return what a layer multiplies its weights with, as rows (n_rows, groups, n_inputs)."""
    if layer.kind == "linear":
        return output_rows(arguments["input"], "linear", choose)[:, None]
    windows = _windows(layer, arguments["input"], arguments["weight"].shape[2:])
    rows = _take_rows(windows, windows.ndim // 2, choose)
    return rows.reshape(len(rows), layer.groups, -1).cpu()


def _take_rows(values: torch.Tensor, n_axes: int, choose: Choice) -> torch.Tensor:
    """Return the chosen places along the first axes, as a copy: values may be overwritten."""
    shape = values.shape[:n_axes]
    chosen = choose(math.prod(shape))
    if chosen is None:
        return values.reshape(-1, *values.shape[n_axes:]).clone()
    return values[torch.unravel_index(chosen.to(values.device), shape)]


def _windows(layer: Layer, images: torch.Tensor, kernel: torch.Size) -> torch.Tensor:
    """View images as (n_samples, *positions, n_channels, *kernel): a row per position."""
    n_axes = len(kernel)
    stride, padding, dilation = (_per_axis(option, n_axes) for option in layer.options[:3])
    pads: list[int] = []
    for axis in reversed(range(n_axes)):
        if layer.options[1] == "same":
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
    values = tuple(option) if isinstance(option, Iterable) else (option,)
    return values * n_axes if len(values) == 1 else values
