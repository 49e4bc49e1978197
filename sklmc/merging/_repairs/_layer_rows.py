"""What repairs read off the layers of a forward pass, block by block: rows and moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from sklmc.merging._repairs._layer import PROJECTIONS, Norm, WeightLayer
from sklmc.merging._repairs._layers import ATTENTION, name_arguments, takes_part
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
    before: Mapping[Any, tuple[int, Callable[[dict], object]]],
    after: Mapping[Any, tuple[int, Callable[[dict, torch.Tensor], object]]],
) -> dict[Any, Any]:
    """Run one block, and return what readers make of some calls; stop after the last of these.

    `before` holds calls with readers of their arguments by name, `after` with readers of these
    and of the output.
    """
    found: dict[Any, Any] = {}
    last = max(call for call, _ in (*before.values(), *after.values()))

    def entering(call: Call) -> None:
        for key, (index, read) in before.items():
            if index == call.index:
                found[key] = read(name_arguments(call))

    def leaving(call: Call, output) -> None:
        for key, (index, read) in after.items():
            if index == call.index:
                found[key] = read(name_arguments(call), output)
        if call.index == last:
            end_pass()

    with Watcher(look, entering, leaving, modules=(), functions=takes_part) as watcher:
        watcher.run(args, state)
    return found


def output_moments(
    look: ModelView, state: State, inputs: Inputs, places: Sequence[tuple[WeightLayer, int]]
) -> list[Moments]:
    """Return the moments of some layers' units, each at a call behind the layer, or its own."""
    moments = [Moments() for _ in places]

    def reader(number: int) -> Callable[[dict, torch.Tensor], None]:
        layer, call = places[number]
        return lambda arguments, output: moments[number].add(
            _given(layer, call, arguments, output), unit_axis=layer.units_axis
        )

    readers = {number: (call, reader(number)) for number, (_, call) in enumerate(places)}
    for _, args in fold_blocks(inputs):
        read_calls(look, args, state, {}, readers)
    return moments


def lone_moments(look: ModelView, state: State, norm: Norm, inputs: Inputs) -> Moments:
    """Return the moments of what reaches a batch norm that follows no layer."""
    moments = Moments()

    def read(arguments: dict) -> None:
        moments.add(arguments["input"], unit_axis=1)

    for _, args in fold_blocks(inputs):
        read_calls(look, args, state, {None: (norm.call, read)}, {})
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


def output_rows(
    arguments: dict, output: torch.Tensor, layer: WeightLayer, call: int, choose: Choice
) -> torch.Tensor:
    """Return what a call, a layer's own or one behind it, gives, as rows (n_rows, n_units)."""
    return _unit_rows(_given(layer, call, arguments, output), layer, choose)


def operand_rows(arguments: dict, layer: WeightLayer, operand: int, choose: Choice) -> torch.Tensor:
    """Return an operand of the addition behind a layer as rows, likewise."""
    return _unit_rows(arguments["input" if operand == 0 else "other"], layer, choose)


def input_rows(arguments: dict, layer: WeightLayer, choose: Choice) -> torch.Tensor:
    """Return what a layer multiplies its weights with, as rows (n_rows, groups, n_inputs)."""
    if layer.kind == "attended":
        return _unit_rows(_by_samples(layer, _attended(arguments)), layer, choose)[:, None]
    given = arguments[layer.kind if layer.kind in PROJECTIONS else "input"]
    if not layer.options:
        return _unit_rows(given, layer, choose)[:, None]
    windows = _windows(layer, given, arguments["weight"].shape[2:])
    rows = _take_rows(windows, windows.ndim // 2, choose)
    return rows.reshape(len(rows), layer.groups, -1).cpu()


def _given(layer: WeightLayer, call: int, arguments: dict, output) -> torch.Tensor:
    """Return what a call gives: of a layer that is part of its call, what that part gives."""
    if call != layer.call:
        return output
    if layer.kind == "attended":
        return _by_samples(layer, output[0])
    if layer.kind not in PROJECTIONS:
        return output
    packed = layer.weight_rows is not None
    weight = arguments["in_proj_weight" if packed else f"{layer.kind[0]}_proj_weight"]
    bias = arguments["in_proj_bias"]
    return functional.linear(
        arguments[layer.kind],
        weight[slice(*layer.weight_rows)] if packed else weight,
        None if bias is None else bias[slice(*layer.bias_rows)],
    )


def _attended(arguments: dict) -> torch.Tensor:
    """Return what an attention projects last: what it gives where that projection does nothing."""
    weight = arguments["out_proj_weight"]
    plain = {"out_proj_weight": torch.eye(*weight.shape).to(weight), "out_proj_bias": None}
    return ATTENTION(**{**arguments, **plain})[0]


def _by_samples(layer: WeightLayer, values: torch.Tensor) -> torch.Tensor:
    """Put an attention's samples where the net has them."""
    return values.transpose(0, 1) if layer.is_swapped else values


def _unit_rows(values: torch.Tensor, layer: WeightLayer, choose: Choice) -> torch.Tensor:
    """Return values as rows (n_rows, n_units)."""
    units_last = values.movedim(layer.units_axis, -1)
    return _take_rows(units_last, units_last.ndim - 1, choose).cpu()


def _take_rows(values: torch.Tensor, n_axes: int, choose: Choice) -> torch.Tensor:
    """Return the chosen places along the first axes, as a copy: values may be overwritten."""
    shape = values.shape[:n_axes]
    chosen = choose(math.prod(shape))
    if chosen is None:
        return values.reshape(-1, *values.shape[n_axes:]).clone()
    return values[torch.unravel_index(chosen.to(values.device), shape)]


def _windows(layer: WeightLayer, images: torch.Tensor, kernel: torch.Size) -> torch.Tensor:
    """View images as (n_samples, *positions, n_channels, *kernel): a row per position."""
    n_axes = len(kernel)
    stride, padding, dilation = (_per_axis(option, n_axes) for option in layer.options[:3])
    more = _per_axis(layer.options[4], n_axes)
    pads: list[int] = []
    for axis in reversed(range(n_axes)):
        total = dilation[axis] * (kernel[axis] - 1)
        if layer.options[1] == "same":
            pads += [total // 2, total - total // 2]
        elif layer.kind == "transposed":
            pads += [total - padding[axis], total - padding[axis] + more[axis]]
        else:
            pads += [padding[axis], padding[axis]]
    if layer.kind == "transposed":  # strides apart, with zeros between, and no stride of its own
        images, stride = _spread(images, stride), (1,) * n_axes
    windows = functional.pad(images, pads)
    for axis in range(n_axes):
        span = dilation[axis] * (kernel[axis] - 1) + 1
        windows = windows.unfold(2 + axis, span, stride[axis])[..., :: dilation[axis]]
    return windows.movedim(1, 1 + n_axes)


def _spread(images: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
    """Put so many places between pixels, all but one of them zeros."""
    sizes = [(size - 1) * step + 1 for size, step in zip(images.shape[2:], stride)]
    spread = images.new_zeros(*images.shape[:2], *sizes)
    spread[(..., *(slice(None, None, step) for step in stride))] = images
    return spread


def _per_axis(option, n_axes: int) -> tuple[int, ...]:
    """Return an option of a convolution for each axis; a word ("same", "valid") as zeros."""
    if isinstance(option, str):
        return (0,) * n_axes
    values = tuple(option) if isinstance(option, Iterable) else (option,)
    return values * n_axes if len(values) == 1 else values
