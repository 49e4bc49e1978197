"""How much a model's own function changes under permutations."""

from __future__ import annotations

import torch

from sklmc._torch import single_thread
from sklmc.models import view
from sklmc.symmetry._application import Mover
from sklmc.symmetry._discovery import Subject
from sklmc.symmetry._draws import N_DRAWS, uniform
from sklmc.symmetry._execution import GraphRunner, widen
from sklmc.symmetry._trial import settings_of
from sklmc.symmetry._verification import output_change


def function_change(symmetry, model, X, random_state) -> float:
    """Return the largest relative change of an output over uniform elements, in float64."""
    look = view(model, caller="PermutationSymmetry.verify")
    with settings_of(look):
        subject = Subject(look, X, look.caller)
        symmetry.check_tensors(subject.view)
        state = {name: widen(tensor) for name, tensor in subject.state.items()}
        runner = GraphRunner(subject.graph(False), subject.sample)
        mover = Mover(symmetry.blocks, symmetry.groups)
        worst = 0.0
        with torch.no_grad(), single_thread():
            before = runner(state)
            for _ in range(N_DRAWS if symmetry.groups else 0):
                moved = mover.state(state, uniform(symmetry.groups, random_state))
                worst = max(worst, output_change(before, runner(moved)))
        return worst
