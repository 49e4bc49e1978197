"""How much a model's own function changes under permutations."""

from __future__ import annotations

from sklmc._torch import single_thread
from sklmc.symmetry._application import Mover
from sklmc.symmetry._discovery import Subject
from sklmc.symmetry._execution import GraphRunner, widen
from sklmc.symmetry._verification import N_DRAWS, output_change


def function_change(symmetry, model, X, random_state) -> float:
    """Return the largest relative change of an output over a few derangements, in float64."""
    import torch

    subject = Subject(model, X, "PermutationSymmetry.verify")
    symmetry.check_tensors(subject.view)
    state = {name: widen(tensor) for name, tensor in subject.state.items()}
    runner = GraphRunner(subject.graph(False), subject.sample)
    mover = Mover(symmetry.blocks, symmetry.groups)
    worst = 0.0
    with torch.no_grad(), single_thread():
        before = runner(state)
        for _ in range(N_DRAWS):
            arrays = {g.name: g.derangement(random_state) for g in symmetry.groups}
            worst = max(worst, output_change(before, runner(mover.state(state, arrays))))
    return worst
