"""A refit to own targets: on its own samples each end point says what a layer should give.

All that has to leave a sample's owner are moments: sites that cannot share data use just this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._layer_moments import LayerMoments
from sklmc.merging._repairs._layer_rows import fold_blocks, lone_moments, norm_changes
from sklmc.merging._repairs._ridge_regression import ridge_for
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.merging._repairs._steps import (
    Rows,
    Step,
    draw_rows,
    find_head,
    gather_moments,
    read_targets,
    solve_step,
)
from sklmc.models import Arrays, Batches, ModelView, Moments, State, is_classification

RIGHT, WRONG = 9.0, -1.0  # logits that stand for the label and for all others


def gather_own(
    look: ModelView, state: State, step: Step, end: State, own: SampleSet, by_labels: bool
) -> LayerMoments | Moments:
    """Return what a step's fit needs of one end point's own samples.

    With `by_labels`, the goals of the head are the labels; all others are the end point's outputs.
    """
    if step.norm is not None:
        return lone_moments(look, state, step.norm, own.inputs)
    if by_labels and step.head is not None:
        targets = {step.number: _label_rows(state, step, own)}
    else:
        passes = [only for (only,) in read_targets(look, [end], step.calls, own.inputs)]
        targets = {call.number: [rows[call.number] for rows in passes] for call in step.calls}
    (moments,) = gather_moments(look, state, step, targets, own.inputs, by_folds=False)
    return moments


def solve_own(
    state: State, step: Step, ends: EndPoints, given: Mapping[int, Any]
) -> dict[str, torch.Tensor]:
    """Solve a step from what `gather_own` returned, by end point; each has its weight."""
    if step.norm is not None:
        total, n_rows = Moments(), sum(moments.count for moments in given.values())
        all_weight = sum(ends.weights[index] for index in given)
        for index, moments in given.items():
            share = ends.weights[index] / all_weight
            total.merge(moments.scaled(float(share) * n_rows / moments.count))
        return norm_changes(step.norm, total)

    def solve(chosen: Sequence[int]) -> dict[str, torch.Tensor]:
        weights = [float(ends.weights[index]) for index in chosen]
        mixture = LayerMoments.mixture([given[index] for index in chosen], weights)
        return solve_step(state, step, ends, [mixture], ridge_for(mixture))

    if ends.known is None or step.layers[0].weight not in ends.heads:
        return solve(list(given))
    return _class_by_class(ends, list(given), solve)


def _class_by_class(
    ends: EndPoints, given: list[int], solve: Callable[[Sequence[int]], dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Solve every class from those end points alone that have seen it."""
    changes: dict[str, torch.Tensor] = {}
    seen_by = ends.known[given].T  # (n_classes, n_given)
    patterns, pattern_of = torch.unique(seen_by, dim=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        chosen = [index for index, sees in zip(given, pattern) if sees]
        classes = pattern_of == number
        for name, tensor in solve(chosen or given).items():
            changes.setdefault(name, tensor.clone())[classes] = tensor[classes]
    return changes


def takes_labels(state: State, steps: Sequence[Step], samples: SampleSet) -> bool:
    """Say whether the head can be fitted to the labels: one for each row of it."""
    labels, step = samples.labels, find_head(steps)
    if labels is None or step is None or isinstance(samples.inputs, Batches):
        return False
    per_row = 1 if is_classification(labels) else len(state[step.head.weight])
    return step.head.kind == "linear" and labels[0].numel() == per_row


def label_goals(labels: torch.Tensor, n_outputs: int) -> torch.Tensor:
    """Return what the head should give for labels or values, (n_samples, n_outputs)."""
    if not is_classification(labels):
        return labels.reshape(len(labels), -1)
    if n_outputs == 1:  # the difference of two logits
        return (RIGHT - WRONG) * (2.0 * labels[:, None] - 1.0)
    return WRONG + (RIGHT - WRONG) * functional.one_hot(labels, n_outputs).double()


def _label_rows(state: State, step: Step, own: SampleSet) -> Rows:
    """Return labels as goals of the head, block by block."""
    goals, rows = label_goals(own.labels, len(state[step.head.weight])), []
    for index, args in fold_blocks(own.inputs):
        n_block = len(Arrays(*args))
        block, goals = goals[:n_block], goals[n_block:]
        chosen = draw_rows(own.inputs, args, step, index)(n_block)
        rows.append(block if chosen is None else block[chosen])
    return rows
