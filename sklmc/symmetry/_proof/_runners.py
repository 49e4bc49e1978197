"""Running a net in float64 on the CPU, with any tensors in the place of its own, and how much its
outputs changed.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from sklmc._torch import seeded
from sklmc.models import plain_output
from sklmc.symmetry._tracing._graph import Graph, Walk, bind, flatten, live_nodes, written_bases

TOLERANCE = 1e-9  # largest relative change of an output that rounding may cause in float64
NARROW_TOLERANCE = 1e-5  # the same where some operation runs in float32 alone
_TINY = 1e-4  # of the largest output: below, rounding may be most of an output
_PROBABILITIES = {"p", "dropout_p", "dropout"}
_WIDER = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
}
_WIDE_CASTS = {
    torch.Tensor.float: torch.Tensor.double,
    torch.Tensor.half: torch.Tensor.double,
    torch.Tensor.bfloat16: torch.Tensor.double,
}


def widen(value):
    """Return a tensor as float64 on the CPU; integers keep their type."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return value.to(_WIDER.get(value.dtype, value.dtype))
    return value


def _narrow(value):
    """Return a wide tensor or dtype in single precision."""
    narrow = {torch.float64: torch.float32, torch.complex128: torch.complex64}
    if isinstance(value, torch.Tensor):
        return value.to(narrow.get(value.dtype, value.dtype))
    return narrow.get(value, value) if isinstance(value, torch.dtype) else value


def _kept_wide(value):
    """Return what an operation made as float64 on the CPU, on the tape; views stay views."""
    if isinstance(value, torch.Tensor):
        wide = _WIDER.get(value.dtype)
        return value if wide is None and value.is_cpu else value.to("cpu", wide or value.dtype)
    if type(value) in (tuple, list):
        return type(value)(_kept_wide(part) for part in value)
    return value


class Widening(TorchFunctionMode):
    """Within it, whatever a module makes is as wide as its weights: float64.

    A first recurrent state, a mask or an identity matrix that forward makes without a dtype has
    torch's default one, and casts name narrow ones. The default itself is left alone: it belongs
    to all threads, a mode to its own only.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call a function of torch with wide types and tensors; widen what it returns."""
        func = _WIDE_CASTS.get(func, func)
        kwargs = {name: _wide_argument(value) for name, value in (kwargs or {}).items()}
        if _writes(getattr(func, "__name__", "")):
            return func(*args[:1], *map(_wide_argument, args[1:]), **kwargs)
        return _kept_wide(func(*map(_wide_argument, args), **kwargs))


def _writes(name: str) -> bool:
    """Say whether a function of this name writes into its first argument: add_, __iadd__."""
    if name.startswith("__"):
        return name.startswith(("__set", "__i"))
    return name.endswith("_")


def _wide_argument(value):
    """Return a dtype or a tensor as wide as float64, anything else as it is."""
    if isinstance(value, torch.dtype):
        return _WIDER.get(value, value)
    if isinstance(value, torch.Tensor) and value.dtype in _WIDER:
        return value.to(_WIDER[value.dtype])
    return value


class GraphRunner(Walk):
    """A graph as a pure function of its state: everything in float64, dropout off.

    Casts to narrower types in the graph are widened as well, and so is what it makes without
    naming a type, so that equal functions agree to rounding of float64. An operation that does
    not run in float64 runs in float32, and `is_narrow` says so.
    """

    def __init__(self, graph: Graph, inputs: tuple):
        super().__init__(graph)
        flat = list(flatten(inputs))
        places = [entry.node for entry in graph.entries if entry.kind == "input"]
        self.inputs = dict(zip(places, (widen(value) for value in flat), strict=True))
        self.constants = {name: widen(tensor) for name, tensor in graph.constants.items()}
        self._written = written_bases(graph.module.graph)
        self.is_random = any(_is_random(node) for node in live_nodes(graph.module.graph))
        self.is_narrow = False
        self._arguments: dict[torch.fx.Node, tuple] = {}

    def __call__(self, state: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Return the tensors that leave the net; neither state nor inputs are changed.

        Steps that are random (stochastic depth) draw the same numbers in every call.
        """
        with seeded(0) if self.is_random else contextlib.nullcontext():
            return self._outputs(state)

    def _outputs(self, state: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Put state, inputs and constants into their places and run."""
        values = {}
        for entry in self.graph.entries:
            if entry.kind == "input":
                value = self.inputs[entry.node]
            elif entry.kind == "constant":
                value = self.constants[entry.name]
            else:
                value = state[entry.name]
            written = entry.is_buffer or entry.node in self._written  # batch_norm does not say so
            values[entry.node] = value.clone() if written else value
        outputs = self.walk(self.graph.module, values)
        return [value for value in flatten(outputs) if isinstance(value, torch.Tensor)]

    def attribute(self, node: torch.fx.Node, value):
        """Return a constant in float64."""
        return widen(value)

    def arguments(self, node: torch.fx.Node) -> tuple[tuple, dict]:
        """Return a node's arguments with wide types, no dropout, everything on the CPU."""
        if node not in self._arguments:
            self._arguments[node] = _widened_arguments(node)
        return self._arguments[node]

    def call(self, node: torch.fx.Node, args: tuple, kwargs: dict):
        """Run one operation."""
        if node.target is torch.ops.aten.batch_norm.default and _wants_gradient(args[3:5]):
            return _batch_norm(*args)
        if node.target is torch.ops.aten.view.default and not args[0].is_contiguous():
            # wide kernels may lay memory out otherwise than those of the trace; where a view is
            # possible, this is one
            return args[0].reshape(args[1])
        if node.target is torch.ops.aten.view_as_complex.default and args[0].stride(-1) != 1:
            args = (args[0].contiguous(),)  # as above: a copy that the trace had no need of
        try:
            return _kept_wide(node.target(*args, **kwargs))
        except (RuntimeError, TypeError, NotImplementedError) as error:
            try:
                found = node.target(*tree_map(_narrow, args), **tree_map(_narrow, kwargs))
            except (RuntimeError, TypeError, NotImplementedError):
                raise error from None
            self.is_narrow = True
            return _kept_wide(found)


class ModuleRunner:
    """A module that cannot be traced, run as it is in float64 and eval mode."""

    is_random = False
    is_narrow = False

    def __init__(self, module: nn.Module, inputs: tuple):
        self.module = copy.deepcopy(module).cpu().double().eval()
        self.inputs = inputs

    def __call__(self, state: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Return the tensors that leave the net."""
        with Widening():
            outputs = functional_call(self.module, dict(state), self.inputs, tie_weights=False)
        return [v for v in flatten(plain_output(outputs)) if isinstance(v, torch.Tensor)]


def _is_random(node: torch.fx.Node) -> bool:
    """Say whether a node draws numbers although dropout is off."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    if any(word in str(node.target) for word in ("dropout", "attention", "lstm", "gru", "rnn_")):
        return False
    # rrelu: randomised slopes in train mode, their mean in eval mode
    return bool(bind(node, node.args, node.kwargs).get("training", True))


def _wants_gradient(tensors) -> bool:
    """Say whether the gradient of running statistics is asked for."""
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _batch_norm(x, weight, bias, mean, var, training, momentum, eps, cudnn):
    """Batch norm with derivatives in the running statistics, which torch's does not have."""
    if training:
        plain = (value.detach().clone() for value in (mean, var))
        return torch.batch_norm(x, weight, bias, *plain, training, momentum, eps, cudnn)
    shape = (1, -1, *(1,) * (x.ndim - 2))
    scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
    shift = -mean * scale if bias is None else bias - mean * scale
    return x * scale.view(shape) + shift.view(shape)


def _widened_arguments(node: torch.fx.Node) -> tuple[tuple, dict]:
    """Return a node's arguments with wide types, no dropout, everything on the CPU."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    random = "dropout" in str(node.target) or "attention" in str(node.target)
    recurrent = names[:1] == ["input"] and "params" in names

    def changed(name, value):
        if isinstance(value, torch.dtype):
            return _WIDER.get(value, value)
        if isinstance(value, torch.device):
            return torch.device("cpu")
        if (random or recurrent) and name in _PROBABILITIES and isinstance(value, (int, float)):
            return 0.0
        return value

    args = tuple(
        changed(names[i] if i < len(names) else None, value) for i, value in enumerate(node.args)
    )
    kwargs = {name: changed(name, value) for name, value in node.kwargs.items()}
    return args, kwargs


def output_change(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    """Return the largest change of an output relative to its largest value.

    An output that is tiny beside the net's other outputs is measured by those: it may be zero up
    to rounding.
    """
    worst = 0.0
    for a, b, scale in zip(before, after, scales(before), strict=True):
        if not (a.is_floating_point() or a.is_complex()):
            worst = max(worst, 0.0 if torch.equal(a, b) else float("inf"))
            continue
        finite = torch.isfinite(a)
        if not torch.equal(finite, torch.isfinite(b)):
            return float("inf")
        if finite.any():
            worst = max(worst, float((a[finite] - b[finite]).abs().max()) / scale)
    return worst


def scales(outputs: Sequence[torch.Tensor]) -> list[float]:
    """Return by what each output is measured: its largest finite value, none by far the least."""
    sizes = [_largest(value) for value in outputs]
    least = _TINY * max(sizes, default=0.0)
    return [max(size, least) or 1.0 for size in sizes]


def _largest(value: torch.Tensor) -> float:
    """Return the largest finite absolute value of a floating tensor; 0 where there is none."""
    if not (value.is_floating_point() or value.is_complex()):
        return 0.0
    finite = value.detach()[torch.isfinite(value)]
    return float(finite.abs().max()) if finite.numel() else 0.0
