"""Nets that keep something from one call to the next, run as if every call were the first."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.func import functional_call

from sklmc.models._copying import OF_EVERY_MODULE, State, private_copy, tensors_in

if TYPE_CHECKING:
    from sklmc.models._view import ModelView

Place = tuple[str, str]  # path of a module, name of its attribute or buffer
ERRORS = (RuntimeError, ValueError, IndexError, TypeError)  # of a net that does not take its input

_TORCHS_OWN = OF_EVERY_MODULE | {"_flat_weights"}  # the latter are parameters of nn.RNNBase
_SCALARS = (bool, int, float, str)
_MISSING = object()


def run_afresh(look: ModelView, args: tuple, state: State | None = None):
    """Run the view's module as if earlier calls had left nothing behind.

    The first pass in eval mode shows what the net writes to itself: plain attributes, and
    buffers. From then on these begin every pass as they were handed in (attributes with tensors
    in them as None, where the net takes that), and what a pass wrote is undone behind it.
    """
    state = None if state is None else dict(state)
    if look.settled or look.module.training:
        return _call(look, args, state)
    empty: dict[Place, object] = {}
    try:
        output, attributes, buffers = _watched_call(look, args, state)
    except ERRORS as error:  # what an earlier call left may not fit these samples
        empty = dict.fromkeys(leftovers(look))
        second = empty and _try(look, Memory(empty, []), _watched_call, args, state)
        if not second:
            raise error from None
        output, attributes, buffers = second
    look.settled = True
    if not attributes and not buffers:
        return output
    given = {place: _read(look.original, place) for place in attributes}
    first = {p: None if list(tensors_in(part)) else part for p, part in given.items()}
    look.keeps_state = True
    found = _try(look, Memory(first | empty, buffers), _call, args, state)
    if found is None:
        _install(look, Memory(given | empty, buffers))
        found = _call(look, args, state)
    return found


def leftovers(look: ModelView) -> list[Place]:
    """Return the attributes in which earlier calls may have left something."""
    return [
        place
        for place, value in _attributes(look.original)
        if any(tensor.is_floating_point() for tensor in tensors_in(value))
    ]


class Memory:
    """Two hooks: one gives a pass fresh values to write into, the other puts the old ones back."""

    def __init__(self, attributes: dict[Place, object], buffers: list[Place]):
        self.attributes = attributes
        self.buffers = buffers
        self._kept: dict[Place, object] = {}
        self._lent: dict[Place, object] = {}

    def before(self, module: nn.Module, args) -> None:
        """Lend the module what a first call begins with."""
        for place, value in self.attributes.items():
            held = vars(module.get_submodule(place[0]))
            self._kept.setdefault(place, held.get(place[1], _MISSING))  # the last may be cut off
            _write(held, place[1], _fresh(value))
        for place in self.buffers:
            held = module.get_submodule(place[0])._buffers
            buffer = held[place[1]]
            if buffer is not self._lent.get(place):
                self._kept[place] = buffer
            held[place[1]] = self._lent[place] = self._kept[place].clone()

    def after(self, module: nn.Module, args, output) -> None:
        """Leave the module as it was."""
        for (path, name), value in self._kept.items():
            part = module.get_submodule(path)
            _write(part._buffers if (path, name) in self.buffers else vars(part), name, value)
        self._kept.clear()
        self._lent.clear()

    def __deepcopy__(self, memo) -> Memory:
        return Memory(self.attributes, self.buffers)


def _call(look: ModelView, args: tuple, state: dict[str, torch.Tensor] | None):
    """Run the view's module, with other weights if `state` is given."""
    if state is None:
        return look.module(*args)
    return functional_call(look.module, state, args, tie_weights=False)


def _watched_call(look: ModelView, args: tuple, state: dict[str, torch.Tensor] | None):
    """Return the output, and the attributes and buffers that the pass wrote to.

    A state is not written into: the pass gets copies of the buffers in it.
    """
    places = {
        f"{path}.{name}".lstrip("."): (path, name)
        for path, part in look.module.named_modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    }
    if state is not None:
        state = {key: t.clone() if key in places else t for key, t in state.items()}

    def marks() -> tuple[dict, dict]:
        own = {
            key: look.module.get_submodule(path)._buffers[name]
            for key, (path, name) in places.items()
        }
        given = {key: tensor for key, tensor in (state or {}).items() if key in places}
        return (
            {place: _mark(value) for place, value in _attributes(look.module)},
            {places[key]: _mark(buffer) for key, buffer in (own | given).items()},
        )

    before = marks()
    output = _call(look, args, state)
    return output, *(_changed(*pair) for pair in zip(before, marks()))


def _changed(before: dict[Place, tuple], now: dict[Place, tuple]) -> list[Place]:
    """Return the places that hold something else now."""
    return [p for p in dict.fromkeys([*before, *now]) if not _same(before.get(p), now.get(p))]


def _try(look: ModelView, memory: Memory, run, args: tuple, state):
    """Return what a run with this memory gives, or None where the net does not take it."""
    handles = _install(look, memory)
    try:
        return run(look, args, state)
    except (*ERRORS, AttributeError):  # None has no shape
        for handle in handles:
            handle.remove()
        return None


def _install(look: ModelView, memory: Memory) -> list:
    """Put the view's module back to what was handed in, and give it a memory."""
    given = private_copy(look.original)
    places = [place for place, _ in (*_attributes(look.module), *_attributes(given))]
    for place in dict.fromkeys(places):
        _write(vars(look.module.get_submodule(place[0])), place[1], _read(given, place))
    for path, name in memory.buffers:
        fresh = given.get_submodule(path)._buffers[name]
        look.module.get_submodule(path)._buffers[name] = fresh
    return [
        look.module.register_forward_pre_hook(memory.before, prepend=True),
        look.module.register_forward_hook(memory.after, always_call=True),
    ]


def _attributes(module: nn.Module) -> Iterator[tuple[Place, object]]:
    """Yield the attributes of all parts that may hold a state."""
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if name not in _TORCHS_OWN:
                yield (path, name), value


def _read(module: nn.Module, place: Place):
    """Return an attribute of a part, if there is one."""
    return vars(module.get_submodule(place[0])).get(place[1], _MISSING)


def _write(held: dict, name: str, value) -> None:
    """Put back what a part held."""
    if value is _MISSING:
        held.pop(name, None)
    else:
        held[name] = value


def _mark(value) -> tuple:
    """Return what tells whether a value was replaced, or written into."""
    if isinstance(value, torch.Tensor):
        return value, None if value.is_inference() else value._version
    if isinstance(value, (tuple, list, dict)):
        return type(value), *map(_mark, value.items() if isinstance(value, dict) else value)
    return (value,)


def _same(a, b) -> bool:
    """Say whether two marks, or parts of them, are the same."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return a is b or (isinstance(a, _SCALARS) and type(a) is type(b) and a == b)


def _fresh(value):
    """Return a value that a pass may write into."""
    if isinstance(value, (torch.Tensor, tuple, list, dict)):
        memo = {id(tensor): tensor.detach().clone() for tensor in tensors_in(value)}
        return copy.deepcopy(value, memo)
    return value
