"""Activation matching: units that respond alike to the same inputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sklmc._torch import single_thread
from sklmc.alignment._descent import CoordinateDescent, DescentResult
from sklmc.alignment._moments import MomentPair
from sklmc.alignment._problem import Problem
from sklmc.alignment._readings import Reading, find_readings
from sklmc.models import capture_activations

INPUT_ROWS = 256  # samples in a forward pass
ROWS_AT_ONCE = 4096  # activations of this many rows are held at a time, whatever X holds


class CrossMoments:
    """Running sums of a, b, a^2, b^2 and a b over rows, in float64; never the rows themselves.

    Everything is taken relative to the first rows' means: sums of squares of uncentred
    activations would cancel.
    """

    def __init__(self):
        self.n_rows = 0

    def add(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Add rows of A's and B's units, each (n_rows, n_units)."""
        if self.n_rows == 0:
            self.shift = a.double().mean(dim=0), b.double().mean(dim=0)
            zeros = [torch.zeros_like(shift) for shift in self.shift]
            self.sums, self.squares = [*zeros], [zero.clone() for zero in zeros]
            self.cross = torch.zeros(a.shape[1], b.shape[1], dtype=torch.float64, device=a.device)
        centred = []
        for side, values in enumerate((a, b)):
            values = values.double() - self.shift[side]
            self.sums[side] = self.sums[side] + values.sum(dim=0)
            self.squares[side] = self.squares[side] + values.square().sum(dim=0)
            centred.append(values)
        self.cross += centred[0].T @ centred[1]
        self.n_rows += len(a)

    def correlation(self) -> torch.Tensor:
        """Return Pearson correlations; 0 for a unit that never changes."""
        n = self.n_rows
        covariance = self.cross / n - torch.outer(self.sums[0] / n, self.sums[1] / n)
        deviations = [
            (squares / n - (sums / n).square()).clamp_min(0).sqrt()
            for sums, squares in zip(self.sums, self.squares)
        ]
        largest = [float(d.max()) if len(d) else 0.0 for d in deviations]
        inverse = [
            torch.where(d > 1e-6 * top, 1 / d, torch.zeros_like(d)) if top else d
            for d, top in zip(deviations, largest)
        ]
        return covariance * inverse[0][:, None] * inverse[1]

    def uncentred(self) -> torch.Tensor:
        """Return the means of a b."""
        n, (sa, sb) = self.n_rows, self.shift
        return (
            self.cross / n
            + torch.outer(self.sums[0] / n, sb)
            + torch.outer(sa, self.sums[1] / n)
            + torch.outer(sa, sb)
        )


STATISTICS = {"correlation": CrossMoments.correlation, "moment": CrossMoments.uncentred}


def match_activations(problem: Problem) -> tuple[DescentResult, set[str]]:
    """Return the permutations that maximise the summed similarity of matched units.

    The second part of the result names the groups that could not be watched: they do not move.
    """
    readings, moments = stream_moments(problem)
    names = {group.name for group in problem.symmetry.groups}
    pairs = []
    for reading, moment in zip(readings, moments):
        similarity = STATISTICS[problem.statistic](moment)
        pairs.append(
            MomentPair(similarity.reshape(*reading.sizes, *reading.sizes), reading.names, names)
        )
    with single_thread():
        descent = CoordinateDescent(pairs, problem.groups)
        result = descent.run(
            problem.identity(),
            problem.max_iter,
            one_sided=False,
            progress=problem.report("activation matching"),
        )
    seen = {name for pair in pairs for name in pair.free}
    return result, {group.name for group in problem.groups} - seen


def stream_moments(problem: Problem) -> tuple[list[Reading], list[CrossMoments]]:
    """Pass once over the inputs and sum what the readings show; one block is held at a time."""
    a, b, inputs = problem.a, problem.b, problem.inputs
    readings = find_readings(a.module, problem.symmetry)
    layers = sorted({(reading.layer, reading.side) for reading in readings})
    moments: dict[int, CrossMoments] = {}
    kept: list[int] | None = None
    blocks = zip(
        capture_activations(a, inputs, layers, batch_size=INPUT_ROWS),
        capture_activations(b, inputs, layers, problem.state_b, batch_size=INPUT_ROWS),
    )
    for seen_a, seen_b in blocks:
        if kept is None:
            kept = _distinct(readings, seen_a)
            moments = {index: CrossMoments() for index in kept}
        for index in kept:
            reading = readings[index]
            for key in _calls(seen_a, reading):
                units = [reading.units(seen[key]).float() for seen in (seen_a, seen_b)]
                for first in range(0, len(units[0]), ROWS_AT_ONCE):
                    moments[index].add(*(u[first : first + ROWS_AT_ONCE] for u in units))
    return [readings[index] for index in kept or []], [moments[index] for index in kept or []]


def _calls(seen: Mapping, reading: Reading) -> list:
    """Return the keys under which a module's activations were kept, one for each call."""
    return [key for key in seen if key[:2] == (reading.layer, reading.side)]


def _distinct(readings: list[Reading], seen: Mapping) -> list[int]:
    """Return the readings that a forward pass shows, each tensor once."""
    kept, known = [], set()
    for index, reading in enumerate(readings):
        shown = tuple(id(seen[key]) for key in _calls(seen, reading))
        what = (shown, reading.names, reading.positions.tobytes())
        if shown and what not in known:
            known.add(what)
            kept.append(index)
    return kept
