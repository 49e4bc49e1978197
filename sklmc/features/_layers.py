"""The layers of a net in the order in which they run, and which of them a measure is about."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sklmc._validation import check_names
from sklmc.features._follow import AFFINE, Call, follow_once
from sklmc.models import ModelView

KEYWORDS = ("all", "feature", "relu", "weight")
CHANNELS_SECOND = (*AFFINE[1:], nn.modules.batchnorm._NormBase, nn.GroupNorm)


@dataclass(frozen=True)
class Layer:
    """One layer as a sample run found it.

    `shape` and `input_shape` are those of one sample, None where a layer has no row per sample.
    `depth` counts the weight layers up to here, this one included.
    """

    call: Call
    depth: int
    shape: tuple[int, ...] | None
    input_shape: tuple[int, ...] | None
    unit_axis: int  # axis of a batch's output along which the units lie

    @property
    def name(self) -> str:
        return self.call.name

    @property
    def is_affine(self) -> bool:
        return isinstance(self.call.module, AFFINE)


def trace_layers(look: ModelView, args: tuple[torch.Tensor, ...]) -> list[Layer]:
    """Run a few samples and return every layer in the order of their outputs."""
    rows, depth, unit_axis = len(args[0]), 0, -1
    seen: dict[str, tuple[int, ...] | None] = {}
    found: list[Layer] = []

    def before(call: Call, tensor) -> None:
        nonlocal depth
        depth += call.kind == "weight"
        seen[call.name] = sample_shape(call, tensor, rows)

    def after(call: Call, tensor) -> None:
        nonlocal unit_axis
        if call.kind in ("weight", "norm"):
            unit_axis = 1 if isinstance(call.module, CHANNELS_SECOND) else -1
        shape = sample_shape(call, tensor, rows)
        found.append(Layer(call, depth, shape, seen[call.name], unit_axis))

    follow_once(look, args, before, after)
    return found


def sample_shape(call: Call, tensor, rows: int) -> tuple[int, ...] | None:
    """Return the shape of one sample's part of a tensor."""
    rowed = by_sample(call, tensor, rows)
    return None if rowed is None else tuple(rowed.shape[1:])


def by_sample(call: Call, tensor, rows: int) -> torch.Tensor | None:
    """Return a tensor whose first axis is the samples; None where it has none."""
    if tensor is None or tensor.ndim == 0 or not tensor.is_floating_point():
        return None
    if not getattr(call.module, "batch_first", True) and tensor.ndim == 3:
        tensor = tensor.transpose(0, 1)  # sequence first: recurrent layers and attention
    return tensor if len(tensor) == rows else None


def choose_layers(
    found: Sequence[Layer],
    layers: str | Iterable[str],
    caller: str,
    affine: bool = False,
    needs_input: bool = False,
) -> list[Layer]:
    """Return the layers that a keyword or a list of names stands for, in the order of running.

    "weight": layers with weights; "relu": ReLU; "all": both, norms and other activations;
    "feature": for every weight layer the last of these before the next weight layer, so that
    the net's output comes last. A keyword leaves out layers without a row per sample.
    """

    def serves(layer: Layer) -> bool:
        shape = layer.input_shape if needs_input else layer.shape
        return shape is not None and (layer.is_affine or not affine)

    if isinstance(layers, str) and layers in KEYWORDS:
        chosen = [layer for layer in _by_keyword(found, layers) if serves(layer)]
        if not chosen:
            what = {"relu": "ReLU", "weight": "linear or convolutional"}.get(layers, "")
            raise ValueError(
                f"{caller}: the net has no {what + ' ' if what else ''}layer to measure "
                f"(layers={layers!r}); name some of {_names(found)!r} in 'layers'."
            )
        return chosen
    names = check_names(layers, caller, "layers")
    by_name = {layer.name: layer for layer in found}
    for name in names:
        if name not in by_name:
            raise ValueError(_unknown(name, found, caller))
        if not serves(by_name[name]):
            what = "linear or convolutional" if affine else "a layer with one row per sample"
            raise ValueError(
                f"{caller}: layer {name!r} is not {what}, which this measure needs; choose from "
                f"{[layer.name for layer in found if serves(layer)]!r}."
            )
    if not names:
        raise ValueError(f"{caller}: 'layers' is empty; name some of {_names(found)!r}.")
    return [layer for layer in found if layer.name in set(names)]


def _by_keyword(found: Sequence[Layer], keyword: str) -> list[Layer]:
    """Return the layers of one kind."""
    measured = [layer for layer in found if layer.call.kind != "other"]
    if keyword == "feature":
        last = {layer.depth: layer for layer in measured}
        return [layer for depth, layer in last.items() if depth > 0]
    if keyword == "all":
        return measured
    return [layer for layer in measured if layer.call.kind == keyword]


def _names(found: Sequence[Layer]) -> list[str]:
    """Return the names of all layers but the net itself."""
    return [layer.name for layer in found if layer.name]


def _unknown(name, found: Sequence[Layer], caller: str) -> str:
    """Say that there is no such layer, and which come nearest."""
    names = _names(found)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"the nearest are {near!r}" if near else f"its layers are {names!r}"
    return (
        f"{caller}: the net runs no layer {name!r}; {hint}. 'layers' takes such names or one of "
        f"{', '.join(map(repr, KEYWORDS))}."
    )
