"""Forward passes watched: which calls a net makes, in which order, on what, giving what.

Everything in sklmc that looks inside a net while it runs stands on the `Watcher` of this file:
LLFC and the other measures of features, activation matching, repairs, the fast paths.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sklmc._torch import plain_attention, single_thread
from sklmc.models._copying import State, tensors_in
from sklmc.models._outputs import run_module
from sklmc.models._view import ModelView


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module, or of a torch function inside it, in a forward pass.

    `name` is the module's path, for a function ``path.function()``; a second use ends in ``:1``.
    `index` counts the watched calls of a pass from its beginning, so that it names the same call
    in every pass.
    """

    name: str
    path: str  # of the module that is called, or that calls the function
    module: nn.Module | None  # None for a function
    function: Callable | None  # None for a module
    inside: Call | None = field(repr=False)  # the watched module that makes the call
    index: int
    args: tuple = field(repr=False)
    kwargs: Mapping = field(repr=False)

    @property
    def input(self) -> torch.Tensor | None:
        """The first tensor that goes in."""
        return first_tensor((*self.args, *self.kwargs.values()))


class _EndOfPass(BaseException):
    """Ends a forward pass in which everything asked for has been seen."""


def end_pass() -> NoReturn:
    """End the present pass, from within `before` or `after`."""
    raise _EndOfPass


class Watcher:
    """Calls `before` and `after` around the calls of every pass that is run with it.

    Parameters
    ----------
    look : ModelView
        The net. Hooks lie on the view's private copy, for as long as the ``with`` block lasts.
    before, after : callable, default=None
        ``before(call)`` and ``after(call, output)``; a result of `after` that is not None takes
        the place of the output. Either may call `end_pass`.
    modules : collection of str, default=None
        Paths of the modules to watch; None: all of them.
    functions : callable, default=None
        Which torch functions count as calls: ``functions(func)``. None: none.
    """

    def __init__(
        self,
        look: ModelView,
        before: Callable[[Call], object] | None = None,
        after: Callable[[Call, object], object] | None = None,
        *,
        modules: Collection[str] | None = None,
        functions: Callable[[Callable], bool] | None = None,
    ):
        self._look = look
        self._before, self._after = before, after
        self._modules, self._functions = modules, functions
        self._handles: list = []
        self._open: list[Call] = []  # calls of modules that have begun and not ended
        self._uses: Counter[str] = Counter()
        self._n_calls = 0
        self._looking = False  # what `before` and `after` compute are no calls of the net

    def __enter__(self) -> Watcher:
        for path, module in self._look.module.named_modules():
            if self._modules is None or path in self._modules:
                self._handles += [
                    module.register_forward_pre_hook(
                        functools.partial(self._entering, path), with_kwargs=True
                    ),
                    module.register_forward_hook(self._leaving),
                ]
        return self

    def __exit__(self, *error) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def run(self, args: tuple[torch.Tensor, ...], state: State | None = None):
        """Run one block, with other weights if `state` is given; None where the pass was ended."""
        if not self._look.settled and not self._look.module.training:
            self.__exit__()
            run_module(self._look, args, state)
            self.__enter__()
        self._open.clear()
        self._uses.clear()
        self._n_calls, self._looking = 0, False
        functions = contextlib.nullcontext() if self._functions is None else _Functions(self)
        with single_thread(), plain_attention(), functions:
            try:
                return run_module(self._look, args, state)
            except _EndOfPass:
                return None

    def _begin(self, base: str, path: str, module, function, args, kwargs) -> Call:
        """Number a call and show what goes in."""
        uses = self._uses[base]
        self._uses[base] += 1
        name = f"{base}:{uses}" if uses else base
        inside = self._open[-1] if self._open else None
        call = Call(name, path, module, function, inside, self._n_calls, args, kwargs)
        self._n_calls += 1
        if self._before is not None:
            self._look_at(self._before, call)
        return call

    def _end(self, call: Call, output):
        """Show what comes out; return what is to take its place."""
        replaced = None if self._after is None else self._look_at(self._after, call, output)
        return output if replaced is None else replaced

    def _look_at(self, what: Callable, *seen):
        """Call `before` or `after`."""
        self._looking = True
        found = what(*seen)
        self._looking = False
        return found

    def _entering(self, path: str, module, args, kwargs) -> None:
        self._open.append(self._begin(path, path, module, None, args, kwargs))

    def _leaving(self, module, args, output):
        return self._end(self._open.pop(), output)

    def call_function(self, func, args, kwargs):
        """Run a torch function as one of the pass's calls, where it counts as one."""
        if self._looking or not self._functions(func):
            return func(*args, **kwargs)
        path = self._open[-1].path if self._open else ""
        base = f"{path}.{getattr(func, '__name__', str(func)).rstrip('_')}()".lstrip(".")
        call = self._begin(base, path, None, func, args, kwargs)
        return self._end(call, func(*args, **kwargs))


class _Functions(TorchFunctionMode):
    """Hands every torch function of a pass to its watcher."""

    def __init__(self, watcher: Watcher):
        super().__init__()
        self._watcher = watcher

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self._watcher.call_function(func, args, kwargs or {})


@dataclass
class Reading:
    """What a pass showed: name of a call -> the first tensor that went in, or came out."""

    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)


class Reader(Watcher):
    """Reads what goes into and comes out of named calls of a net, inside a ``with`` block.

    `inputs` and `outputs` name calls; a path stands for every call of its module or function
    (the keys of a `Reading` tell them apart). What is one tensor in the pass is one tensor in
    the reading, and holds what it held at that call: where a later operation writes into it, the
    block is run again with copies, and so are all that follow.
    """

    def __init__(
        self,
        look: ModelView,
        inputs: Collection[str] = (),
        outputs: Collection[str] = (),
        *,
        functions: Callable[[Callable], bool] | None = None,
    ):
        self._inputs, self._outputs = frozenset(inputs), frozenset(outputs)
        names = {name.split(":")[0] for name in self._inputs | self._outputs}
        modules = None if any(name.endswith("()") for name in names) else names
        functions = None if modules is not None else functions
        super().__init__(
            look, self._see_input, self._see_output, modules=modules, functions=functions
        )
        self._reading = Reading()
        self._copying = False  # whether some operation writes into what is read
        # by identity and version: originals stay alive within a block, so that ids are theirs
        self._seen: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def run(self, args: tuple[torch.Tensor, ...], state: State | None = None) -> Reading:
        """Run one block, with other weights if `state` is given."""
        reading = self._reading = Reading()
        try:
            super().run(args, state)
            changed = any(tensor._version != key[1] for key, (tensor, _) in self._seen.items())
        finally:
            self._seen.clear()
        if changed and not self._copying:
            self._copying = True
            return self.run(args, state)
        return reading

    def _see_input(self, call: Call) -> None:
        self._keep(self._reading.inputs, self._inputs, call, call.input)

    def _see_output(self, call: Call, output) -> None:
        self._keep(self._reading.outputs, self._outputs, call, first_tensor(output))

    def _keep(self, found: dict, wanted: frozenset, call: Call, value) -> None:
        """Keep a tensor as it is now."""
        if value is None or not wanted.intersection((call.name, call.name.split(":")[0])):
            return
        key = (id(value), value._version)
        if key not in self._seen:
            kept = value.detach().clone() if self._copying else value.detach()
            self._seen[key] = value, kept
        found[call.name] = self._seen[key][1]


def first_tensor(value) -> torch.Tensor | None:
    """Return a tensor, or the first tensor in a (nested) tuple, list or dict."""
    return next(tensors_in(value), None)


def read_once(
    look: ModelView, layer: str, args: tuple[torch.Tensor, ...], state: State | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what goes into a layer at its first call, and what comes out; the pass ends there."""
    seen: list[torch.Tensor] = []

    def after(call: Call, output) -> None:
        seen.extend((call.input, output))
        end_pass()

    with Watcher(look, after=after, modules=[layer]) as watcher:
        watcher.run(args, state)
    return seen[0], seen[1]


# What a net may ask of a tensor without doing anything with it: the same for every block.
_QUESTIONS = (
    torch.Tensor.ndim.__get__,
    torch.Tensor.dim,
    torch.Tensor.dtype.__get__,
    torch.Tensor.device.__get__,
)


def find_chain(
    look: ModelView,
    args: tuple[torch.Tensor, ...],
    state: State | None = None,
    training: bool = False,
) -> list[tuple[Call, torch.Tensor]]:
    """Return the last calls of a pass that hand on their output one to the next, up to the end.

    Looked at are the modules without children, each with its output. A net that does anything
    to its last layer's output, or calls a module twice, has no such row, and what it does with
    torch between two of them (a sum to decide on, a change in place) breaks the row there. All
    that a net does has a number: ``call.index`` of the row's first call is one more than that of
    ``call.inside``, the net itself, where nothing comes before.

    In training mode running statistics (of the view's private copy, or those in `state`) and
    torch's random generators move.
    """
    leaves = {path for path, part in look.module.named_modules() if not list(part.children())}
    steps: list[tuple[Call, torch.Tensor]] = []
    given: list[int | None] = []  # version of each input: a change in place is a step of its own
    left: list[int | None] = []

    def counts(call: Call) -> bool:
        """Say whether a call is a step of the net: no part of a layer, and not the net itself."""
        if call.module is not None:
            return call.path in leaves
        return call.inside is not None and call.path not in leaves

    def before(call: Call) -> None:
        if counts(call):
            given.append(getattr(call.input, "_version", None))

    def after(call: Call, output) -> None:
        if counts(call):
            steps.append((call, output))
            left.append(getattr(output, "_version", None))

    look.module.train(training)
    try:
        with Watcher(
            look,
            before,
            after,
            modules={"", *leaves},
            functions=lambda function: function not in _QUESTIONS,
        ) as watcher:
            result = watcher.run(args, state)
    finally:
        look.module.eval()
    if not steps or steps[-1][1] is not result or left[-1] != result._version:
        return []
    start = len(steps)
    while start and steps[start - 1][0].module is not None:
        if start < len(steps):
            (_, handed), (call, _) = steps[start - 1 : start + 1]
            if call.input is not handed or given[start] != left[start - 1]:
                break
        start -= 1
    used = [call.path for call, _ in steps if call.module is not None]
    return steps[start:] if len(set(used)) == len(used) else []
