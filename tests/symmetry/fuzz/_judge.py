"""The judge: moves units of a net as it is, in eager mode and float64, and looks at what changes.

It draws elements, weights and running statistics by itself, and runs the module, not its trace.
"""

from __future__ import annotations

import contextlib
import copy
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from unittest import mock

import numpy as np
import torch

from sklmc.exceptions import SymmetryError
from sklmc.symmetry import discover_symmetry
from sklmc.symmetry._tracing import _subject
from tests.symmetry.fuzz._nets import Net, Plan

CHANGED = 1e-8  # relative change of an output above which a symmetry is wrong
_STEP = 1e-12  # relative change of all weights: what it does to the outputs, rounding may do
N_DRAWS = 3
DRAWS = ("uniform", "transposition", "one copy", "some copies", "derangement")
_WIDER = {torch.float32: torch.float64, torch.complex64: torch.complex128}
_FALSE_REFUSALS = (
    "please report",
    "run as it is, the net changes",
    "does not take 'X'",
    "correct the rule given to register_rule",  # the hunt gives none
)


@dataclass
class Verdict:
    """What became of one net."""

    plan: Plan
    wrong: dict[str, str] = field(default_factory=dict)  # "verified", "unverified" -> how
    raw: str | None = None  # an error that is none of ours
    refused: str | None = None  # ours, without names and numbers
    message: str = ""  # the whole of it
    frozen: int = 0  # units that are frozen without need, of a chain
    units: int = 0  # units that must be free, of a chain
    groups: int = 0  # groups that were found with verification
    shaky: bool = False  # rounding alone may change an output: nothing can be said

    @property
    def faults(self) -> frozenset[str]:
        """The kinds of failure."""
        found = {f"wrong {how}" for how in self.wrong}
        found |= {"raw error"} if self.raw else set()
        found |= {"frozen without need"} if self.frozen else set()
        false = any(text in self.message for text in _FALSE_REFUSALS)
        return frozenset(found | ({"false refusal"} if false else set()))

    def __str__(self) -> str:
        wrong = [f"wrong {how}: {what}" for how, what in self.wrong.items()]
        frozen = f"{self.frozen} of {self.units} units frozen" if self.frozen else None
        return "; ".join([*wrong, *filter(None, (self.raw, self.message, frozen))]) or "fine"


def judge(plan: Plan, ways: tuple[bool, ...] = (True, False)) -> Verdict:
    """Discover the symmetry of a net, with and without verification, and try it."""
    verdict = Verdict(plan)
    with warnings.catch_warnings(), _traced_once():
        warnings.simplefilter("ignore")
        _judge(Net(plan), ways, verdict)
    return verdict


def _judge(net: Net, ways: tuple[bool, ...], verdict: Verdict) -> None:
    """Try what each way of discovery claims; equal claims once."""
    plan, known = verdict.plan, []
    for verify in ways:
        how = "verified" if verify else "unverified"
        try:
            symmetry = discover_symmetry(net, _as_given(net.sample), verify=verify)
        except SymmetryError as error:
            verdict.message = str(error)
            verdict.refused = f"{type(error).__name__}: {_plain(str(error))}"
            continue
        except Exception as error:
            verdict.raw = f"{how}: {type(error).__name__}: {str(error)[:300]}"
            continue
        if verify or len(ways) == 1:
            verdict.groups = len(symmetry.groups)
            if plan.chain:
                verdict.units, verdict.frozen = _frozen(net, symmetry)
        claim = repr((symmetry.groups, symmetry.blocks))
        if claim not in known:
            known.append(claim)
            try:
                fault = fault_of(net, symmetry, plan.seed)
            except UnsteadyError:
                verdict.shaky = True
            else:
                verdict.wrong |= {how: fault} if fault else {}
        elif "verified" in verdict.wrong:
            verdict.wrong[how] = verdict.wrong["verified"]


def _as_given(sample: tuple[torch.Tensor, ...]):
    """Return the arguments of forward as X: one tensor, or a tuple."""
    return sample if len(sample) > 1 else sample[0]


@contextlib.contextmanager
def _traced_once() -> Iterator[None]:
    """Let both ways of discovery read one trace of each mode: tracing is most of their time."""
    traces: dict = {}
    export = _subject.export_graph

    def exported(module, sample, *, training, caller):
        key = training, *(tuple(part.shape) for part in sample)
        if key not in traces:
            traces[key] = export(module, sample, training=training, caller=caller)
        return traces[key]

    with mock.patch.object(_subject, "export_graph", exported):
        yield


def _plain(text: str) -> str:
    """Return a message without names, places and numbers, so that equal reasons count as one."""
    text = re.sub(r"could not be traced at \S+, '.*?':", "could not be traced:", text)
    text = re.sub(r"'[^']*'|\([^)]*\)|\[[^]]*\]", "_", text)
    return re.sub(r"[-\d.]+(e[-+]?\d+)?", "#", text)[:160]


def _frozen(net: Net, symmetry) -> tuple[int, int]:
    """Return how many units a chain must have, and how many of them are not free."""
    expected = Counter(net.units)
    missing = expected - Counter((group.size, group.copies) for group in symmetry.groups)
    count = lambda units: sum(n * size * copies for (size, copies), n in units.items())  # noqa: E731
    return count(expected), count(missing)


# -- trying a symmetry -------------------------------------------------------------------------


class UnsteadyError(Exception):
    """Rounding alone may change the output of a net: nothing can be said about it."""


def fault_of(net: torch.nn.Module, symmetry, seed: int) -> str | None:
    """Move units in every way, in both modes; say what changes, None where nothing does.

    `net` has an attribute `sample`, the arguments of forward.
    """
    if not symmetry.groups:
        return None
    random = np.random.RandomState(seed % 2**32)
    with _wide():
        trial = _Trial(net, random)
        if not trial.is_steady:
            raise UnsteadyError
        for kind in DRAWS:
            for _ in range(N_DRAWS):
                arrays = drawn(symmetry.groups, kind, random)
                found = trial.change(symmetry, arrays)
                if found is not None:
                    moved = (f"{g.name} {g.shape}" for g in symmetry.groups if g.name in arrays)
                    return f"{found} ({kind} of {', '.join(moved)[:200]})"
    return None


@contextlib.contextmanager
def _wide() -> Iterator[None]:
    """What forward makes without a dtype is float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


class _Trial:
    """A net in float64 with weights of the judge, and what it does in both modes."""

    def __init__(self, net: Net, random: np.random.RandomState):
        self.net = copy.deepcopy(net).double()
        self.inputs = tuple(
            1.3 * torch.from_numpy(random.standard_normal(tuple(part.shape)))
            if part.is_floating_point()
            else part
            for part in net.sample
        )
        self.state = _weights(self.net, random)
        self.before = {train: self._run(self.state, train) for train in (False, True)}
        nudged = {
            name: tensor * (1 + _STEP * torch.from_numpy(random.standard_normal(tensor.shape)))
            if tensor.is_floating_point()
            else tensor
            for name, tensor in self.state.items()
        }
        for name, first in _tied(self.net).items():
            nudged[name] = nudged[first]
        self.rounding = 0.0
        for train, (out, _) in self.before.items():
            self.rounding = max(self.rounding, _worst(out, self._run(nudged, train)[0]))

    @property
    def is_steady(self) -> bool:
        """Whether outputs are finite and hardly changed by rounding."""
        return self.rounding < CHANGED

    def _run(self, state, train: bool):
        """Return the outputs and, in train mode, the state after it."""
        self.net.load_state_dict(state)
        self.net.train(train)
        with torch.no_grad():
            out = self.net(*(part.clone() for part in self.inputs))
        out = out if isinstance(out, tuple) else (out,)
        after = {name: t.clone() for name, t in self.net.state_dict().items()} if train else {}
        return out, after

    def change(self, symmetry, arrays) -> str | None:
        """Say what changes when units move; None where nothing does."""
        moved = symmetry.apply_state(self.state, arrays)
        for train, (out, after) in self.before.items():
            mode = "train" if train else "eval"
            new, left = self._run(moved, train)
            error = _worst(out, new)
            if not error < CHANGED:
                return f"outputs change by {error:.1e} in {mode} mode"
            if train:
                for name, tensor in symmetry.apply_state(after, arrays).items():
                    if not _change(tensor, left[name]) < CHANGED:
                        return f"{name} after a train pass differs"
        return None


def _worst(before, after) -> float:
    """Return the largest change of an output."""
    return max(_change(a, b) for a, b in zip(before, after, strict=True))


def _change(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest difference relative to the largest value; infinite for what is not."""
    if not (bool(torch.isfinite(a).all()) and bool(torch.isfinite(b).all())):
        return float("inf")
    scale = float(a.abs().max()) if a.numel() else 1.0
    return float((a - b).abs().max()) / max(scale, 1e-6) if a.numel() else 0.0


def _tied(net: Net) -> dict[str, str]:
    """Map names of tied tensors to the first name of each."""
    first: dict[int, str] = {}
    named = net.named_parameters(remove_duplicate=False)
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


def _weights(net: Net, random: np.random.RandomState) -> dict[str, torch.Tensor]:
    """Draw weights, gains of both signs, and running statistics that are not trivial."""
    found = {}
    for name, tensor in net.state_dict().items():
        if not tensor.is_floating_point():
            found[name] = tensor.clone()
            continue
        drawn = torch.from_numpy(np.asarray(random.standard_normal(tuple(tensor.shape))))
        if name.endswith(("running_var", "sigma")):
            drawn = drawn.abs() + 0.5
        elif name.endswith(("buffer", "index")):
            drawn = tensor.clone()
        elif tensor.ndim > 1:
            drawn = drawn * (1.5 / max(tensor[0].numel(), 1)) ** 0.5
        elif tensor.ndim == 1 and not name.endswith("bias"):
            drawn = drawn.sign() * (0.3 + drawn.abs())
        found[name] = drawn
    for name, first in _tied(net).items():
        found[name] = found[first]
    return found


# -- elements ----------------------------------------------------------------------------------


def drawn(groups, kind: str, random: np.random.RandomState) -> dict[str, np.ndarray]:
    """Draw an element of one kind: index arrays by group."""
    if kind in ("transposition", "one copy"):
        groups = [groups[random.randint(len(groups))]]
    found = {}
    for group in groups:
        shape = tuple(group.shape)
        rows = np.tile(np.arange(shape[-1]), (int(np.prod(shape[:-1])), 1))
        only = random.randint(len(rows))
        for number, row in enumerate(rows):
            if kind in ("transposition", "one copy") and number != only:
                continue
            if kind == "some copies" and random.random_sample() < 0.5:
                continue
            if kind == "transposition":
                i, j = random.choice(len(row), 2, replace=False)
                row[[i, j]] = row[[j, i]]
            else:
                rows[number] = (
                    _deranged(len(row), random)
                    if kind == "derangement"
                    else (random.permutation(len(row)))
                )
        found[group.name] = rows.reshape(shape)
    return found


def _deranged(n: int, random: np.random.RandomState) -> np.ndarray:
    """Draw uniformly from the permutations that leave nothing in its place."""
    while True:
        perm = random.permutation(n)
        if (perm != np.arange(n)).all():
            return perm
