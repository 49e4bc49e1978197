"""Weight matching from several starts: as many as are asked for, and the best is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sklmc.alignment import _weight
from sklmc.alignment._weight import match_weights
from sklmc.symmetry import discover_symmetry


@pytest.mark.parametrize("n_init", [1, 2, 4])
def test_the_first_start_is_as_it_is_and_the_best_of_all_is_kept(monkeypatch, n_init):
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)) for _ in range(2)]
    symmetry = discover_symmetry(nets[0])
    starts, found = [], []

    class Watched(_weight.CoordinateDescent):
        def run(self, start, *args, **options):
            starts.append({name: perm.copy() for name, perm in start.items()})
            found.append(super().run(start, *args, **options))
            return found[-1]

    monkeypatch.setattr(_weight, "CoordinateDescent", Watched)
    states = [{n: t.detach() for n, t in net.state_dict().items()} for net in nets]
    best = match_weights(*states, symmetry, n_init=n_init, random_state=0)
    assert len(starts) == n_init
    assert starts[0]["0"].tolist() == list(range(6))
    assert all((np.sort(start["0"]) == np.arange(6)).all() for start in starts)
    assert len({tuple(start["0"]) for start in starts}) == n_init
    assert best.objective == max(one.objective for one in found)
