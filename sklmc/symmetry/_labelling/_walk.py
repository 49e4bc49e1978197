"""Labelling: carry leaves through a graph, node by node, until nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from sklmc.exceptions import SymmetryError
from sklmc.symmetry._algebra._labels import Labels
from sklmc.symmetry._algebra._leaves import UNIT, Axis, Leaf, Reason, axis_size
from sklmc.symmetry._labelling._parts import Parted, borders, cut_stretches
from sklmc.symmetry._rules import Labelled, Operation, find_rule, operation_name
from sklmc.symmetry._tracing._graph import Graph, flatten, live_nodes, module_path, written_bases

MAX_PASSES = 50


@dataclass
class Labelling:
    """The labels of all tensors of a state, and when each leaf is first seen in the data flow."""

    labels: Labels
    tensors: dict[str, Parted]
    order: dict[Leaf, int] = field(default_factory=dict)


def label_graphs(
    graphs: Iterable[Graph],
    shapes: dict[str, tuple[int, ...]],
    aliases: dict[str, str],
    movable: set[str],
) -> Labelling:
    """Label one net in all its modes at once.

    `aliases` maps a tied tensor to the name that stands for it; tensors that are not in
    `movable` are fixed. Passes are repeated until one changes nothing: that last pass is the
    proof, node by node, that the labels are consistent.
    """
    labels = Labels()
    graphs = list(graphs)
    cuts = borders(graphs)
    tied = set(aliases) | set(aliases.values())
    tensors: dict[str, Parted] = {}
    for name, shape in shapes.items():
        first = aliases.get(name, name)
        places = [] if name in tied else cuts.get(name, [])
        tensors[name] = tensors[first] if first != name else _start(labels, shape, places)
    used = {
        aliases.get(entry.name, entry.name)
        for graph in graphs
        for entry in graph.entries
        if entry.kind == "tensor" and entry.node.users
    }
    for name, tensor in tensors.items():
        first = aliases.get(name, name)
        if first not in movable:
            _fix_all(labels, tensor, Reason("not a floating parameter or persistent buffer"))
        elif first not in used:
            _fix_all(labels, tensor, Reason("forward does not use it"))
    for turn in range(MAX_PASSES):
        before = labels.version
        for graph in graphs:
            _Pass(labels, tensors, graph).run()
        if labels.observing:
            labels.settle()
        if turn > 0 and labels.version == before:
            break
        labels.observing = True
    else:
        for tensor in tensors.values():
            _fix_all(labels, tensor, Reason("the labels did not settle"))
    found = Labelling(labels, tensors)
    _note_order(found, graphs)
    return found


def _start(labels: Labels, shape: tuple[int, ...], cuts: list[int]) -> Parted:
    """Label a tensor of the state, in pieces where forward cuts it."""
    places = [0, *cuts]
    sizes = [b - a for a, b in zip(places, [*cuts, shape[0] if shape else 0], strict=True)]
    shapes = [(size, *shape[1:]) for size in sizes] if shape else [()]
    return Parted(
        tuple((place, _piece(labels, part)) for place, part in zip(places, shapes, strict=True))
    )


def _piece(labels: Labels, shape: tuple[int, ...]) -> Labelled:
    """Label a piece: each axis may depend on all axes before it."""
    axes: list[Axis] = []
    before: set[Leaf] = set()
    for size in shape:
        if size == 1:
            axes.append(UNIT)
            continue
        leaf = labels.leaf(size, before)
        before = before | {leaf}
        axes.append(((leaf,),))
    return Labelled(tuple(axes), tuple(shape))


def _fix_all(labels: Labels, tensor: Parted, reason: Reason) -> None:
    """Fix every axis of a tensor."""
    for _, piece in tensor.pieces:
        for axis in piece.axes:
            labels.fix(axis, reason)


def _note_order(labelling: Labelling, graphs: list[Graph]) -> None:
    """Number leaves by the first result that carries them."""
    for graph in graphs:
        walk = _Pass(labelling.labels, labelling.tensors, graph)
        walk.on_result = lambda tensor: [
            labelling.order.setdefault(leaf, len(labelling.order))
            for axis in tensor.axes
            if axis is not None
            for leaf in labelling.labels.members(axis)
        ]
        walk.run()


class _Pass:
    """One walk over a graph."""

    def __init__(self, labels: Labels, tensors: dict[str, Parted], graph: Graph):
        self.labels = labels
        self.tensors = tensors
        self.graph = graph
        self.on_result: Callable[[Labelled], object] | None = None
        self._facts: dict = {}

    def run(self) -> None:
        """Label every node; fix what enters and leaves."""
        values = {}
        for entry in self.graph.entries:
            values[entry.node] = self._entry(entry)
        outputs = self._walk(self.graph.module, values)
        for value in flatten(outputs):
            if isinstance(value, Labelled):
                reason = Reason("output of the net")
                for axis in value.axes:
                    self.labels.fix(axis, reason)

    def _entry(self, entry):
        """Label a placeholder."""
        value = entry.node.meta.get("val")
        if entry.kind == "tensor":
            parted = self.tensors[entry.name]
            for _, piece in parted.pieces:
                self._observe(piece)
            return parted.pieces[0][1] if len(parted.pieces) == 1 else parted
        elif not isinstance(value, torch.Tensor):
            return value
        else:
            shape = tuple(int(size) for size in value.shape)
            kind = "input of the net" if entry.kind == "input" else "constant of the module"
            reason = Reason(kind, "" if entry.kind == "input" else entry.name)
            constant = self.graph.constants.get(entry.name) if entry.kind == "constant" else None
            axes = tuple(
                None
                if constant is not None and size > 1 and _is_uniform(constant, d)
                else self.labels.axis((self.graph.training, entry.name, d), size, reason)
                for d, size in enumerate(shape)
            )
            tensor = Labelled(axes, shape)
        self._observe(tensor)
        return tensor

    def _walk(self, module: torch.fx.GraphModule, values: dict):
        """Label the nodes of a graph (or of a graph inside it) and return its outputs."""
        if module not in self._facts:
            self._facts[module] = written_bases(module.graph), live_nodes(module.graph)
        written, live = self._facts[module]
        for node in module.graph.nodes:
            if node not in live and node.op != "placeholder":
                continue
            if node.op == "placeholder":
                if node not in values:
                    raise SymmetryError(f"discover_symmetry: placeholder {node.name!r} is unknown.")
            elif node.op == "get_attr":
                values[node] = self._attribute(module, node)
            elif node.op == "call_function":
                values[node] = self._call(module, node, values, node in written)
            else:
                return torch.fx.node.map_arg(node.args, lambda n: values[n])
        return ()

    def _attribute(self, module: torch.fx.GraphModule, node: torch.fx.Node):
        """Return a graph inside the graph, or label a constant."""
        value = module
        for part in node.target.split("."):
            value = getattr(value, part)
        if not isinstance(value, torch.Tensor):
            return value
        reason = Reason("constant of the module", module_path(node), node.target)
        axes = tuple(
            None
            if size > 1 and _is_uniform(value, d)
            else self.labels.axis((node, d), size, reason)
            for d, size in enumerate(value.shape)
        )
        return Labelled(axes, tuple(value.shape))

    def _call(self, module, node: torch.fx.Node, values: dict, is_written: bool):
        """Label the result of one operation."""
        args = torch.fx.node.map_arg(node.args, lambda n: values[n])
        kwargs = torch.fx.node.map_arg(node.kwargs, lambda n: values[n])
        name = operation_name(node.target)
        if name == "python::getitem" and isinstance(args[0], (list, tuple)):
            return args[0][args[1]]
        if name.startswith("higher_order::"):
            inner = self._higher_order(node, args)
            if inner is not None:
                return inner
        outputs = node.meta.get("val")
        has_tensor = any(isinstance(value, torch.Tensor) for value in flatten(outputs))
        inputs = [value for value in flatten((args, kwargs)) if isinstance(value, Labelled)]
        if args and isinstance(args[0], Parted):
            found = [args[0].cut(self.labels, *stretch) for stretch in cut_stretches(node)]
            for value in found:
                self._observe(value)
            return found if isinstance(outputs, (list, tuple)) else found[0]
        if not has_tensor and not inputs:
            return outputs
        op = Operation(node, self.labels, _bind(node, args, kwargs), outputs)
        self.labels.enter(node)
        result = self._apply_rule(op)
        result = self._checked(op, result)
        for value in flatten(result):
            if isinstance(value, Labelled):
                self._observe(value)
        result = self._written(op, result, is_written)
        if self.on_result is not None:
            for value in flatten(result):
                if isinstance(value, Labelled):
                    self.on_result(value)
        return result

    def _apply_rule(self, op: Operation):
        """Ask the rule, or fix everything where there is none."""
        rule = find_rule(op.node.target)
        if rule is None or any(0 in tensor.shape for tensor in op.tensors):
            if all(self.labels.is_fixed(axis) for t in op.tensors for axis in t.axes):
                return op.fix_all("made of what is fixed")
            return op.fix_all("no rule for this operation")
        return rule(op)

    def _checked(self, op: Operation, result):
        """Refuse a rule whose label does not fit the result."""
        if result is None:
            return None
        several = isinstance(op.outputs, (list, tuple))
        found = list(result) if several else [result]
        for index, value in enumerate(found):
            if not isinstance(value, Labelled):
                continue
            shape = op.shape(index if several else None)
            if 0 in shape:  # nothing lies in it, so nothing is claimed of it
                found[index] = Labelled((None,) * len(shape), shape)
                continue
            sizes = tuple(
                size if axis is None else axis_size(axis)
                for axis, size in zip(value.axes, shape, strict=False)
            )
            if len(value.axes) != len(shape) or sizes != shape:
                raise SymmetryError(
                    f"discover_symmetry: the rule for {op.name!r} labels a result of shape "
                    f"{shape} as if it had shape {sizes}; correct the rule given to register_rule."
                )
        return found if several else found[0]

    def _written(self, op: Operation, result, is_written: bool):
        """Let results written in place agree with what was there; name their uniform axes."""
        schema = getattr(op.node.target, "_schema", None)
        if schema is not None and isinstance(result, Labelled):
            for argument in schema.arguments:
                info = argument.alias_info
                target = op.arguments.get(argument.name)
                if info is not None and info.is_write and isinstance(target, Labelled):
                    if target.shape == result.shape:
                        for a, b in zip(target.axes, result.axes, strict=True):
                            self.labels.unify(a, b)
        if is_written and isinstance(result, Labelled):
            axes = tuple(
                self.labels.axis((op.node, "written", d), size) if axis is None else axis
                for d, (axis, size) in enumerate(zip(result.axes, result.shape, strict=True))
            )
            return Labelled(axes, result.shape)
        return result

    def _higher_order(self, node: torch.fx.Node, args):
        """Walk the graph inside wrappers that only set a mode; None where there is none."""
        inner = next((a for a in args if isinstance(a, torch.fx.GraphModule)), None)
        if inner is None or operation_name(node.target).split("::")[1] not in _WRAPPERS:
            return None
        given = args[args.index(inner) + 1 :]
        places = [n for n in inner.graph.nodes if n.op == "placeholder"]
        outputs = self._walk(inner, dict(zip(places, given, strict=True)))
        outputs = outputs[0]
        single = isinstance(node.meta.get("val"), torch.Tensor)
        return outputs[0] if single and isinstance(outputs, (list, tuple)) else outputs

    def _observe(self, tensor: Labelled) -> None:
        """Judge dependence by what one tensor holds."""
        if self.labels.observing:
            self.labels.join(tensor.roles(range(tensor.ndim)))


_WRAPPERS = {
    "wrap_with_set_grad_enabled",
    "wrap_with_autocast",
    "wrap",
    "tag_activation_checkpoint",
}


def _bind(node: torch.fx.Node, args: tuple, kwargs: dict) -> dict:
    """Name the arguments of a node as its schema does, with defaults."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {**{f"arg{i}": value for i, value in enumerate(args)}, **kwargs}
    found = {}
    for index, argument in enumerate(schema.arguments):
        if index < len(args):
            found[argument.name] = args[index]
        elif argument.name in kwargs:
            found[argument.name] = kwargs[argument.name]
        else:
            found[argument.name] = argument.default_value if argument.has_default_value() else None
    return found


def _is_uniform(tensor: torch.Tensor, dim: int) -> bool:
    """Say whether a constant has the same values all along a dimension."""
    return bool((tensor == tensor.narrow(dim, 0, 1)).all())
