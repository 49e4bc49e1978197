"""The layers of a net in the order in which they run, and which of them a measure is about."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from sklmc._validation import check_names
from sklmc.models import Arrays, Call, ModelView, Watcher, first_tensor

AFFINE = (nn.Linear, nn.modules.conv._ConvNd)
OTHER_WEIGHTS = (nn.Embedding, nn.EmbeddingBag, nn.Bilinear, nn.RNNBase, nn.MultiheadAttention)
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
NOT_ELEMENTWISE = ("MultiheadAttention", "Softmax", "Softmax2d", "Softmin", "LogSoftmax")
ACTIVATIONS = tuple(
    getattr(nn, name) for name in nn.modules.activation.__all__ if name not in NOT_ELEMENTWISE
)


def _functions(names: Iterable[str]) -> frozenset[Callable]:
    """Return torch's functions and methods of these names, those that work in place among them."""
    return frozenset(
        getattr(space, name)
        for space in (functional, torch, torch.Tensor)
        for name in dir(space)
        if name.replace("_", "") in names
    )


RELU_FUNCTIONS, CLAMPS = _functions(["relu"]), _functions(["clamp"])
ACTIVATION_FUNCTIONS = _functions(
    ["abs", "clamp", *(activation.__name__.lower() for activation in ACTIVATIONS)]
)

KEYWORDS = ("all", "feature", "relu", "weight")
CHANNELS_SECOND = (*AFFINE[1:], nn.modules.batchnorm._NormBase, nn.GroupNorm)


@dataclass(frozen=True)
class Layer:
    """One layer as a sample run found it.

    `shape` and `input_shape` are those of one sample, None where a layer has no row per sample.
    `depth` counts the weight layers up to here, this one included.
    """

    name: str  # the module's path; ``path.function()`` for a function; a second use ends in ``:1``
    path: str
    kind: str  # "weight", "norm", "relu", "activation" or "other"
    module: nn.Module | None  # None for a function
    function: Callable[[torch.Tensor], torch.Tensor] | None  # an activation
    depth: int
    shape: tuple[int, ...] | None
    input_shape: tuple[int, ...] | None
    unit_axis: int  # axis of a batch's output along which the units lie


def trace_layers(look: ModelView, args: tuple[torch.Tensor, ...]) -> list[Layer]:
    """Run a few samples and return every layer in the order of their outputs."""
    rows, depth, unit_axis = len(Arrays(*args)), 0, -1
    begun: dict[str, tuple[int, ...] | None] = {}
    found: list[Layer] = []

    def before(call: Call) -> None:
        nonlocal depth
        depth += call_kind(call) == "weight"
        begun[call.name] = _sample_shape(call.module, call.input, rows)

    def after(call: Call, output) -> None:
        nonlocal unit_axis
        kind = call_kind(call)
        if kind is None:
            return
        if kind in ("weight", "norm"):
            unit_axis = 1 if isinstance(call.module, CHANNELS_SECOND) else -1
        shape = _sample_shape(call.module, first_tensor(output), rows)
        place = (depth, shape, begun[call.name], unit_axis)
        function = _as_function(call, kind)
        found.append(Layer(call.name, call.path, kind, call.module, function, *place))

    with Watcher(look, before, after, functions=is_activation_function) as watcher:
        watcher.run(args)
    return found


def module_kind(module: nn.Module) -> str:
    """Say what a module does to its input."""
    if isinstance(module, (*AFFINE, *OTHER_WEIGHTS)):
        return "weight"
    if isinstance(module, NORMS):
        return "norm"
    if isinstance(module, nn.ReLU):
        return "relu"
    return "activation" if type(module) in ACTIVATIONS else "other"


def is_activation_function(func: Callable) -> bool:
    """Say whether a torch function is an activation, or may be one (a clamp)."""
    return func in ACTIVATION_FUNCTIONS


def call_kind(call: Call) -> str | None:
    """Return "weight", "norm", "relu", "activation" or "other"; None for what is no layer.

    An activation function inside an activation module is that module's own.
    """
    if call.module is not None:
        return module_kind(call.module)
    inside = call.inside
    if inside is not None and module_kind(inside.module) in ("relu", "activation"):
        return None
    if not call.args or not isinstance(call.args[0], torch.Tensor):
        return None
    if call.function in CLAMPS:
        bounds = [*call.args[1:], *[None] * 2][:2]
        low, high = call.kwargs.get("min", bounds[0]), call.kwargs.get("max", bounds[1])
        zero = isinstance(low, (int, float)) and low == 0
        return "relu" if zero and high is None else None
    return "relu" if call.function in RELU_FUNCTIONS else "activation"


def _as_function(call: Call, kind: str) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return an activation, with the options that it was called with, as a function of a tensor."""
    if kind not in ("relu", "activation"):
        return None
    if call.module is not None:
        return call.module
    func, rest, kwargs = call.function, call.args[1:], call.kwargs
    return lambda tensor: func(tensor, *rest, **kwargs)


def _sample_shape(module, tensor, rows: int) -> tuple[int, ...] | None:
    """Return the shape of one sample's part of a tensor."""
    rowed = by_sample(module, tensor, rows)
    return None if rowed is None else tuple(rowed.shape[1:])


def by_sample(module: nn.Module | None, tensor, rows: int) -> torch.Tensor | None:
    """Return a tensor whose first axis is the samples; None where it has none."""
    if tensor is None or tensor.ndim == 0 or not tensor.is_floating_point():
        return None
    if not getattr(module, "batch_first", True) and tensor.ndim == 3:
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
        return shape is not None and (isinstance(layer.module, AFFINE) or not affine)

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
            near = difflib.get_close_matches(name, _names(found), n=3, cutoff=0.5)
            hint = f"the nearest are {near!r}" if near else f"its layers are {_names(found)!r}"
            raise ValueError(
                f"{caller}: the net runs no layer {name!r}; {hint}. 'layers' takes such names or "
                f"one of {', '.join(map(repr, KEYWORDS))}."
            )
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
    measured = [layer for layer in found if layer.kind != "other"]
    if keyword == "feature":
        last = {layer.depth: layer for layer in measured}
        return [layer for depth, layer in last.items() if depth > 0]
    if keyword == "all":
        return measured
    return [layer for layer in measured if layer.kind == keyword]


def _names(found: Sequence[Layer]) -> list[str]:
    """Return the names of all layers but the net itself."""
    return [layer.name for layer in found if layer.name]


def linear_part(layer: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Return what a linear or convolutional layer makes of its inputs, less its bias."""
    with torch.no_grad():
        outputs = layer(inputs)
        if layer.bias is None:
            return outputs
        if isinstance(layer, nn.Linear):
            return outputs - layer.bias
        return outputs - layer.bias.reshape(-1, *[1] * len(layer.kernel_size))


def weight_matrix(layer: nn.Module) -> torch.Tensor:
    """Return a layer's weights in float64 with one row per output unit."""
    weight = layer.weight.detach().double().cpu()
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        n_in, per_group = weight.shape[:2]
        kernel = weight.shape[2:]
        groups = layer.groups
        weight = weight.reshape(groups, n_in // groups, per_group, *kernel).transpose(1, 2)
        weight = weight.flatten(0, 1)  # (n_out, n_in / groups, *kernel)
    return weight.flatten(1)
