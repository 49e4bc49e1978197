"""Where a forward pass applies its weights: recorded once, found again in every later pass."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from sklmc.models import Call, ModelView, State, Watcher, named_tensors, tensors_in

CONVOLUTIONS = {functional.conv1d: 1, functional.conv2d: 2, functional.conv3d: 3}
ADDITIONS = {"add", "add_", "__add__", "__radd__", "__iadd__"}
IDENTITIES = {functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d}

_LAYER_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_NORM_TENSORS = ("running_mean", "running_var", "weight", "bias")
_ARGUMENTS = {
    **dict.fromkeys((functional.linear, *CONVOLUTIONS), _LAYER_ARGUMENTS),
    functional.batch_norm: ("input", *_NORM_TENSORS, "training", "momentum", "eps"),
}


@dataclasses.dataclass(frozen=True)
class Norm:
    """Batch norm in eval mode: which call it is, and its tensors (None where it has none)."""

    call: int
    mean: str
    variance: str
    scale: str | None
    shift: str | None
    eps: float


@dataclasses.dataclass(frozen=True)
class Layer:
    """A linear or convolution layer: which call it is, its tensors, and what reads its output."""

    call: int
    kind: str  # "linear" or "conv"
    weight: str
    bias: str | None
    options: tuple  # stride, padding, dilation, groups of a convolution
    norm: Norm | None  # batch norm that alone reads the output
    addition: int | None  # residual addition that alone reads what comes out of layer and norm
    operand: int  # which operand of that addition it is
    is_output: bool  # nothing reads it

    @property
    def target(self) -> int:
        """The call whose output the layer answers for, before any addition."""
        return self.call if self.norm is None else self.norm.call

    @property
    def groups(self) -> int:
        """Number of groups of channels that do not see each other."""
        return self.options[3] if self.options else 1


def find_layers(look: ModelView, state: State, args: tuple) -> tuple[list[Layer | Norm], list[str]]:
    """Return layers in the order of their calls, and the weights that belong to none of them.

    Batch norm that follows no layer of its own stands in the list by itself.
    """
    flow = _Flow(look, state)
    with Watcher(look, flow.before, flow.after, modules=(), functions=lambda _: True) as watcher:
        watcher.run(args, state)
    trained = {name for name, _ in look.module.named_parameters()}
    matrices = [name for name, tensor in state.items() if name in trained and tensor.ndim > 1]
    layers = flow.layers()
    covered = {layer.weight for layer in layers if isinstance(layer, Layer)} | flow.find_looked_up()
    return layers, [name for name in matrices if name not in covered]


def replace_tensors(look: ModelView, state: dict, changes: Mapping[str, torch.Tensor]) -> None:
    """Put tensors into a state, under all of their names, as what was there: dtype and device."""
    names = _all_names(look)
    for name, tensor in changes.items():
        like = state[name]
        state.update((same, tensor.to(like)) for same in names[name])


def _all_names(look: ModelView) -> dict[str, list[str]]:
    """Return all names of each tensor under its first one."""
    names: dict[int, list[str]] = {}
    for name, tensor in named_tensors(look.module):
        names.setdefault(id(tensor), []).append(name)
    return {same[0]: same for same in names.values()}


def takes_part(func) -> bool:
    """Say whether a function is one that layers are made of."""
    return func in _ARGUMENTS or getattr(func, "__name__", "") in ADDITIONS


def name_arguments(call: Call) -> dict:
    """Return the arguments of a call by name; defaults are left out."""
    order = _ARGUMENTS.get(call.function, ("input", "other"))
    return {**dict(zip(order, call.args, strict=False)), **call.kwargs}


@dataclasses.dataclass
class _Step:
    """What the data flow keeps of one call."""

    index: int | None  # among the calls that matter
    func: Callable
    inputs: list[int]  # numbers of the values that it reads
    output: int
    arguments: dict


class _Flow:
    """Every call of a forward pass, which value went where, and the layers read off that."""

    def __init__(self, look: ModelView, state: State):
        # the first name of each tensor that the module computes with, by identity
        self.names = {
            id(state[name]): same[0] for same in _all_names(look).values() for name in same
        }
        self.uses: dict[str, list[_Step]] = defaultdict(list)  # of the module's tensors
        self.steps: list[_Step] = []
        self.readers: dict[int, list[_Step]] = defaultdict(list)  # of a value, by its number
        self.numbers: dict[int, int] = {}  # of the value that an object holds now, by identity
        self.shapes: list[torch.Size] = []  # by number
        self._alive: list[torch.Tensor] = []  # so that no identity is used twice
        self._inputs: list[list[int]] = []  # of the calls that have begun
        self._n_calls = 0

    def before(self, call: Call) -> None:
        """Number what goes in."""
        self._inputs.append([self._number(one) for one in tensors_in((call.args, call.kwargs))])

    def after(self, call: Call, output) -> None:
        """Write the call down."""
        inputs, outputs = self._inputs.pop(), list(tensors_in(output))
        index, arguments = None, {}
        if takes_part(call.function):
            index, self._n_calls = self._n_calls, self._n_calls + 1
            arguments = name_arguments(call)
        if outputs and call.function in IDENTITIES:
            self.numbers[id(outputs[0])] = inputs[0]
            self._alive.append(outputs[0])
        elif outputs:
            for one in outputs:
                self._renumber(one)  # in-place calls too: the object holds a new value
            step = _Step(index, call.function, inputs, self._number(outputs[0]), arguments)
            self.steps.append(step)
            for number in set(inputs):
                self.readers[number].append(step)
            for name in {self._name(one) for one in tensors_in((call.args, call.kwargs))} - {None}:
                self.uses[name].append(step)

    def _number(self, tensor: torch.Tensor) -> int:
        """Return the number of the value that a tensor holds."""
        if id(tensor) not in self.numbers:
            self._renumber(tensor)
        return self.numbers[id(tensor)]

    def _renumber(self, tensor: torch.Tensor) -> None:
        """Give the value of a new or overwritten tensor a number of its own."""
        self.numbers[id(tensor)] = len(self.shapes)
        self.shapes.append(tensor.shape)
        self._alive.append(tensor)

    def layers(self) -> list[Layer | Norm]:
        """Return layers, and the batch norm that is no layer's own, in the order of the calls."""
        layers = [layer for layer in map(self._layer, self.steps) if layer is not None]
        owned = {layer.target for layer in layers}
        norms = [self._norm(step) for step in self.steps if step.index not in owned]
        lone = [norm for norm in norms if norm is not None]
        return sorted([*layers, *lone], key=lambda one: one.call)

    def find_looked_up(self) -> set[str]:
        """Return the embeddings: their mean is the mean of what they give."""
        return {
            name
            for name, steps in self.uses.items()
            if all(step.func is functional.embedding for step in steps)
        }

    def _name(self, value) -> str | None:
        """Return the name of a tensor of the module."""
        return self.names.get(id(value)) if isinstance(value, torch.Tensor) else None

    def _own_name(self, value) -> str | None:
        """Return the name of a tensor of the module that a single call uses."""
        name = self._name(value)
        return name if name is not None and len(self.uses[name]) == 1 else None

    def _layer(self, step: _Step) -> Layer | None:
        """Return the layer that a call is, if it is one and owns its tensors."""
        conv, given = step.func in CONVOLUTIONS, step.arguments
        if not conv and step.func is not functional.linear:
            return None
        weight, bias = self._own_name(given["weight"]), self._own_name(given.get("bias"))
        if weight is None or (bias is None and given.get("bias") is not None):
            return None
        if conv and given["input"].ndim != CONVOLUTIONS[step.func] + 2:
            return None
        output, reader = step.output, self._only_reader(step.output)
        norm = None if reader is None else self._norm(reader)
        if norm is not None:
            output = reader.output
        addition = self._only_reader(output)
        if addition is not None and not self._is_residual(addition):
            addition = None
        defaults = (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1))
        return Layer(
            step.index,
            "conv" if conv else "linear",
            weight,
            bias,
            tuple(given.get(key, default) for key, default in defaults) if conv else (),
            norm,
            None if addition is None else addition.index,
            0 if addition is None else addition.inputs.index(output),
            not self.readers[output],
        )

    def _norm(self, step: _Step) -> Norm | None:
        """Return the batch norm that a call is, if it owns its tensors and is in eval mode."""
        given = step.arguments
        if step.func is not functional.batch_norm or given.get("training"):
            return None
        tensors = [given.get(key) for key in _NORM_TENSORS]
        mean, variance, scale, shift = names = [self._own_name(tensor) for tensor in tensors]
        foreign = any(name is None and one is not None for name, one in zip(names, tensors))
        if foreign or mean is None or variance is None:
            return None
        return Norm(step.index, mean, variance, scale, shift, float(given.get("eps", 1e-5)))

    def _only_reader(self, number: int) -> _Step | None:
        """Return the call that alone reads a value."""
        steps = self.readers[number]
        return steps[0] if len(steps) == 1 else None

    def _is_residual(self, step: _Step) -> bool:
        """Say whether a call adds two different values of one shape."""
        if getattr(step.func, "__name__", "") not in ADDITIONS or len(step.inputs) != 2:
            return False
        a, b = step.inputs
        shapes = {self.shapes[number] for number in (a, b, step.output)}
        return a != b and step.arguments.get("alpha", 1) == 1 and len(shapes) == 1
