"""Where a forward pass applies its weights: recorded once, found again in every later pass."""

from __future__ import annotations

import dataclasses
import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from sklmc.merging._repairs._layer import PROJECTIONS, Norm, WeightLayer
from sklmc.models import Call, ModelView, State, Watcher, named_tensors, tensors_in

CONVOLUTIONS = {functional.conv1d: 1, functional.conv2d: 2, functional.conv3d: 3}
TRANSPOSED = {
    functional.conv_transpose1d: 1,
    functional.conv_transpose2d: 2,
    functional.conv_transpose3d: 3,
}
ATTENTION = functional.multi_head_attention_forward
ADDITIONS = {"add", "add_", "__add__", "__radd__", "__iadd__"}
IDENTITIES = {functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d}

_LAYER_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED_ARGUMENTS = (
    *("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
)
_OPTIONS = (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1), ("output_padding", 0))
_NORM_TENSORS = ("running_mean", "running_var", "weight", "bias")
_ARGUMENTS = {
    **dict.fromkeys((functional.linear, *CONVOLUTIONS), _LAYER_ARGUMENTS),
    **dict.fromkeys(TRANSPOSED, _TRANSPOSED_ARGUMENTS),
    ATTENTION: tuple(inspect.signature(ATTENTION).parameters),
    functional.batch_norm: ("input", *_NORM_TENSORS, "training", "momentum", "eps"),
}


def find_layers(
    look: ModelView, state: State, args: tuple, repeated: bool = False
) -> tuple[list[WeightLayer | Norm], list[str]]:
    """Return layers in the order of their calls, and the weights that belong to none of them.

    Batch norm that follows no layer of its own stands in the list by itself. With `repeated`, a
    layer that is called several times (messages of a graph net) stands there once for each call.
    """
    flow = _Flow(look, state, repeated)
    with Watcher(look, flow.before, flow.after, modules=(), functions=lambda _: True) as watcher:
        watcher.run(args, state)
    trained = {name for name, _ in look.module.named_parameters()}
    matrices = [name for name, tensor in state.items() if name in trained and tensor.ndim > 1]
    layers = flow.layers()
    covered = {
        layer.weight for layer in layers if isinstance(layer, WeightLayer)
    } | flow.find_looked_up()
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


def _swaps(call: Call) -> bool:
    """Say whether a call exchanges the first two axes of a tensor, and no more."""
    is_transpose = getattr(call.function, "__name__", "") == "transpose"
    return is_transpose and {*call.args[1:], *call.kwargs.values()} == {0, 1}


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
    swaps: bool  # it exchanges the first two axes, and no more


class _Flow:
    """Every call of a forward pass, which value went where, and the layers read off that."""

    def __init__(self, look: ModelView, state: State, repeated: bool):
        self.repeated = repeated
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
            output = self._number(outputs[0])
            step = _Step(index, call.function, inputs, output, arguments, _swaps(call))
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

    def layers(self) -> list[WeightLayer | Norm]:
        """Return layers, and the batch norm that is no layer's own, in the order of the calls."""
        layers = [layer for step in self.steps for layer in self._layers(step)]
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

    def _layers(self, step: _Step) -> list[WeightLayer]:
        """Return the layers that a call is: those that own their tensors."""
        if step.func is ATTENTION:
            return self._attention(step)
        axes, given = {**CONVOLUTIONS, **TRANSPOSED}.get(step.func), step.arguments
        if axes is None and step.func is not functional.linear:
            return []
        if axes is not None and given["input"].ndim != axes + 2:
            return []
        kind = "linear" if axes is None else "conv" if step.func in CONVOLUTIONS else "transposed"
        values = () if axes is None else [given.get(*option) for option in _OPTIONS]
        options = tuple(tuple(one) if isinstance(one, list) else one for one in values)
        owned = self._owned(given["weight"], given.get("bias"))
        if owned is not None:
            return [self._layer(step, kind, *owned, options, step.output)]
        if not self.repeated or not self._is_repeated(step):
            return []
        names = self._name(given["weight"]), self._name(given.get("bias"))
        if names[0] is None or (names[1] is None and given.get("bias") is not None):
            return []  # computed from other tensors, as by a re-parametrisation
        return [self._layer(step, kind, *names, options, step.output, may_have_norm=False)]

    def _attention(self, step: _Step) -> list[WeightLayer]:
        """Return the projections of queries, keys and values, and of what is attended to."""
        given, found = step.arguments, []
        width = given["query"].shape[-1]
        for place, kind in enumerate(PROJECTIONS):
            rows = (place * width, (place + 1) * width)
            weight, weight_rows = given["in_proj_weight"], rows
            if given.get("use_separate_proj_weight"):
                weight, weight_rows = given[f"{kind[0]}_proj_weight"], None
            owned = self._owned(weight, given["in_proj_bias"])
            if owned is not None and given.get(f"static_{kind[0]}") is None:
                found.append(
                    WeightLayer(
                        step.index, kind, *owned, (), None, None, 0, False,
                        weight_rows=weight_rows, bias_rows=rows,
                    )
                )  # fmt: skip
        owned = self._owned(given["out_proj_weight"], given["out_proj_bias"])
        if owned is not None:
            reader = self._only_reader(step.output)
            swapped = reader is not None and reader.swaps
            output = reader.output if swapped else step.output
            layer = self._layer(step, "attended", *owned, (), output, may_have_norm=False)
            found.append(dataclasses.replace(layer, is_swapped=swapped))
        return found

    def _owned(self, weight, bias) -> tuple[str, str | None] | None:
        """Return the names of a layer's tensors, if they are its own."""
        names = self._own_name(weight), self._own_name(bias)
        foreign = names[0] is None or (names[1] is None and bias is not None)
        return None if foreign else (names[0], names[1])

    def _layer(
        self,
        step: _Step,
        kind: str,
        weight: str,
        bias: str | None,
        options: tuple,
        output: int,
        may_have_norm: bool = True,
    ) -> WeightLayer:
        """Return a layer with what reads its output, a value by its number."""
        reader = self._only_reader(output)
        norm = self._norm(reader) if may_have_norm and reader is not None else None
        if norm is not None:
            output = reader.output
        addition = self._only_reader(output)
        if addition is not None and not self._is_residual(addition):
            addition = None
        return WeightLayer(
            step.index,
            kind,
            weight,
            bias,
            options,
            norm,
            None if addition is None else addition.index,
            0 if addition is None else addition.inputs.index(output),
            not self.readers[output],
        )

    def _is_repeated(self, step: _Step) -> bool:
        """Say whether whatever uses the tensors of a layer is this layer, called again."""

        def look_of(one: _Step) -> tuple:
            tensors = (self._name(one.arguments.get(key)) for key in ("weight", "bias"))
            return one.func, *tensors, *(str(one.arguments.get(*option)) for option in _OPTIONS)

        names = {self._name(step.arguments.get(key)) for key in ("weight", "bias")} - {None}
        users = [self.uses[name] for name in names]
        alike = all(look_of(one) == look_of(step) for one in users[0]) if users else False
        return alike and all(len(steps) == len(users[0]) for steps in users)

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
