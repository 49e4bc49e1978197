"""Which rule answers for which operation, and what a rule gets to see."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sklmc.symmetry._algebra._labels import Labels
from sklmc.symmetry._algebra._leaves import UNIT, Axis, Reason
from sklmc.symmetry._tracing._graph import flatten, module_path, source_line

Rule = Callable[["Operation"], Any]

RULES: dict[str, Rule] = {}


@dataclass(frozen=True)
class Labelled:
    """A tensor as a rule sees it: its shape, and one axis per dimension (None: uniform)."""

    axes: tuple[Axis | None, ...]
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def roles(self, names: Sequence[Hashable] | None = None) -> dict[Hashable, Axis | None]:
        """Name the dimensions; dimensions of size one are left out (they broadcast).

        Without names they are counted from the last, -1: so operands are aligned that broadcast.
        """
        names = range(-self.ndim, 0) if names is None else names
        return {
            name: axis
            for name, axis, size in zip(names, self.axes, self.shape, strict=True)
            if size != 1
        }


class Operation:
    """One node of the graph, given to a rule.

    ``op["input"]`` is an argument under its name in the operation's schema: a `Labelled` where it
    is a tensor, a list of them where it is a list of tensors, otherwise the plain value.
    """

    def __init__(self, node: torch.fx.Node, labels: Labels, arguments: dict, outputs: Any):
        self.node = node
        self.labels = labels
        self.arguments = arguments
        self.outputs = outputs  # the example result: a tensor, or a tuple of them
        self._count = 0

    @property
    def name(self) -> str:
        """Name of the operation, such as ``aten::linear``."""
        return operation_name(self.node.target)

    def __getitem__(self, name: str):
        return self.arguments[name]

    def get(self, name: str, default=None):
        """Return an argument, or `default` where the schema does not have it."""
        return self.arguments.get(name, default)

    @property
    def tensors(self) -> list[Labelled]:
        """All tensor arguments, in order."""
        return labels_in(self.arguments)

    def shape(self, index: int | None = None) -> tuple[int, ...]:
        """Shape of the result (of the result at `index` where there are several)."""
        value = self.outputs if index is None else self.outputs[index]
        return tuple(int(size) for size in value.shape)

    def dim(self, name: str, ndim: int) -> int:
        """Return an argument that names a dimension, counted from the front."""
        return self.arguments[name] % max(ndim, 1)

    def dims(self, x: Labelled, default: Iterable[int] | None = None) -> set[int]:
        """Return the dimensions of x that `dim` or `dims` names, by default all, from the front."""
        named = self.get("dim", self.get("dims"))
        named = [named] if isinstance(named, int) else named
        return {d % x.ndim for d in named or default or range(x.ndim)} if x.ndim else set()

    def reason(self, kind: str) -> Reason:
        """Return why this operation fixes an axis."""
        return Reason(kind, module_path(self.node), self.name, source_line(self.node))

    # -- what rules do ---------------------------------------------------------------------

    def join(self, *operands: Mapping[Any, Axis | None]) -> dict[Any, Axis | None]:
        """Unify operands role by role (see `Labels.join`)."""
        return self.labels.join(*operands)

    def broadcast(self, tensors: Sequence[Labelled]) -> tuple[range, dict[Any, Axis | None]]:
        """Unify tensors that broadcast; return the roles of the result and their axes."""
        axes = self.join(*(tensor.roles() for tensor in tensors))
        return range(-max((tensor.ndim for tensor in tensors), default=0), 0), axes

    def merge(self, *factors: tuple[Axis | None, int]) -> Axis | None:
        """Write a product of axes, each with its size, as one; uniform where all of them are."""
        long = [(axis, size) for axis, size in factors if size > 1]
        if long and all(axis is None for axis, _ in long):
            return None
        return self.labels.merge([self.fresh(n) if axis is None else axis for axis, n in long])

    def mix(self, x: Labelled, dims: Iterable[int]) -> None:
        """Say that entries along these dimensions are read together (summed, sorted, compared).

        What lies on the other dimensions then moves alike at all their indices: a slice whose own
        order differed from its neighbour's would no longer be read beside the same entries. A rule
        has to say so wherever the result has these dimensions, also as new ones: they may turn out
        to be one with the old.
        """
        dims = set(dims)
        whole = x.roles(range(x.ndim))
        self.join(whole, {d: axis for d, axis in whole.items() if d not in dims})

    def order(self, x: Labelled, dims: Iterable[int], kind: str) -> None:
        """Say that places along these dimensions count: nothing moves there, and they are mixed."""
        dims = {d % max(x.ndim, 1) for d in dims}
        for d in dims:
            self.fix(x.axes[d], kind)
        self.mix(x, dims)

    def fix(self, axis: Axis | None, kind: str) -> None:
        """Let nothing on an axis move, with the reason."""
        self.labels.fix(axis, self.reason(kind))

    def fresh(self, size: int, kind: str | None = None) -> Axis:
        """Return a new axis of the result: free, or fixed where a reason is given.

        A free one may depend on all leaves of the operands: later operations judge that.
        """
        self._count += 1
        reason = None if kind is None else self.reason(kind)
        beside = [axis for tensor in self.tensors for axis in tensor.axes] if reason is None else ()
        return self.labels.axis((self.node, self._count, size, kind), size, reason, beside)

    def held(self, axis: Axis | None, size: int, kind: str) -> Axis:
        """Return an axis that may not move, also where the operand is uniform along it."""
        if axis is None:
            return self.fresh(size, kind)
        self.fix(axis, kind)
        return axis

    def each(self, label: Callable[[int | None], Any]):
        """Return a label for every result, by its index, which is None where there is but one."""
        if isinstance(self.outputs, (list, tuple)):
            return [label(index) for index in range(len(self.outputs))]
        return label(None)

    def like(
        self, x: Labelled, new: Mapping[int, Axis | None] | None = None, index=None
    ) -> Labelled:
        """Return the result whose axes are those of x, but for some new ones."""
        axes = list(x.axes)
        for d, axis in (new or {}).items():
            axes[d] = axis
        return Labelled(tuple(axes), self.shape(index))

    def renew(self, x: Labelled, dims: Iterable[int], kind: str):
        """Return results like x whose places along some dimensions are made of all the old ones."""
        dims = {d % max(x.ndim, 1) for d in dims}
        self.order(x, dims, kind)
        return self.each(
            lambda index: self.like(
                x, {d: self.fresh(self.shape(index)[d], kind) for d in dims}, index
            )
        )

    def result(
        self, names: Sequence[Hashable], axes: Mapping[Any, Axis | None], index=None
    ) -> Labelled:
        """Return the result whose dimensions have these roles."""
        shape = self.shape(index)
        found = [
            UNIT if size == 1 else axes.get(name) for name, size in zip(names, shape, strict=True)
        ]
        return Labelled(tuple(found), shape)

    def fixed(self, kind: str, index: int | None = None) -> Labelled:
        """Return a result on which nothing moves."""
        shape = self.shape(index)
        return Labelled(tuple(self.fresh(size, kind) for size in shape), shape)

    def fix_all(self, kind: str):
        """Give the safe answer: nothing that the operation touches may move."""
        for tensor in self.tensors:
            for axis in tensor.axes:
                self.fix(axis, kind)

        def label(index):
            output = self.outputs if index is None else self.outputs[index]
            return self.fixed(kind, index) if hasattr(output, "shape") else None

        return self.each(label)


def pair(
    labels: Labels,
    axis: Axis | None,
    outer: int,
    inner: int,
    outer_role: Hashable,
    inner_role: Hashable,
) -> dict[Hashable, Axis | None]:
    """Split an axis into two roles, leaving out what has size one."""
    if axis is None:
        return {}
    first, second = labels.split(axis, [outer, inner])
    return {
        **({outer_role: first} if outer > 1 else {}),
        **({inner_role: second} if inner > 1 else {}),
    }


def labels_in(value) -> list[Labelled]:
    """Return all labels of tensors in nested tuples, lists and dicts."""
    return [part for part in flatten(value) if isinstance(part, Labelled)]


def operation_name(target) -> str:
    """Return the name under which rules for a target are registered."""
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"higher_order::{target.name()}"
    return f"python::{getattr(target, '__name__', target)}"


def find_rule(target) -> Rule | None:
    """Return the rule for a target; an operation in place has the rule of its twin."""
    name = operation_name(target)
    rule = RULES.get(name)
    if rule is None and name.endswith("_") and not name.endswith("__"):
        rule = RULES.get(name[:-1])
    if rule is None and _is_pointwise(target):
        rule = RULES["pointwise"]
    return rule


def _is_pointwise(target) -> bool:
    """Say whether torch calls an operation, or its twin that is not in place, pointwise."""
    if torch.Tag.pointwise in getattr(target, "tags", ()):
        return True
    space, _, name = operation_name(target).partition("::")
    if not isinstance(target, torch._ops.OpOverload) or not name.endswith("_"):
        return False
    twin = getattr(getattr(torch.ops, space), name.removesuffix("_"), None)
    if twin is None or target._overloadname not in twin.overloads():
        return False
    return torch.Tag.pointwise in getattr(twin, target._overloadname).tags


def register_rule(*names: str) -> Callable[[Rule], Rule]:
    """Teach `discover_symmetry` an operation that it does not know.

    Without a rule every axis that an operation touches is fixed, which is always safe. A rule
    gets one `op` and returns the label of the result: ``op["x"]`` is an argument under its name
    in the operation's schema (tensors have `.axes` and `.shape`), ``op.join`` unifies axes that
    must move together, ``op.fix`` forbids an axis to move, ``op.mix`` says along which dimensions
    entries are read together, ``op.order`` does both, ``op.result`` names the axes of the result.
    What a rule claims is tested like everything else when the symmetry is verified, so a wrong
    rule costs groups, not correctness.

    Parameters
    ----------
    *names : str
        Names of operations, such as ``"aten::cumsum"`` or ``"mylib::gate"``.

    Returns
    -------
    decorator : callable
        Registers the function that it decorates and returns it unchanged.

    Raises
    ------
    TypeError
        If a name is not a string.

    Examples
    --------
    An operation of one's own, which mixes no channels: both arguments must move together.

    >>> import torch
    >>> from sklmc.symmetry import discover_symmetry, register_rule
    >>> @torch.library.custom_op("sklmc_example::gate", mutates_args=())
    ... def gate(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    ...     return x * torch.sigmoid(scale)
    >>> @gate.register_fake
    ... def _(x, scale):
    ...     return torch.empty_like(x)
    >>> class Net(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden = torch.nn.Linear(3, 6)
    ...         self.scale = torch.nn.Parameter(torch.ones(6))
    ...         self.out = torch.nn.Linear(6, 2)
    ...     def forward(self, x):
    ...         return self.out(gate(self.hidden(x), self.scale))
    >>> net, X = Net(), torch.zeros(4, 3)
    >>> [group.size for group in discover_symmetry(net, X).groups]
    []
    >>> @register_rule("sklmc_example::gate")
    ... def gate_rule(op):
    ...     roles = ("sample", "channel")
    ...     axes = op.join(op["x"].roles(roles), op["scale"].roles(roles[1:]))
    ...     return op.result(roles, axes)
    >>> [group.size for group in discover_symmetry(net, X).groups]
    [6]
    """
    for name in names:
        if not isinstance(name, str):
            raise TypeError(
                f"register_rule: 'names' must be strings such as 'aten::relu', got {name!r}."
            )

    def register(rule: Rule) -> Rule:
        for name in names:
            RULES[name] = rule
        return rule

    return register


def register_aten(names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations of torch itself: their names, without ``aten::``."""
    return register_rule(*(f"aten::{name}" for name in names.split()))
