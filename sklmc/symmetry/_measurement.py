"""How much a model's own function changes under permutations."""

from __future__ import annotations

from sklmc._torch import single_thread
from sklmc.symmetry._application import permuted
from sklmc.symmetry._discovery import Subject
from sklmc.symmetry._execution import GraphRunner, widen
from sklmc.symmetry._verification import N_DRAWS, output_change


def function_change(symmetry, model, X, random_state) -> float:
    """Return the largest relative change of an output over a few derangements, in float64."""
    import torch

    subject = Subject(model, X, "PermutationSymmetry.verify")
    symmetry.check(subject.view)
    state = {name: widen(tensor) for name, tensor in subject.state.items()}
    runner = GraphRunner(subject.graph(False), subject.sample)
    groups = {group.name: group for group in symmetry.groups}
    worst = 0.0
    with torch.no_grad(), single_thread():
        before = runner(state)
        for _ in range(N_DRAWS):
            arrays = {name: group.derangement(random_state) for name, group in groups.items()}
            moved = {
                name: permuted(tensor, symmetry.blocks[name], groups, arrays)
                for name, tensor in state.items()
            }
            worst = max(worst, output_change(before, runner(moved)))
    return worst
