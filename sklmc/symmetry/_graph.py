"""The graph of a forward pass: exported, read, hashed."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import logging
import operator
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.export.graph_signature import InputKind, OutputKind

from sklmc._torch import to_device
from sklmc.exceptions import TraceError

ROWS = ((256, 8), (2048, 4))  # numbers in one sample up to which so many rows are traced; then 2
_LOGGERS = (
    "torch.export",
    "torch.fx.experimental.symbolic_shapes",
    "torch._subclasses.fake_tensor",
)
_TORCH = str(Path(torch.__file__).parent)
_SKLMC = str(Path(__file__).parents[1])


@dataclass(frozen=True)
class Entry:
    """One placeholder of a graph: where its value comes from."""

    node: torch.fx.Node
    kind: str  # "input", "tensor" (named in the state) or "constant"
    name: str
    is_buffer: bool = False


@dataclass
class Graph:
    """A forward pass in one mode: its nodes, what enters, what leaves."""

    module: torch.fx.GraphModule
    entries: list[Entry]
    outputs: list[torch.fx.Node]
    constants: dict[str, torch.Tensor]
    training: bool
    _hash: str | None = field(default=None, repr=False)

    @property
    def hash(self) -> str:
        """Digest of everything that the labels depend on: ops, shapes, constants."""
        if self._hash is None:
            self._hash = _digest(self)
        return self._hash


def trace_input(sample: tuple) -> tuple:
    """Return forward's arguments with a number of rows that depends on their shape alone."""
    tensors = [part for part in sample if isinstance(part, torch.Tensor)]
    if len(sample) == 1 and tensors and tensors[0].ndim > 0:
        size = tensors[0][0].numel()
        rows = next((rows for limit, rows in ROWS if size <= limit), 2)
        return (tensors[0][torch.arange(rows) % len(tensors[0])],)
    return sample


def export_graph(module: nn.Module, sample: tuple, *, training: bool, caller: str) -> Graph:
    """Export the forward pass of a private copy of a module; the module itself is not touched."""
    private = copy.deepcopy(module, {id(p): p for p in module.parameters()}).train(training)
    if training:
        _give_momentum(private)
    tensors = [*private.parameters(), *private.buffers()]
    if tensors:
        sample = to_device(sample, tensors[0].device) if _all_tensors(sample) else sample
    try:
        with _quiet():
            program = torch.export.export(private, sample, strict=False)
            if any(_is_functorch(node) for node in program.graph.nodes):
                program = program.run_decompositions({})  # vmap, written out as plain operations
    except Exception as error:
        raise _trace_error(error, module, caller) from error
    return _read(program, training)


def _give_momentum(module: nn.Module) -> None:
    """Give batch norms without momentum one: a cumulative average counts calls, which no trace can.

    Only the running statistics depend on it, and in train mode no output depends on those.
    """
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.momentum is None:
            part.momentum = 0.1


def _is_functorch(node: torch.fx.Node) -> bool:
    """Say whether a node opens, fills or closes a level of torch.vmap."""
    return getattr(node.target, "__module__", "") == "torch._functorch.predispatch"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep export from printing graphs, logs and warnings where it fails: we raise instead."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    printed = io.StringIO()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
        sys.stderr.write(printed.getvalue())  # no failure: what others said meanwhile
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _all_tensors(sample: tuple) -> bool:
    """Say whether all of forward's arguments are tensors."""
    return all(isinstance(part, torch.Tensor) for part in sample)


def _read(program, training: bool) -> Graph:
    """Read names and kinds of placeholders from an exported program."""
    specs = program.graph_signature.input_specs
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    entries, constants = [], {}
    for node, spec in zip(nodes, specs, strict=True):
        if spec.kind is InputKind.USER_INPUT:
            entries.append(Entry(node, "input", node.name))
        elif spec.kind is InputKind.PARAMETER or (
            spec.kind is InputKind.BUFFER and spec.persistent is not False
        ):
            is_buffer = spec.kind is InputKind.BUFFER
            entries.append(Entry(node, "tensor", spec.target, is_buffer))
        else:
            entries.append(Entry(node, "constant", spec.target))
            constants[spec.target] = program.constants[spec.target].detach().cpu()
    out = next(node for node in program.graph.nodes if node.op == "output")
    kinds = [spec.kind for spec in program.graph_signature.output_specs]
    values = zip(out.args[0], kinds, strict=True)  # decomposed, updated buffers are among them
    out.args = (tuple(value for value, kind in values if kind is OutputKind.USER_OUTPUT),)
    outputs = [value for value in flatten(out.args) if isinstance(value, torch.fx.Node)]
    return Graph(program.graph_module, entries, outputs, constants, training)


def flatten(value) -> Iterator:
    """Yield the leaves of nested tuples, lists and dicts."""
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from flatten(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from flatten(part)
    else:
        yield value


def source_line(node: torch.fx.Node) -> str:
    """Return file and line of the code that made a node, if export kept it."""
    trace = node.meta.get("stack_trace") or ""
    lines = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    own = [line for line in lines if _TORCH not in line] or lines
    if not own:
        return ""
    parts = own[-1].split('"')
    number = own[-1].partition("line ")[2].split(",")[0].split()[0]
    return f"{Path(parts[1]).name}:{number}"


def module_path(node: torch.fx.Node) -> str:
    """Return the path of the innermost module that made a node."""
    stack = node.meta.get("nn_module_stack") or {}
    return list(stack.values())[-1][0] if stack else ""


def _digest(graph: Graph) -> str:
    """Hash nodes, arguments, shapes and constants."""
    digest = hashlib.sha256()
    for entry in graph.entries:
        digest.update(f"{entry.kind} {entry.name}\n".encode())
        if entry.kind == "constant":
            digest.update(_bytes(graph.constants[entry.name]))
    _digest_nodes(graph.module, digest)
    return digest.hexdigest()


def _digest_nodes(module: torch.fx.GraphModule, digest) -> None:
    """Hash the nodes of a graph and of the graphs inside it."""
    numbers: dict[torch.fx.Node, int] = {}
    for number, node in enumerate(module.graph.nodes):
        numbers[node] = number
        args = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: f"%{numbers[n]}")
        name = node.target if node.op in ("call_function", "get_attr") else ""
        shape = [
            (tuple(value.shape), str(value.dtype))
            for value in flatten(node.meta.get("val"))
            if isinstance(value, torch.Tensor)
        ]
        digest.update(f"{node.op} {name} {args} {shape}\n".encode())
    for name, child in module.named_children():
        if isinstance(child, torch.fx.GraphModule):
            digest.update(name.encode())
            _digest_nodes(child, digest)


def _bytes(tensor: torch.Tensor) -> bytes:
    """Return a constant's values as bytes."""
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return repr(tensor).encode()
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _trace_error(error: Exception, module: nn.Module, caller: str) -> TraceError:
    """Say in which line of the user's code the trace stopped, and what can be done."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_TORCH, _SKLMC, "<"))
    ]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}, '{frames[-1].line}'" if frames else ""
    kind = type(error).__name__
    text = " ".join(str(error).split())
    if "DataDependent" in kind or "data-dependent" in text or "Could not guard" in text:
        what = "its control flow depends on the values of tensors"
    elif "PackedSequence" in text:
        what = "it takes or makes a PackedSequence"
    else:
        what = f"{kind}: {text[:200]}"
    return TraceError(
        f"{caller}: the forward pass of {type(module).__name__} could not be traced{where}: "
        f"{what}. Wrap the module so that forward takes and returns plain tensors without such "
        "steps, or give the symmetry yourself (PermutationSymmetry.from_axes_to_perm)."
    )


def written_bases(graph: torch.fx.Graph) -> set[torch.fx.Node]:
    """Return the nodes that are written in place later, directly or through a view."""
    found: set[torch.fx.Node] = set()
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or not schema.is_mutable:
            continue
        for index, argument in enumerate(schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            base = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name)
            while isinstance(base, torch.fx.Node) and base not in found:
                found.add(base)
                base = _viewed(base)
    return found


def _viewed(node: torch.fx.Node):
    """Return the node whose memory a node shares, if it is a view (or an item of views)."""
    if node.op != "call_function" or not node.args:
        return None
    if node.target is operator.getitem:
        return node.args[0]
    schema = getattr(node.target, "_schema", None)
    if schema is not None and any(r.alias_info is not None for r in schema.returns):
        return node.args[0]
    return None


def live_nodes(graph: torch.fx.Graph) -> set[torch.fx.Node]:
    """Return the nodes whose results reach an output, or that write in place.

    Assertions, and results of which only the shape was used, are not among them.
    """
    found: set[torch.fx.Node] = set()
    for node in reversed(graph.nodes):
        schema = getattr(node.target, "_schema", None)
        writes = node.op == "call_function" and schema is not None and schema.is_mutable
        higher = isinstance(node.target, torch._ops.HigherOrderOperator)
        if node.op == "output" or writes or higher or not found.isdisjoint(node.users):
            found.add(node)
    return found
