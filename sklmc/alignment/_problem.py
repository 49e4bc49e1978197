"""What every matching method is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from sklmc.models import Inputs, ModelView


@dataclass(frozen=True)
class Problem:
    """Two models of one architecture, and what may be used to match them.

    `state_b` is B under the start permutation; methods return permutations on top of it, of the
    groups in `groups` alone.
    """

    a: ModelView
    b: ModelView
    symmetry: object
    state_b: dict[str, torch.Tensor]
    groups: Sequence
    inputs: Inputs | None = None
    target: torch.Tensor | None = None
    statistic: str = "correlation"
    refine: bool = False
    n_init: int = 1
    max_iter: int = 100
    random_state: object = None
    n_jobs: int | None = None
    progress: Callable[[str, float], object] = lambda what, value: None

    def identity(self) -> dict[str, np.ndarray]:
        """Return index arrays that move nothing."""
        return dict(self.symmetry.identity())

    def move_state(self, perms) -> dict[str, torch.Tensor]:
        """Return B's state under permutations on top of the start."""
        return self.symmetry.apply_state(self.state_b, self.symmetry.permutation(perms))

    def with_rows(self, rows) -> Problem:
        """Return the problem with some rows of X (and y)."""
        target = None if self.target is None else self.target[rows]
        return replace(self, inputs=self.inputs[rows], target=target)

    def go_on(self, perms, method: Callable[[Problem], Match]) -> Match:
        """Return what a method finds from permutations on, as permutations on top of the start."""
        match = method(replace(self, state_b=self.move_state(perms)))
        on_top = self.symmetry.permutation(match.perms)
        return replace(match, perms=dict(on_top.compose(self.symmetry.permutation(perms))))

    def is_solved(self, perms) -> bool:
        """Say whether permutations on top of the start make B equal to A, to the bit."""
        moved = self.move_state(perms)
        return all(torch.equal(tensor, moved[name]) for name, tensor in self.a.state.items())

    def report(self, what: str) -> Callable[[float], object]:
        """Return a callback for the progress bar under the name of a method."""
        return partial(self.progress, what)


@dataclass(frozen=True)
class Match:
    """Index arrays by group, and how the method's own objective rose."""

    perms: dict[str, np.ndarray]
    objective_path: list[float]
    method: str
