"""The steps of a refit, one regression each: in which order, on what, and what a solution changes.

A step is gathered (moments of rows, wherever the samples are) and then solved (from moments alone).
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from sklmc._torch import to_device
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._layer import Norm, WeightLayer
from sklmc.merging._repairs._layer_moments import LayerMoments
from sklmc.merging._repairs._layer_rows import (
    Choice,
    choose_rows,
    fold_blocks,
    input_rows,
    operand_rows,
    output_rows,
    read_calls,
)
from sklmc.merging._repairs._ridge_regression import FEW_ROWS, N_FOLDS, RIDGE, RidgeRegression
from sklmc.models import Arrays, Inputs, ModelView, State

Rows = list[torch.Tensor]  # block by block


@dataclasses.dataclass(frozen=True)
class Step:
    """One regression: a layer, or the two that meet in an addition; or a lone batch norm.

    A layer that is called several times is fitted to all of its calls at once.
    """

    number: int
    layers: tuple[WeightLayer, ...]
    norm: Norm | None = None
    again: tuple[Step, ...] = ()

    @property
    def calls(self) -> tuple[Step, ...]:
        """This call and the later ones of the same layer."""
        return (self, *self.again)

    @property
    def read(self) -> int:
        """The call whose output is the target."""
        return _read(self.layers, self.norm)

    @property
    def operand(self) -> int | None:
        """The operand of the addition that is not fitted: the merged net's own shortcut."""
        alone = len(self.layers) == 1 and self.layers[0].addition is not None
        return 1 - self.layers[0].operand if alone else None

    @property
    def head(self) -> WeightLayer | None:
        """The layer that gives the net's output as it is, where the step fits it alone."""
        first = self.layers[0] if len(self.layers) == 1 else None
        plain = first is not None and first.norm is None and first.addition is None
        plain = plain and not self.again
        return first if plain and first.is_output and first.groups == 1 else None

    @property
    def intercept(self) -> bool:
        """Whether an intercept has somewhere to go."""
        return any(layer.norm is not None or layer.bias for layer in self.layers)


def _read(layers: tuple[WeightLayer, ...], norm: Norm | None) -> int:
    if norm is not None:
        return norm.call
    return layers[0].target if layers[0].addition is None else layers[0].addition


def make_steps(layers: Sequence[WeightLayer | Norm]) -> list[Step]:
    """Put layers in the order in which they are fitted: each after all that its rows need."""
    meeting: dict[int, list[WeightLayer]] = defaultdict(list)
    n_calls = Counter(layer.matrix_name for layer in layers if isinstance(layer, WeightLayer))
    for layer in layers:
        if isinstance(layer, WeightLayer) and layer.addition is not None:
            meeting[layer.addition].append(layer)
    found: list[tuple[tuple[WeightLayer, ...], Norm | None]] = []
    for layer in layers:
        if isinstance(layer, Norm):
            found.append(((), layer))
            continue
        partners = meeting.get(layer.addition, [layer])
        at_once = all(
            one.groups == 1 and one.units_axis == layer.units_axis and n_calls[one.matrix_name] == 1
            for one in partners
        )
        if layer is partners[-1]:
            found.append((tuple(partners) if at_once else (layer,), None))
        elif not at_once:  # one after the other: the last answers for the stream
            found.append(((dataclasses.replace(layer, addition=None),), None))
    ordered = sorted(found, key=lambda one: _read(*one))
    steps = [Step(number, *one) for number, one in enumerate(ordered)]
    by_weight: dict[tuple | int, list[Step]] = defaultdict(list)
    for step in steps:
        by_weight[step.layers[0].matrix_name if step.layers else step.number].append(step)
    return [dataclasses.replace(one, again=tuple(more)) for one, *more in by_weight.values()]


def find_head(steps: Sequence[Step]) -> Step | None:
    """Return the step whose layer gives the net's output; None where no layer does, or several."""
    found = [step for step in steps if step.head is not None]
    return found[0] if len(found) == 1 else None


# What is read


def read_targets(
    look: ModelView, endpoints: Sequence[State], steps: Sequence[Step], inputs: Inputs
) -> Iterator[list[dict[int, torch.Tensor]]]:
    """Yield, block by block, what each end point gives at each step: one pass for each of them."""
    for index, args in fold_blocks(inputs):
        args = to_device(args, look.device)  # once for all end points
        readers = {
            step.number: (
                step.read,
                functools.partial(
                    output_rows,
                    layer=step.layers[0],
                    call=step.read,
                    choose=draw_rows(inputs, args, step, index),
                ),
            )
            for step in steps
        }
        yield [read_calls(look, args, end, {}, readers) for end in endpoints]


def read_rows(
    look: ModelView, state: State, step: Step, inputs: Inputs
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None, float]]:
    """Yield, block by block, what the layers of a step multiply their weights with.

    Rows (n_rows, groups, n_inputs); the operand of the addition that is not fitted (n_rows,
    n_outputs), or None; and how many rows a sample has.
    """
    for index, args in fold_blocks(inputs):
        choose = draw_rows(inputs, args, step, index)
        readers: dict[Any, tuple] = {
            number: (layer.call, functools.partial(input_rows, layer=layer, choose=choose))
            for number, layer in enumerate(step.layers)
        }
        if step.operand is not None:
            read = functools.partial(
                operand_rows, layer=step.layers[0], operand=step.operand, choose=choose
            )
            readers["operand"] = step.read, read
        rows = read_calls(look, args, state, readers, {})
        x = torch.cat([rows[number] for number in range(len(step.layers))], dim=2)
        operand = rows["operand"].double() if "operand" in rows else None
        yield x, operand, len(x) / len(Arrays(*args))


def draw_rows(inputs: Inputs, args: tuple, step: Step, index: int) -> Choice:
    """Return which rows of a block a step takes: the same from every net."""
    return functools.partial(
        choose_rows,
        n_block=len(Arrays(*args)),
        n_samples=len(inputs),
        seed=(step.number, index),
    )


def gather_moments(
    look: ModelView,
    state: State,
    step: Step,
    targets: Mapping[int, Rows],
    inputs: Inputs,
    by_folds: bool,
) -> list[LayerMoments]:
    """Return the moments of a step's rows on the merged net: in folds where the rows are few.

    `targets` are those of all calls of the step, by their numbers.
    """
    folds: list[LayerMoments] = []
    for call in step.calls:
        for index, (x, operand, per_sample) in enumerate(read_rows(look, state, call, inputs)):
            t = targets[call.number][index].double()
            if operand is not None:
                t = t - operand
            if not folds:
                few = per_sample * len(inputs) < FEW_ROWS * x.shape[2]
                folds = [LayerMoments() for _ in range(N_FOLDS if by_folds and few else 1)]
            folds[index % len(folds)].add(x, t.reshape(len(t), x.shape[1], -1))
    return folds


# What is solved


def solve_step(
    state: State,
    step: Step,
    ends: EndPoints,
    moments: Sequence[LayerMoments],
    ridge: float = RIDGE,
) -> dict[str, torch.Tensor]:
    """Solve one regression from the moments of its folds; return the tensors that it changes."""
    start = torch.cat([mean_weights(layer, ends) for layer in step.layers], dim=2)
    problem = RidgeRegression(start, step.intercept, moments, ridge)
    weight, shift = problem.solve()
    return _changes(state, step, problem, weight, shift.reshape(-1))


def mean_weights(layer: WeightLayer, ends: EndPoints) -> torch.Tensor:
    """Return the mean of the end points' weights (groups, n_outputs, n_inputs), norm included."""
    if layer.weight in ends.heads:
        return layer.matrix(ends.mean())
    total = torch.zeros((), dtype=torch.float64)
    for _, state, share in ends.used():
        weight = layer.matrix(state)
        if layer.norm is not None:
            scale = (state[layer.norm.variance].double().cpu() + layer.norm.eps).rsqrt()
            if layer.norm.scale is not None:
                scale = scale * state[layer.norm.scale].double().cpu()
            weight = weight * scale.reshape(*weight.shape[:2], 1)
        total = total + share * weight
    return total


def _changes(
    state: State, step: Step, problem: RidgeRegression, weight: torch.Tensor, shift: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Write a solution as tensors of the net.

    Batch norm gets the statistics of what the new weights give, and the scale and shift that
    undo them: in eval mode it adds the intercept and no more, up to the sign of its gain.
    """
    changes: dict[str, torch.Tensor] = {}
    position = 0
    for layer in step.layers:
        width = layer.matrix(state).shape[2]
        own = torch.zeros_like(weight)
        own[..., position : position + width] = weight[..., position : position + width]
        part = own[..., position : position + width]
        position += width
        takes_shift = layer.norm is not None or layer.bias is not None
        given = shift if takes_shift else torch.zeros_like(shift)
        if takes_shift:
            shift = torch.zeros_like(shift)
        if layer.norm is None:
            changes.update(layer.changes(state, part, given))
            continue
        mean, variance = (one.reshape(-1) for one in problem.moments(own))
        sign = torch.ones_like(given)
        if layer.norm.scale is None:
            mean, variance = -given, torch.full_like(given, 1.0 - layer.norm.eps)
        else:
            # a gain keeps its sign, so that weights stay beside those of the end points
            sign[state[layer.norm.scale].cpu() < 0] = -1.0
            changes[layer.norm.scale] = sign * (variance + layer.norm.eps).sqrt()
            changes[layer.norm.shift] = given + mean
            mean = sign * mean
        signed = sign.reshape(*part.shape[:2], 1) * part
        changes.update(layer.changes(state, signed, torch.zeros_like(given)))
        changes[layer.norm.mean], changes[layer.norm.variance] = mean, variance
    return changes
