"""Straight-through matching: what runs is B in another order, what learns is its free copy."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sklmc.alignment import _straight_through
from sklmc.alignment._auto import _run_candidates, _split
from sklmc.alignment._problem import Problem
from sklmc.alignment._straight_through import Midpoint, match_straight_through
from sklmc.models import Arrays, view
from sklmc.symmetry import discover_symmetry


def problem_of(n_rows=12, **options):
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)) for _ in range(2)]
    a, b = (view(net, caller="test") for net in nets)
    symmetry = discover_symmetry(nets[0])
    inputs, target = Arrays(torch.randn(n_rows, 3)), torch.arange(n_rows) % 2
    defaults = {"target": target, "max_iter": 2, "random_state": 0}
    return Problem(a, b, symmetry, b.state, symmetry.groups, inputs, **{**defaults, **options})


def test_weights_that_run_are_those_of_b_in_another_order(monkeypatch):
    problem, seen = problem_of(), []

    class Watched(Midpoint):
        def between(self, b):
            seen.append(b)
            return super().between(b)

    monkeypatch.setattr(_straight_through, "Midpoint", Watched)
    match_straight_through(problem)
    learning = [b for b in seen if b["0.weight"].requires_grad]
    assert learning
    for b in learning:
        for name, tensor in problem.b.state.items():
            ordered = [t.detach().flatten().sort().values for t in (b[name], tensor)]
            torch.testing.assert_close(*ordered, rtol=0, atol=1e-6)  # rounding of + free - free


def test_candidates_of_auto_are_each_of_their_own_kind():
    names = [name for name, _ in _run_candidates(problem_of())]
    assert names == [
        *("weight", "weight, from the identity"),
        *("weight, random start 0", "weight, random start 1"),
        *("activation (correlation)", "activation (correlation), then weight"),
        *("activation (moment)", "activation (moment), then weight"),
    ]


def test_rows_that_choose_are_half_of_them_and_apart_but_where_rows_are_few():
    for n_rows, sizes in ((12, (6, 6)), (5, (2, 3)), (4, (2, 2)), (3, (3, 3))):
        problem = problem_of(n_rows)
        parts = _split(problem)
        assert tuple(len(part.target) for part in parts) == sizes
        rows = [{tuple(row) for row in np.asarray(part.inputs.args[0])} for part in parts]
        assert len(rows[0] | rows[1]) == n_rows
