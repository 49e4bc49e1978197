"""The graph of a forward pass: what enters, what leaves, what each node reads and writes."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

TORCH = str(Path(torch.__file__).parent)


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
    own = [line for line in lines if TORCH not in line] or lines
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
