"""A random net is a plan: a seed, an input, and steps that are drawn again from seeds of their own.

A step sees the shape that it is given and draws everything else, so any subset of the steps of a
plan is a plan as well: that is what makes nets shrink.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

ROWS = 8
_LARGEST_ROW = 160  # numbers in one row of a live tensor
_LARGEST_SIZE = 24  # along one axis
_MOST_AXES = 6
_SIZES = (2, 2, 2, 3, 3, 3, 4, 4, 5, 6, 6)
INPUTS = {
    "vector": (5,),
    "sequence": (4, 3),
    "signal": (2, 6),
    "image": (2, 5, 4),
    "volume": (2, 3, 4, 2),
    "tokens": (4,),
    "pair": (4, 3),  # with a vector beside it
}
# where groups lie within groups and are treated one by one or together, mistakes are made
_OFTEN = ("a grid of units", "along an axis under a view", "packed", "linear", "attention") * 2


class Unfit(Exception):
    """A step has no use for the tensor that it is given."""


class Draw:
    """What a step draws, with a note of every choice."""

    def __init__(self, seed: int, largest: int):
        self._random = random.Random(seed)
        self._sizes = [size for size in _SIZES if size <= largest]
        self.notes: list = []

    def choice(self, values: Sequence):
        """Draw one of several values."""
        values = list(values)
        if not values:
            raise Unfit
        value = self._random.choice(values)
        self.notes.append(getattr(value, "__name__", value))
        return value

    def flag(self) -> bool:
        """Toss a coin."""
        return self.choice((False, True))

    def size(self) -> int:
        """Draw a size: often 2 or 3, where mistakes hide."""
        return self.choice(self._sizes)

    def axis(self, x: torch.Tensor) -> int:
        """Draw an axis that is not that of the samples."""
        return self.choice(range(1, x.ndim))

    def order(self, n: int) -> list[int]:
        """Draw an order of n things."""
        order = list(range(n))
        self._random.shuffle(order)
        self.notes.append(order)
        return order

    def factors(self, size: int) -> tuple[int, int]:
        """Write a size as a product of two that are not one."""
        return self.choice([(d, size // d) for d in range(2, size) if size % d == 0])


class Step(nn.Module):
    """One step of a net: a function of its parts and of both live tensors.

    `units` lists (size, copies) of the groups that it must add, where that is known.
    """

    def __init__(self, run: Callable, units: Sequence[tuple[int, int]] = (), **parts):
        super().__init__()
        self.run = run
        self.units = tuple(units)
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x, y):
        found = self.run(self, x, y)
        return found if isinstance(found, tuple) else (found, y)


@dataclass(frozen=True)
class Kind:
    """A kind of step."""

    name: str
    family: str
    make: Callable[[Draw, torch.Tensor, torch.Tensor], Step]


KINDS: dict[str, Kind] = {}
CHAINS: dict[str, Kind] = {}  # kinds of which it is known what they leave free


def kind(family: str, into: dict[str, Kind] = KINDS):
    """Enter a maker of steps."""

    def enter(make):
        name = make.__name__.strip("_")
        assert name not in into, name
        into[name] = Kind(name, family, make)
        return make

    return enter


@dataclass(frozen=True)
class Plan:
    """All that a net is made of."""

    seed: int
    given: str
    steps: tuple[tuple[str, int], ...]  # (kind, seed)
    chain: bool = False
    largest: int = 6

    def without(self, start: int, stop: int) -> Plan:
        """Return the plan without some of its steps."""
        return replace(self, steps=self.steps[:start] + self.steps[stop:])


def seeds_of(text: str) -> range:
    """Read START:STOP."""
    start, _, stop = text.partition(":")
    if not (start.isdigit() and stop.isdigit()):
        raise ValueError(f"seeds are START:STOP, such as 0:300, got {text!r}")
    return range(int(start), int(stop))


def plan_of(seed: int) -> Plan:
    """Draw a plan; every fifth is a chain whose freedom is known."""
    chooser = random.Random(seed)
    chain = seed % 5 == 4
    kinds = CHAINS if chain else KINDS
    given = chooser.choice(["vector", "sequence", "image"] if chain else list(INPUTS))
    families: dict[str, list[str]] = {}
    for entry in kinds.values():
        families.setdefault(entry.family, []).append(entry.name)
    often = [*sorted(families), *(name for name in _OFTEN if name in families)]
    names = [chooser.choice(families[chooser.choice(often)]) for _ in range(chooser.randint(1, 6))]
    return Plan(seed, given, tuple((name, chooser.getrandbits(32)) for name in names), chain)


class Net(nn.Module):
    """The net of a plan."""

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan
        self.lines: list[str] = []
        self.units: list[tuple[int, int]] = []
        with torch.random.fork_rng():
            torch.manual_seed(plan.seed)
            self.sample = _sample(plan)
            self.first = _first(plan, self.sample, self.units)
            self.second = nn.Linear(5, 4) if plan.given == "pair" else None
            self.steps = nn.ModuleDict()
            x, y = self.begin(*self.sample)
            for number, (name, seed) in enumerate(plan.steps):
                x, y = self._grow(f"{number}_{name}", name, seed, x, y)
            self.head_of = "flat" if plan.chain or x.ndim == 2 else _head_of(plan)
            width = x[0].numel() if self.head_of == "flat" else x.shape[-1]
            self.head = nn.Linear(width, 3)
            lives = any(label.endswith(("_stash", "_swap")) for label in self.steps)
            self.other = nn.Linear(y[0].numel(), 3) if lives else None

    def _grow(self, label: str, name: str, seed: int, x, y):
        """Add a step where it fits."""
        draw = Draw(seed, self.plan.largest)
        kinds = CHAINS if self.plan.chain else KINDS
        try:
            step = kinds[name].make(draw, x, y)
            with torch.no_grad():
                step.train()(x.clone(), y.clone())
                found = step.eval()(x.clone(), x.clone() if y is x else y.clone())
        except (Unfit, RuntimeError, ValueError, IndexError, AssertionError, TypeError):
            return x, y
        if not all(map(_is_fit, found)):
            return x, y
        self.steps[label] = step
        self.units += step.units
        parts = ", ".join(str(part).replace("\n", " ") for part in step.children())
        notes = " ".join(map(str, draw.notes))
        shapes = f"{tuple(x.shape[1:])} -> {tuple(found[0].shape[1:])}"
        self.lines.append(f"{label}: {shapes}  drawn: {notes}  parts: {parts}")
        return found

    def begin(self, x, z=None):
        """Return both live tensors as the steps find them."""
        x = self.first(x)
        return x, x if z is None else self.second(z)

    def forward(self, x, z=None):
        x, y = self.begin(x, z)
        for step in self.steps.values():
            x, y = step(x, y)
        out = self.head(x.flatten(1) if self.head_of == "flat" else x)
        if self.head_of == "mean":
            out = out.flatten(1, -2).mean(1)
        return out if self.other is None else (out, self.other(y.flatten(1)))

    def describe(self) -> str:
        """Return the steps, a line each."""
        plan = self.plan
        shapes = ", ".join(str(tuple(part.shape)) for part in self.sample)
        first = f"seed {plan.seed}, {plan.given} {shapes}, head {self.head_of}"
        steps = f"Plan({plan.seed}, {plan.given!r}, {plan.steps}, {plan.chain}, {plan.largest})"
        return "\n".join([first, f"first: {self.first}", *self.lines, steps])


def _is_fit(x: torch.Tensor) -> bool:
    """Say whether a tensor can go on to the next step."""
    return (
        isinstance(x, torch.Tensor)
        and x.dtype == torch.float32
        and 2 <= x.ndim <= _MOST_AXES
        and len(x) == ROWS
        and 0 < x[0].numel() <= _LARGEST_ROW
        and max(x.shape[1:]) <= _LARGEST_SIZE
        and bool(torch.isfinite(x).all())
    )


def _head_of(plan: Plan) -> str:
    """Say how the last tensor is read: as a whole, along its last axis, or averaged as well."""
    return random.Random(f"head {plan.seed}").choice(("flat", "flat", "last", "mean"))


def _sample(plan: Plan) -> tuple[torch.Tensor, ...]:
    """Return a few samples: the arguments of forward."""
    shape = (ROWS, *INPUTS[plan.given])
    if plan.given == "pair":
        return torch.randn(shape), torch.randn(ROWS, 5)
    return (torch.randint(0, 5, shape) if plan.given == "tokens" else torch.randn(shape),)


def _first(plan: Plan, sample: tuple[torch.Tensor, ...], units: list) -> nn.Module:
    """Return the layer that makes the first units."""
    draw = Draw(plan.seed, plan.largest)
    size = draw.size()
    if draw.flag() and draw.size() * size <= plan.largest * 2:
        size *= 2  # products, so that views have something to split
    units.append((size, 1))
    if plan.given == "tokens":
        return nn.Embedding(5, size)
    if plan.given in ("vector", "sequence", "pair"):
        return nn.Linear(sample[0].shape[-1], size)
    convolution = {"signal": nn.Conv1d, "image": nn.Conv2d, "volume": nn.Conv3d}[plan.given]
    return convolution(sample[0].shape[1], size, 2 if draw.flag() else 1)
