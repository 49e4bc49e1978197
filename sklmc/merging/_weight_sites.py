"""Where a forward pass applies its weights: recorded once, found again in every later pass."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import torch
from torch.nn import functional

from sklmc.models import Call, ModelView, State, Watcher, end_pass, named_tensors

CONVOLUTIONS = {functional.conv1d: 1, functional.conv2d: 2, functional.conv3d: 3}
ADDITIONS = {"add", "add_", "__add__", "__radd__", "__iadd__"}
IDENTITIES = {functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d}

_CONVOLUTION_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_NORM_ARGUMENTS = (
    *("input", "running_mean", "running_var", "weight", "bias"),
    *("training", "momentum", "eps"),
)


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
class Site:
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


class Probe:
    """What a pass does at one call; either half may be left out."""

    def before(self, arguments: dict) -> None:
        """Read the call's arguments."""

    def after(self, output: torch.Tensor) -> None:
        """Read the call's output."""


def watch(look: ModelView, args: tuple, state: State, probes: Mapping[int, Probe]) -> None:
    """Run one block, with a probe at each of some calls, and stop after the last of these."""
    last = max(probes)

    def before(call: Call) -> None:
        if call.index in probes:
            probes[call.index].before(_arguments(call))

    def after(call: Call, output) -> None:
        if call.index in probes:
            probes[call.index].after(output)
        if call.index == last:
            end_pass()

    with Watcher(look, before, after, modules=(), functions=_matters) as watcher:
        watcher.run(args, state)


def find_sites(look: ModelView, state: State, args: tuple) -> tuple[list[Site | Norm], list[str]]:
    """Return layers in the order of their calls, and the weights that belong to none of them.

    Batch norm that follows no layer of its own stands in the list by itself.
    """
    flow = _Flow()
    with Watcher(look, flow.before, flow.after, modules=(), functions=_any_function) as watcher:
        watcher.run(args, state)
    finder = _SiteFinder(flow, _tensor_names(look, state))
    trained = {name for name, _ in look.module.named_parameters()}
    matrices = [name for name, tensor in state.items() if name in trained and tensor.ndim > 1]
    sites = finder.sites()
    covered = {site.weight for site in sites if isinstance(site, Site)} | finder.find_looked_up()
    return sites, [name for name in matrices if name not in covered]


def all_names(look: ModelView) -> dict[str, list[str]]:
    """Return all names of each tensor under its first one."""
    names: dict[int, list[str]] = {}
    for name, tensor in named_tensors(look.module):
        names.setdefault(id(tensor), []).append(name)
    return {same[0]: same for same in names.values()}


def _tensor_names(look: ModelView, state: State) -> dict[int, str]:
    """Return the first name of each tensor that the module computes with, by identity."""
    return {id(state[name]): same[0] for same in all_names(look).values() for name in same}


def _arguments(call: Call) -> dict:
    """Return the arguments of a call by name; defaults are left out."""
    order: tuple[str, ...]
    if call.function in CONVOLUTIONS or call.function is functional.linear:
        order = _CONVOLUTION_ARGUMENTS
    else:
        order = _NORM_ARGUMENTS if call.function is functional.batch_norm else ("input", "other")
    return {**dict(zip(order, call.args, strict=False)), **call.kwargs}


def _matters(func) -> bool:
    """Say whether a function is one that sites are made of."""
    return (
        func is functional.linear
        or func in CONVOLUTIONS
        or func is functional.batch_norm
        or getattr(func, "__name__", "") in ADDITIONS
    )


def _any_function(func) -> bool:
    """Say that every function counts."""
    return True


@dataclasses.dataclass
class _Step:
    """What the data flow keeps of one call."""

    index: int | None  # among the calls that matter
    func: Callable
    inputs: list[int]  # numbers of the values that it reads
    output: int
    arguments: dict


class _Flow:
    """Every call of a forward pass, and which value went where."""

    def __init__(self):
        self.steps: list[_Step] = []
        self.numbers: dict[int, int] = {}  # of the value that an object holds now, by identity
        self.shapes: list[torch.Size] = []  # by number
        self._alive: list[torch.Tensor] = []  # so that no identity is used twice
        self._inputs: list[list[int]] = []  # of the calls that have begun
        self._n_calls = 0

    def before(self, call: Call) -> None:
        """Number what goes in."""
        self._inputs.append([self._number(one) for one in _tensors((call.args, call.kwargs))])

    def after(self, call: Call, output) -> None:
        """Write the call down."""
        inputs, outputs = self._inputs.pop(), list(_tensors(output))
        index = None
        if _matters(call.function):
            index, self._n_calls = self._n_calls, self._n_calls + 1
        if outputs and call.function in IDENTITIES:
            self.numbers[id(outputs[0])] = inputs[0]
            self._alive.append(outputs[0])
        elif outputs:
            for one in outputs:
                self._renumber(one)  # in-place calls too: the object holds a new value
            arguments = {} if index is None else _arguments(call)
            number = self._number(outputs[0])
            self.steps.append(_Step(index, call.function, inputs, number, arguments))

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


class _SiteFinder:
    """Reads layers off the data flow of a pass."""

    def __init__(self, flow: _Flow, names: Mapping[int, str]):
        self.flow = flow
        self.names = names
        self.readers: dict[int, list[_Step]] = defaultdict(list)
        self.uses: dict[str, int] = defaultdict(int)
        for call in flow.steps:
            for number in set(call.inputs):
                self.readers[number].append(call)
            for tensor in call.arguments.values():
                if self._name(tensor) is not None:
                    self.uses[self._name(tensor)] += 1

    def sites(self) -> list[Site | Norm]:
        """Return layers, and the batch norm that is no layer's own, in the order of the calls."""
        found: list[Site | Norm] = []
        owned = set()
        for call in self.flow.steps:
            site = self._site(call)
            if site is not None:
                found.append(site)
                owned.add(site.target)
        for call in self.flow.steps:
            if call.func is functional.batch_norm and call.index not in owned:
                norm = self._norm(call)
                if norm is not None:
                    found.append(norm)
        return sorted(found, key=lambda one: one.call)

    def find_looked_up(self) -> set[str]:
        """Return the embeddings: their mean is the mean of what they give."""
        numbers = {
            number
            for number, calls in self.readers.items()
            if all(call.func is functional.embedding for call in calls)
        }
        return {
            name
            for identity, name in self.names.items()
            if self.flow.numbers.get(identity) in numbers
        }

    def _name(self, value) -> str | None:
        """Return the name of a tensor of the module."""
        return self.names.get(id(value)) if isinstance(value, torch.Tensor) else None

    def _site(self, call: _Step) -> Site | None:
        """Return the layer that a call is, if it is one and owns its tensors."""
        conv = call.func in CONVOLUTIONS
        if not conv and call.func is not functional.linear:
            return None
        given = call.arguments
        weight, bias = self._name(given["weight"]), self._name(given.get("bias"))
        if weight is None or self.uses[weight] > 1:
            return None
        if given.get("bias") is not None and (bias is None or self.uses[bias] > 1):
            return None
        if conv and given["input"].ndim != CONVOLUTIONS[call.func] + 2:
            return None
        output, norm, reader = call.output, None, self._only_reader(call.output)
        if reader is not None and reader.func is functional.batch_norm:
            norm = self._norm(reader)
            output = output if norm is None else reader.output
        addition = self._only_reader(output)
        if addition is not None and not self._is_residual(addition):
            addition = None
        defaults = (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1))
        return Site(
            call.index,
            "conv" if conv else "linear",
            weight,
            bias,
            tuple(given.get(key, default) for key, default in defaults) if conv else (),
            norm,
            None if addition is None else addition.index,
            0 if addition is None else addition.inputs.index(output),
            not self.readers[output],
        )

    def _norm(self, call: _Step) -> Norm | None:
        """Return the batch norm that a call is, if it owns its tensors and is in eval mode."""
        given = call.arguments
        tensors = [given.get(key) for key in ("running_mean", "running_var", "weight", "bias")]
        mean, variance, scale, shift = (self._name(tensor) for tensor in tensors)
        foreign = any(
            tensor is not None and (self._name(tensor) is None or self.uses[self._name(tensor)] > 1)
            for tensor in tensors
        )
        if foreign or mean is None or variance is None or given.get("training"):
            return None
        return Norm(call.index, mean, variance, scale, shift, float(given.get("eps", 1e-5)))

    def _only_reader(self, number: int) -> _Step | None:
        """Return the call that alone reads a value."""
        calls = self.readers[number]
        return calls[0] if len(calls) == 1 else None

    def _is_residual(self, call: _Step) -> bool:
        """Say whether a call adds two different values of one shape."""
        if getattr(call.func, "__name__", "") not in ADDITIONS or len(call.inputs) != 2:
            return False
        a, b = call.inputs
        shapes = [self.flow.shapes[number] for number in (a, b, call.output)]
        plain = call.arguments.get("alpha", 1) == 1
        return a != b and plain and shapes[0] == shapes[1] == shapes[2]


def _tensors(value) -> Iterator[torch.Tensor]:
    """Yield the tensors inside nested tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
