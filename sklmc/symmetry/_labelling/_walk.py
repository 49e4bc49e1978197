"""Labelling: carry leaves through a graph, node by node, until nothing changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from sklmc.exceptions import SymmetryError
from sklmc.symmetry._algebra._labels import Labels
from sklmc.symmetry._algebra._leaves import UNIT, Axis, Leaf, Reason, axis_size
from sklmc.symmetry._labelling._parts import Parted, borders, cut_stretches
from sklmc.symmetry._rules._registry import (
    Labelled,
    Operation,
    find_rule,
    labels_in,
    operation_name,
)
from sklmc.symmetry._tracing._graph import Graph, Walk, bind, flatten, module_path, written_bases

MAX_PASSES = 50


@dataclass
class Labelling:
    """The labels of all tensors of a state, and when each leaf is first seen in the data flow."""

    labels: Labels
    tensors: dict[str, Parted]
    order: dict[Leaf, int]


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
        passes = [_Pass(labels, tensors, graph) for graph in graphs]
        for each in passes:
            each.run()
        if labels.observing:
            labels.settle()
        if turn > 0 and labels.version == before:
            break
        labels.observing = True
    else:
        for tensor in tensors.values():
            _fix_all(labels, tensor, Reason("the labels did not settle"))
    order: dict[Leaf, int] = {}
    for axis in (axis for each in passes for result in each.results for axis in result.axes):
        for leaf, _ in labels.ends(axis or ()):
            order.setdefault(leaf, len(order))
    return Labelling(labels, tensors, order)


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


class _Pass(Walk):
    """One walk over a graph."""

    def __init__(self, labels: Labels, tensors: dict[str, Parted], graph: Graph):
        super().__init__(graph)
        self.labels = labels
        self.tensors = tensors
        self.results: list[Labelled] = []
        self._written: dict[torch.fx.Graph, set[torch.fx.Node]] = {}

    def run(self) -> None:
        """Label every node; fix what enters and leaves."""
        values = {entry.node: self._entry(entry) for entry in self.graph.entries}
        for value in labels_in(self.walk(self.graph.module, values)):
            for axis in value.axes:
                self.labels.fix(axis, Reason("output of the net"))

    def _entry(self, entry):
        """Label a placeholder."""
        value = entry.node.meta.get("val")
        if entry.kind == "tensor":
            pieces = self.tensors[entry.name].pieces
            self._observe([piece for _, piece in pieces])
            return pieces[0][1] if len(pieces) == 1 else self.tensors[entry.name]
        if not isinstance(value, torch.Tensor):
            return value
        if entry.kind == "input":
            reason = Reason("input of the net")
        else:
            reason = Reason("constant of the module", entry.name)
            value = self.graph.constants.get(entry.name, value)
        key = (self.graph.training, entry.name)
        tensor = self._fixed(value, key, reason, entry.kind == "constant")
        self._observe(tensor)
        return tensor

    def attribute(self, node: torch.fx.Node, value):
        """Return a graph inside the graph, or label a constant."""
        if not isinstance(value, torch.Tensor):
            return value
        reason = Reason("constant of the module", module_path(node), node.target)
        return self._fixed(value, (node,), reason, is_constant=True)

    def _fixed(self, value: torch.Tensor, key: tuple, reason: Reason, is_constant: bool):
        """Label a tensor that may not move; a constant is uniform where its values are equal."""
        axes = tuple(
            None
            if is_constant and size > 1 and _is_uniform(value, d)
            else self.labels.axis((*key, d), int(size), reason)
            for d, size in enumerate(value.shape)
        )
        return Labelled(axes, tuple(map(int, value.shape)))

    def call(self, node: torch.fx.Node, args: tuple, kwargs: dict):
        """Label the result of one operation."""
        if operation_name(node.target) == "python::getitem" and isinstance(args[0], (list, tuple)):
            return args[0][args[1]]
        outputs = node.meta.get("val")
        if args and isinstance(args[0], Parted):
            found = [args[0].cut(self.labels, *stretch) for stretch in cut_stretches(node)]
            self._observe(found)
            return found if isinstance(outputs, (list, tuple)) else found[0]
        has_tensor = any(isinstance(value, torch.Tensor) for value in flatten(outputs))
        if not has_tensor and not labels_in((args, kwargs)):
            return outputs
        op = Operation(node, self.labels, bind(node, args, kwargs), outputs)
        self.labels.enter(node)
        result = self._checked(op, self._apply_rule(op))
        self._observe(result)
        result = self._kept(op, result)
        self.results.extend(labels_in(result))
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

    def _kept(self, op: Operation, result):
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
        graph = op.node.graph
        if graph not in self._written:
            self._written[graph] = written_bases(graph)
        if op.node in self._written[graph] and isinstance(result, Labelled):
            axes = tuple(
                self.labels.axis((op.node, "written", d), size) if axis is None else axis
                for d, (axis, size) in enumerate(zip(result.axes, result.shape, strict=True))
            )
            return Labelled(axes, result.shape)
        return result

    def _observe(self, value) -> None:
        """Judge dependence by what each tensor holds."""
        for tensor in labels_in(value) if self.labels.observing else ():
            self.labels.join(tensor.roles())


def _is_uniform(tensor: torch.Tensor, dim: int) -> bool:
    """Say whether a constant has the same values all along a dimension."""
    return bool((tensor == tensor.narrow(dim, 0, 1)).all())
