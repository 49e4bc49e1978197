"""Layerwise refit: a merged net whose layers respond as the mean of its end points."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from sklmc._torch import to_device
from sklmc.merging._repairs._layer_rows import (
    Choice,
    choose_rows,
    fold_blocks,
    input_rows,
    lone_statistics,
    operand_rows,
    output_rows,
    read_calls,
)
from sklmc.merging._repairs._layers import Layer, Norm, find_layers, replace_tensors
from sklmc.merging._repairs._ridge_regression import FEW_ROWS, RidgeRegression
from sklmc.models import Arrays, Inputs, ModelView, State


def refit_state(
    look: ModelView, state: State, endpoints: Sequence[State], inputs: Inputs, weights: np.ndarray
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return a refitted copy of a merged state, and the weights that were left averaged.

    In data-flow order, each layer is fitted by ridge regression from what reaches it in the
    merged net to the weighted mean of what it gives in the end points; batch norm behind a layer
    is part of it. A layer that ends a residual branch answers for the stream behind the
    addition; where the shortcut is a layer too, both are fitted at once.
    """
    layers, left = find_layers(look, state, inputs.first(2))
    jobs = _jobs(layers)
    used = [(end, float(w)) for end, w in zip(endpoints, weights, strict=True) if w > 0]
    targets = _targets(look, used, jobs, inputs)
    new = dict(state)
    for number, job in enumerate(jobs):
        changes = _run(look, new, job, number, used, targets.pop(number, None), inputs)
        replace_tensors(look, new, changes)
    return new, left


@dataclasses.dataclass(frozen=True)
class _Job:
    """One regression: a layer, or the two that meet in an addition; or a lone batch norm."""

    layers: tuple[Layer, ...]
    norm: Norm | None = None

    @property
    def read(self) -> int:
        """The call whose output is the target."""
        if self.norm is not None:
            return self.norm.call
        first = self.layers[0]
        return first.target if first.addition is None else first.addition

    @property
    def operand(self) -> int | None:
        """The operand of the addition that is not fitted: the merged net's own shortcut."""
        alone = len(self.layers) == 1 and self.layers[0].addition is not None
        return 1 - self.layers[0].operand if alone else None


def _jobs(layers: Sequence[Layer | Norm]) -> list[_Job]:
    """Put layers in the order in which they are fitted: each after all that its rows need."""
    meeting: dict[int, list[Layer]] = defaultdict(list)
    for layer in layers:
        if isinstance(layer, Layer) and layer.addition is not None:
            meeting[layer.addition].append(layer)
    jobs = []
    for layer in layers:
        if isinstance(layer, Norm):
            jobs.append(_Job((), layer))
            continue
        partners = meeting.get(layer.addition, [layer])
        at_once = all(one.groups == 1 and one.kind == layer.kind for one in partners)
        if layer is partners[-1]:
            jobs.append(_Job(tuple(partners) if at_once else (layer,)))
        elif not at_once:  # one after the other: the last answers for the stream
            jobs.append(_Job((dataclasses.replace(layer, addition=None),)))
    return sorted(jobs, key=lambda job: job.read)


def _targets(
    look: ModelView, endpoints: Sequence[tuple[State, float]], jobs: Sequence[_Job], inputs: Inputs
) -> dict[int, list[torch.Tensor]]:
    """Return the mean outputs of the end points, by job and block: one pass for each end point."""
    targets: dict[int, list[torch.Tensor]] = {
        number: [] for number, job in enumerate(jobs) if job.layers
    }
    for index, args in fold_blocks(inputs) if targets else ():
        args = to_device(args, look.device)  # once for all end points
        readers = {
            jobs[number].read: functools.partial(
                output_rows,
                kind=jobs[number].layers[0].kind,
                choose=_draw(inputs, args, number, index),
            )
            for number in targets
        }
        sums = dict.fromkeys(targets, 0.0)
        for end, weight in endpoints:
            rows = read_calls(look, args, end, {}, readers)
            for number in targets:
                sums[number] = sums[number] + rows[jobs[number].read].double() * weight
        for number, mean in sums.items():
            targets[number].append(mean.float())
    return targets


def _draw(inputs: Inputs, args: tuple, number: int, index: int) -> Choice:
    """Return which rows of a block a job takes: the same from every net."""
    return functools.partial(
        choose_rows, n_block=len(Arrays(*args)), n_samples=len(inputs), seed=(number, index)
    )


def _run(
    look: ModelView,
    state: State,
    job: _Job,
    number: int,
    endpoints: Sequence[tuple[State, float]],
    target: list[torch.Tensor] | None,
    inputs: Inputs,
) -> dict[str, torch.Tensor]:
    """Solve one regression on the merged net's own rows; return the tensors that it changes."""
    if job.norm is not None:
        return lone_statistics(look, state, job.norm, inputs)
    starts = [_mean_weights(layer, endpoints) for layer in job.layers]
    problem = None
    for index, args in fold_blocks(inputs):
        choose = _draw(inputs, args, number, index)
        readers = {
            layer.call: functools.partial(input_rows, layer=layer, choose=choose)
            for layer in job.layers
        }
        if job.operand is not None:
            readers[job.read] = functools.partial(
                operand_rows, operand=job.operand, kind=job.layers[0].kind, choose=choose
            )
        rows = read_calls(look, args, state, readers, {})
        x = torch.cat([rows[layer.call] for layer in job.layers], dim=2)
        t = target[index].double()
        if job.operand is not None:
            t = t - rows[job.read].double()
        if problem is None:
            few = len(x) / len(Arrays(*args)) * len(inputs) < FEW_ROWS * x.shape[2]
            start = torch.cat(starts, dim=2)
            intercept = any(layer.norm is not None or layer.bias for layer in job.layers)
            problem = RidgeRegression(start, intercept, by_folds=few)
        problem.add(x, t.reshape(len(t), *problem.start.shape[:2]), index)
    weight, shift = problem.solve()
    return _changes(state, job, problem, weight, shift.reshape(-1))


def _mean_weights(layer: Layer, endpoints: Sequence[tuple[State, float]]) -> torch.Tensor:
    """Return the mean of the end points' weights (groups, n_outputs, n_inputs), norm included."""
    total = 0.0
    for state, share in endpoints:
        weight = state[layer.weight].double().cpu().flatten(1)
        if layer.norm is not None:
            scale = (state[layer.norm.variance].double().cpu() + layer.norm.eps).rsqrt()
            if layer.norm.scale is not None:
                scale = scale * state[layer.norm.scale].double().cpu()
            weight = weight * scale[:, None]
        total = total + share * weight
    return total.reshape(layer.groups, -1, total.shape[1])


def _changes(
    state: State, job: _Job, problem: RidgeRegression, weight: torch.Tensor, shift: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Write a solution as tensors of the net.

    Batch norm gets the statistics of what the new weights give, and the scale and shift that
    undo them: in eval mode it adds the intercept and no more, up to the sign of its gain.
    """
    changes: dict[str, torch.Tensor] = {}
    position = 0
    for layer in job.layers:
        width = math.prod(state[layer.weight].shape[1:])
        own = torch.zeros_like(weight)
        own[..., position : position + width] = weight[..., position : position + width]
        part = own[..., position : position + width]
        position += width
        takes_shift = layer.norm is not None or layer.bias is not None
        given = shift if takes_shift else torch.zeros_like(shift)
        if takes_shift:
            shift = torch.zeros_like(shift)
        if layer.norm is None:
            changes[layer.weight] = part.reshape(state[layer.weight].shape)
            if layer.bias is not None:
                changes[layer.bias] = given
            continue
        mean, variance = (one.reshape(-1) for one in problem.moments(own))
        sign = torch.ones_like(given)
        if layer.bias is not None:
            changes[layer.bias] = torch.zeros_like(given)
        if layer.norm.scale is None:
            mean, variance = -given, torch.full_like(given, 1.0 - layer.norm.eps)
        else:
            # a gain keeps its sign, so that weights stay beside those of the end points
            sign[state[layer.norm.scale].cpu() < 0] = -1.0
            changes[layer.norm.scale] = sign * (variance + layer.norm.eps).sqrt()
            changes[layer.norm.shift] = given + mean
            mean = sign * mean
        changes[layer.weight] = (sign[:, None] * part.flatten(0, 1)).reshape(
            state[layer.weight].shape
        )
        changes[layer.norm.mean], changes[layer.norm.variance] = mean, variance
    return changes
