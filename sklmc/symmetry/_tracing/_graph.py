"""The graph of a forward pass: what enters, what leaves, what each node reads and writes."""

from __future__ import annotations

import functools
import hashlib
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

TORCH = str(Path(torch.__file__).parent)
_WRAPPERS = {
    "wrap_with_set_grad_enabled",
    "wrap_with_autocast",
    "wrap",
    "tag_activation_checkpoint",
}


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

    @functools.cached_property
    def hash(self) -> str:
        """Digest of everything that the labels depend on: ops, shapes, constants."""
        digest = hashlib.sha256()
        for entry in self.entries:
            digest.update(f"{entry.kind} {entry.name}\n".encode())
            if entry.kind == "constant":
                digest.update(_bytes(self.constants[entry.name]))
        _digest_nodes(self.module, digest)
        return digest.hexdigest()


class Walk:
    """A way through the live nodes of a graph, and of the graphs inside it.

    What becomes of a node is up to `attribute` and `call`. The walk is ours and not
    `torch.fx.Interpreter`'s: that one visits dead nodes (assertions on dtypes, which wide types
    break) unless the graph is copied without them, is as long once its hooks are overridden, and
    takes a tenth longer on small nets, of which a proof runs hundreds.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self._steps: dict[torch.fx.Graph, list] = {}

    def attribute(self, node: torch.fx.Node, value):
        """Return what stands for a constant of the graph (or for a graph inside it)."""
        raise NotImplementedError

    def call(self, node: torch.fx.Node, args: tuple, kwargs: dict):
        """Return what one operation makes of what stands for its arguments."""
        raise NotImplementedError

    def arguments(self, node: torch.fx.Node) -> tuple[tuple, dict]:
        """Return the arguments of a node, with nodes in the place of values."""
        return node.args, node.kwargs

    def walk(self, module: torch.fx.GraphModule, values: dict):
        """Return what leaves a graph, when these values stand for its placeholders."""
        graph = module.graph
        if graph not in self._steps:
            self._steps[graph] = _steps(graph)
        for node, kind, done in self._steps[graph]:
            if kind in ("call_function", "wrapper"):
                args, kwargs = torch.fx.node.map_arg(self.arguments(node), values.__getitem__)
                if kind == "wrapper":
                    values[node] = self._enter(node, args)
                else:
                    values[node] = self.call(node, args, kwargs)
            elif kind == "get_attr":
                values[node] = self.attribute(node, operator.attrgetter(node.target)(module))
            elif kind == "output":
                return torch.fx.node.map_arg(node.args[0], values.__getitem__)
            for used in done:
                values.pop(used, None)
        return ()

    def _enter(self, node: torch.fx.Node, args: tuple):
        """Walk the graph inside a wrapper, whose arguments follow it."""
        place = next(i for i, a in enumerate(args) if isinstance(a, torch.fx.GraphModule))
        places = [n for n in args[place].graph.nodes if n.op == "placeholder"]
        outputs = self.walk(args[place], dict(zip(places, args[place + 1 :], strict=True)))
        single = isinstance(node.meta.get("val"), torch.Tensor)
        return outputs[0] if single and isinstance(outputs, (list, tuple)) else outputs


def _steps(graph: torch.fx.Graph) -> list[tuple[torch.fx.Node, str, list[torch.fx.Node]]]:
    """Return the live nodes, each with its kind and the values that nobody needs after it.

    A wrapper only sets a mode (autocast, no gradients) around a graph inside it.
    """
    live = live_nodes(graph)
    last: dict[torch.fx.Node, torch.fx.Node] = {}
    done: dict[torch.fx.Node, list[torch.fx.Node]] = {n: [] for n in graph.nodes if n in live}
    for node in done:
        last.update(dict.fromkeys(node.all_input_nodes, node))
    for used, node in last.items():
        done[node].append(used)
    return [(node, _kind(node), unneeded) for node, unneeded in done.items()]


def _kind(node: torch.fx.Node) -> str:
    """Return what torch calls the kind of a node, or that it is a wrapper."""
    higher = isinstance(node.target, torch._ops.HigherOrderOperator)
    return "wrapper" if higher and node.target.name() in _WRAPPERS else node.op


def bind(node: torch.fx.Node, args: tuple, kwargs: dict) -> dict:
    """Name the arguments of an operation as its schema does, with defaults."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {**{f"arg{i}": value for i, value in enumerate(args)}, **kwargs}
    names = [argument.name for argument in schema.arguments]
    defaults = {
        a.name: a.default_value if a.has_default_value() else None for a in schema.arguments
    }
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}


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
        given = bind(node, node.args, node.kwargs)
        for argument in schema.arguments:
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            base = given[argument.name]
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
