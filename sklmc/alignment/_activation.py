"""Activation matching: units that respond alike to the same inputs, watched where they show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from sklmc._torch import single_thread
from sklmc.alignment._descent import CoordinateDescent
from sklmc.alignment._problem import Match, Problem
from sklmc.alignment._tensor_pairs import MomentPair
from sklmc.alignment._weight import match_by_weight
from sklmc.models import CrossMoments, Moments, Reader, correlation

INPUT_ROWS = 256  # samples in a forward pass
STILL = 1e-6  # a deviation below this part of the largest is that of a unit that never changes
ROWS_AT_ONCE = 4096  # activations of this many rows are held at a time, whatever X holds
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CHANNEL_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)


class UnitMoments:
    """How A's units go with B's over rows, from running sums; never the rows themselves."""

    def __init__(self) -> None:
        self.a, self.b, self.cross = Moments(), Moments(), CrossMoments()

    def add(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Add rows of A's and B's units, each (n_rows, n_units)."""
        a, b = a.double(), b.double()
        self.a.add(a, unit_axis=1)
        self.b.add(b, unit_axis=1)
        self.cross.add(a.T, b.T)

    def correlation(self) -> torch.Tensor:
        """Return Pearson correlations (n_units, n_units); 0 for a unit that never changes."""
        found = correlation(self.cross, self.a, self.b)
        for axis, moments in enumerate((self.a, self.b)):
            deviation = moments.variance().sqrt()
            still = deviation <= STILL * deviation.max() if len(deviation) else deviation > 0
            found.index_fill_(axis, still.nonzero()[:, 0], 0.0)
        return found


STATISTICS = {"correlation": UnitMoments.correlation, "moment": lambda sums: sums.cross.uncentred()}


def match_by_activation(problem: Problem) -> Match:
    """Maximise the summed similarity of what matched units answer.

    Groups that cannot be watched, and all with `refine`, are matched by their weights afterwards.
    """
    places, moments = stream_moments(problem)
    names = {group.name for group in problem.symmetry.groups}
    pairs = []
    for place, moment in zip(places, moments):
        similarity = STATISTICS[problem.statistic](moment)
        pairs.append(MomentPair(similarity.reshape(*place.sizes, *place.sizes), place.names, names))
    start, report = problem.identity(), problem.report("activation matching")
    with single_thread():
        descent = CoordinateDescent(pairs, problem.groups)
        result = descent.run(start, problem.max_iter, one_sided=False, progress=report)
    seen = set().union(*(pair.free for pair in pairs))
    remaining = [g for g in problem.groups if problem.refine or g.name not in seen]
    perms = result.perms
    if remaining:
        rest = replace(problem, groups=remaining, n_init=1)
        perms = rest.go_on(perms, partial(match_by_weight, one_sided=False)).perms
    return Match(perms, result.objective_path, "activation")


def stream_moments(problem: Problem) -> tuple[list[WatchedUnits], list[UnitMoments]]:
    """Pass once over the inputs and sum what watched units show; one block is held at a time."""
    places = find_watched_units(problem.a.module, problem.symmetry)
    into = {place.layer for place in places if place.side == "input"}
    out = {place.layer for place in places if place.side == "output"}
    moments: dict[int, UnitMoments] = {}
    with Reader(problem.a, into, out) as reader_a, Reader(problem.b, into, out) as reader_b:
        for args in problem.inputs.blocks(INPUT_ROWS):
            seen = reader_a.run(args), reader_b.run(args, problem.state_b)
            if not moments:
                moments = {index: UnitMoments() for index in _distinct(places, seen[0])}
            for index, sums in moments.items():
                for values in zip(*(_calls(one, places[index]) for one in seen)):
                    units = [places[index].units(value).float() for value in values]
                    for first in range(0, len(units[0]), ROWS_AT_ONCE):
                        sums.add(*(u[first : first + ROWS_AT_ONCE] for u in units))
    return [places[index] for index in moments], list(moments.values())


def _calls(seen, place: WatchedUnits) -> list[torch.Tensor]:
    """Return the activations of a module, one tensor for each call."""
    shown = seen.inputs if place.side == "input" else seen.outputs
    return [value for name, value in shown.items() if name.split(":")[0] == place.layer]


def _distinct(places: list[WatchedUnits], seen) -> list[int]:
    """Return the watched units that a forward pass shows, each tensor once."""
    kept, known = [], set()
    for index, place in enumerate(places):
        shown = tuple(id(value) for value in _calls(seen, place))
        what = (shown, place.names, place.positions.tobytes())
        if shown and what not in known:
            known.add(what)
            kept.append(index)
    return kept


@dataclass(frozen=True)
class WatchedUnits:
    """Units on one axis of what goes into ("input") or comes out of ("output") a module."""

    layer: str
    side: str
    dim: int
    positions: np.ndarray  # where each combination of the factors lies on that axis
    factors: tuple[str | None, ...]

    def units(self, values: torch.Tensor) -> torch.Tensor:
        """Return activations as (rows, units): samples, positions and fixed factors are rows."""
        values = values.movedim(self.dim, -1)
        index = torch.from_numpy(self.positions.reshape(-1)).to(values.device)
        values = values.reshape(-1, values.shape[-1]).index_select(1, index)
        values = values.reshape(-1, *self.positions.shape)
        kept = [d for d, name in enumerate(self.factors) if name is not None]
        rest = [d for d in range(len(self.factors)) if d not in kept]
        order = [0, *(d + 1 for d in rest), *(d + 1 for d in kept)]
        width = int(np.prod([self.positions.shape[d] for d in kept]))
        return values.permute(order).reshape(-1, width)

    @property
    def names(self) -> tuple[str, ...]:
        """The factors that move, or that a movement depends on."""
        return tuple(name for name in self.factors if name is not None)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of `names`."""
        return tuple(
            size for size, name in zip(self.positions.shape, self.factors) if name is not None
        )


def find_watched_units(module: nn.Module, symmetry) -> list[WatchedUnits]:
    """Return the places where units can be watched, for as many groups as there are any.

    A group is watched wherever it goes into weights (behind norm and nonlinearity); where no module
    shows that, at the output of the layer that makes it.
    """
    groups = {group.name for group in symmetry.groups}
    found: dict[str, list[WatchedUnits]] = {"input": [], "output": []}
    for path, part in module.named_modules():
        name = f"{path}.weight" if path else "weight"
        if name not in symmetry.blocks:
            continue
        for side, tensor_axis, dim in _watched_axes(part):
            for block in symmetry.blocks[name]:
                axis = block.axes[tensor_axis]
                names = [factor for factor in axis.factors if factor is not None]
                # a group whose outer indices lie elsewhere cannot be told apart on this axis
                whole = all(
                    set(symmetry.group(factor).within) <= set(names)
                    for factor in names
                    if factor in groups
                )
                if groups.intersection(names) and whole and len(set(names)) == len(names):
                    found[side].append(WatchedUnits(path, side, dim, axis.positions, axis.factors))
    places = found["input"]
    seen = {name for place in places for name in place.names}
    for place in found["output"]:
        if not seen.issuperset(groups.intersection(place.names)):
            places.append(place)
    return places


def _watched_axes(part: nn.Module) -> list[tuple[str, int, int]]:
    """Return (side, axis of the weight, axis of the activations) for a module's weight."""
    if isinstance(part, nn.Linear):
        return [("input", 1, -1), ("output", 0, -1)]
    if isinstance(part, CONVS):
        whole = [("input", 1, 1)] if part.groups == 1 else []
        return [*whole, ("output", 0, 1)]
    if isinstance(part, nn.modules.conv._ConvTransposeNd) and part.groups == 1:
        return [("input", 0, 1), ("output", 1, 1)]
    if isinstance(part, CHANNEL_NORMS):
        return [("output", 0, 1)]
    if isinstance(part, nn.LayerNorm) and len(part.normalized_shape) == 1:
        return [("output", 0, -1)]
    if isinstance(part, nn.Embedding):
        return [("output", 1, -1)]
    return []
