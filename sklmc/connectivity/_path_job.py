"""The work of scoring pairs of nets: what every task knows, and what it does with its pairs."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence

import numpy as np
import torch
from sklearn.base import clone

from sklmc._torch import single_thread
from sklmc.connectivity._chain import ChainRoad, chain_layers
from sklmc.connectivity._losses import (
    block_sums,
    calibrate_crossfit,
    calibrate_in_sample,
    calibrate_on,
    fold_of_samples,
)
from sklmc.connectivity._population import Population, run_between, same_bits
from sklmc.connectivity._roads import Road, SplitRoad, first_weight_layer, values_last
from sklmc.merging._batch_norm import reestimate_statistics, tracked_norms
from sklmc.models import interpolate_states, view

LOGIT_BYTES = 2**27  # logits that one task may keep for calibration
STATE_BYTES = 2**28  # weights that one task may hold
MAX_SIDE = {"chain": 64, "split": 8, "general": 64}  # nets on each side of a task's pairs
AGREEMENT = 1e-4  # relative difference of float32 roads beyond which the general one is taken
PROBE_ROWS = 16


@dataclasses.dataclass(frozen=True)
class Samples:
    """Inputs and targets as arrays (memory-mapped when they travel); the first `n_scored` count."""

    inputs: tuple[np.ndarray, ...]
    target: np.ndarray
    n_scored: int

    def block(self, start: int, stop: int) -> tuple[torch.Tensor, ...]:
        """Return forward's arguments for some samples, in fresh memory."""
        return tuple(torch.tensor(part[start:stop]) for part in self.inputs)

    def spans(self, rows: int) -> list[tuple[int, int]]:
        """Return the blocks; none holds both samples that count and samples that do not."""
        edges = [(0, self.n_scored), (self.n_scored, len(self.target))]
        return [
            (at, min(at + rows, stop)) for start, stop in edges for at in range(start, stop, rows)
        ]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to run: the road, its layers, samples per block, pairs per call and per task."""

    road: str
    layers: tuple[str, ...]
    rows: int
    group: int
    side: int
    most_pairs: int


@dataclasses.dataclass
class Curves:
    """What one task found out: an array (n_pairs, n_alphas) of each kind, and failures."""

    loss: np.ndarray
    error: np.ndarray
    calibrated_loss: np.ndarray
    inverse_temperature: np.ndarray
    failures: dict[int, str]


@dataclasses.dataclass
class PathJob:
    """Everything that tasks share. `alphas` begins with 0 and ends with 1."""

    population: Population
    samples: Samples
    alphas: np.ndarray
    classify: bool
    calibration: str | None  # None, "in_sample", "crossfit" or "given"
    aligner: object
    repair: str | None
    catch: bool  # report a pair that fails instead of raising
    plan: Plan | None = None

    def packed(self) -> PathJob:
        """Return the form that travels to other processes."""
        return dataclasses.replace(self, population=self.population.packed())

    def run(self, pairs: Sequence[tuple[int, int]], tick: Callable | None = None) -> Curves:
        """Score some pairs; `tick(n)` is told of the share of pairs that is done."""
        used = sorted({model for pair in pairs for model in pair})
        states = [self.population.state(model) for model in used]
        place = {model: k for k, model in enumerate(used)}
        local = [(place[a], place[b]) for a, b in pairs]
        failures: dict[int, str] = {}
        if self.aligner is not None:
            local, states = self._aligned(local, states, failures)
        with single_thread():
            return self._score(local, states, failures, tick)

    # Alignment

    def _aligned(self, pairs, states, failures):
        """Return pairs whose second net is its aligned copy, and all states."""
        skeleton = self.population.skeleton()
        X, y = self._side_samples()
        models = [skeleton.rebuild(state) for state in states]
        states, local = list(states), []
        for index, (a, b) in enumerate(pairs):
            if a == b:
                local.append((a, a))
                continue
            try:
                aligner = clone(self.aligner).fit(models[a], models[b], X, y)
                moved = view(aligner.transform(models[b]), caller=self.population.caller).state
            except Exception as error:
                if not self.catch:
                    raise
                failures[index] = f"{type(error).__name__}: {error}"
                local.append((a, a))
                continue
            if same_bits(moved, states[a]):
                local.append((a, a))
            elif same_bits(moved, states[b]):
                local.append((a, b))
            else:
                states.append(moved)
                local.append((a, len(states) - 1))
        return local, states

    def _side_samples(self):
        """Return what aligner and repair see: the calibration samples where there are any."""
        at = self.samples.n_scored if self.calibration == "given" else 0
        X = self.samples.block(at, len(self.samples.target))
        y = np.array(self.samples.target[at:])
        return (X[0] if len(X) == 1 else X), y

    # Scores

    def _score(self, pairs, states, failures, tick) -> Curves:
        """Run blocks of samples over all pairs and gather sums, or logits to calibrate."""
        samples, plan = self.samples, self.plan
        overrides = self._repaired(pairs, states)
        road = self._road(states)
        del states
        inner = self.alphas[1:-1]
        shape = (len(pairs), len(inner))
        ends = sorted({model for pair in pairs for model in pair})
        sums = {"end": torch.zeros(2, max(ends) + 1), "inner": torch.zeros(2, *shape)}
        sums = {key: value.double() for key, value in sums.items()}
        kept = _Logits(self, len(ends), shape) if self.calibration else None
        for start, stop in samples.spans(plan.rows):
            road.load(samples.block(start, stop))
            target = target_values(samples.target[start:stop], self.classify)
            counts = start < samples.n_scored
            for at, model in enumerate(ends):
                outputs = road.end(model)
                if counts:
                    sums["end"][:, model] += torch.stack(block_sums(outputs, target, self.classify))
                if kept is not None:
                    kept.put_end(at, start, outputs)
            for at in range(0, len(pairs), plan.group):
                whole = range(at, min(at + plan.group, len(pairs)))
                group = [k for k in whole if pairs[k][0] != pairs[k][1]]
                if group:
                    outputs = road.between([pairs[k] for k in group], [overrides[k] for k in group])
                    if counts:
                        sums["inner"][:, group] += torch.stack(
                            block_sums(outputs, target, self.classify)
                        )
                    if kept is not None:
                        kept.put_inner(group, start, outputs)
                if tick is not None:
                    tick(len(whole) * (stop - start) / len(samples.target))
        n_values = target_values(samples.target[: samples.n_scored], self.classify).shape[-1]
        end, between = (value / n_values for value in (sums["end"], sums["inner"]))
        table = np.stack([_assemble(pairs, end[k], between[k]) for k in range(2)])
        if kept is None:
            nothing = np.full(table[0].shape, np.nan)
            return Curves(table[0], table[1], nothing, nothing, failures)
        calibrated = kept.calibrate()
        end = torch.zeros(2, max(ends) + 1, dtype=torch.float64)
        end[:, ends] = calibrated[:, : len(ends)]
        between = calibrated[:, len(ends) :].reshape(2, *shape)
        more = np.stack([_assemble(pairs, end[k], between[k]) for k in range(2)])
        return Curves(table[0], table[1], more[0], more[1], failures)

    def _repaired(self, pairs, states) -> list:
        """Return, for each pair and inner alpha, the batch-norm statistics estimated anew."""
        if self.repair is None:
            return [None] * len(pairs)
        skeleton = self.population.skeleton()
        X, _ = self._side_samples()
        names = [
            f"{name}.{buffer}" if name else buffer
            for norms in tracked_norms(skeleton.module).values()
            for name in norms
            for buffer in ("running_mean", "running_var")
        ]
        if not names:
            return [None] * len(pairs)
        found: list = []
        for a, b in pairs:
            at_alphas = []
            for alpha in self.alphas[1:-1] if a != b else ():
                state = interpolate_states(states[a], states[b], alpha)
                state = reestimate_statistics(skeleton, state, X)
                at_alphas.append({name: state[name].clone() for name in names})
            found.append(at_alphas)
        return found

    def _road(self, states) -> Road:
        """Return the planned road around some states."""
        skeleton = self.population.skeleton()
        return make_road(
            self.plan.road, self.plan.layers, skeleton, states, self.alphas[1:-1], self.classify
        )


class _Logits:
    """Logits of all samples of one task's nets, kept for calibration."""

    def __init__(self, job: PathJob, n_ends: int, shape: tuple[int, int]):
        self.job = job
        self.n_ends = n_ends
        self.shape = shape
        self.store: torch.Tensor | None = None
        self.tokens = 1

    def _ready(self, outputs: torch.Tensor) -> torch.Tensor:
        """Allocate on first sight of the number of classes: (n_nets, n_classes, n_values)."""
        if self.store is None:
            target = self.job.samples.target
            self.tokens = int(np.prod(target.shape[1:]))
            n_nets = self.n_ends + self.shape[0] * self.shape[1]
            size = (n_nets, outputs.shape[-2], len(target) * self.tokens)
            self.store = torch.zeros(size, dtype=outputs.dtype)
        return self.store

    def put_end(self, at: int, start: int, outputs: torch.Tensor) -> None:
        """Keep a block of one end point."""
        first = start * self.tokens
        self._ready(outputs)[at, :, first : first + outputs.shape[-1]] = outputs

    def put_inner(self, pairs: Sequence[int], start: int, outputs: torch.Tensor) -> None:
        """Keep a block of all inner nets of some pairs."""
        first = start * self.tokens
        inner = self._ready(outputs)[self.n_ends :]
        inner = inner.view(*self.shape, *inner.shape[1:])
        inner[pairs, :, :, first : first + outputs.shape[-1]] = outputs

    def calibrate(self) -> torch.Tensor:
        """Return calibrated loss and inverse temperature (2, n_nets) of everything kept."""
        samples, kind = self.job.samples, self.job.calibration
        logits = self._ready(self.store)
        target = target_values(samples.target, True)
        n = samples.n_scored * self.tokens
        scored, wanted = logits[..., :n], target[:n]
        if kind == "in_sample":
            return torch.stack(calibrate_in_sample(scored, wanted))
        if kind == "given":
            return torch.stack(calibrate_on(scored, wanted, logits[..., n:], target[n:]))
        folds = torch.from_numpy(fold_of_samples(samples.target[: samples.n_scored]))
        return torch.stack(calibrate_crossfit(scored, wanted, folds.repeat_interleave(self.tokens)))


def make_plan(job: PathJob) -> Plan:
    """Choose the road by what the net is, prove it on a few samples, and cut the work.

    The plan depends on the nets, the samples and the number of alphas only: neither on n_jobs
    nor on how many pairs there are.
    """
    skeleton = job.population.skeleton()
    a = job.population.state(0)
    b = job.population.state(len(job.population) - 1)
    args = job.samples.block(0, min(PROBE_ROWS, len(job.samples.target)))
    inner = job.alphas[1:-1]
    name, layers = "general", ()
    norms = job.repair is not None and tracked_norms(skeleton.module)
    with single_thread():
        first = first_weight_layer(skeleton, a, args)
        chain = chain_layers(skeleton, a, args, first) if first is not None else None
        candidates = [("chain", tuple(chain))] if chain and not norms else []
        candidates += [("split", (first,))] if first is not None else []
        for candidate in candidates:
            if _agrees(*candidate, skeleton, (a, b), args, job.classify):
                name, layers = candidate
                break
        road = make_road(name, layers, skeleton, (a, b), inner, job.classify)
        rows = min(road.rows(args), len(job.samples.target))
        outputs = road_width(skeleton, a, args)
    state_bytes = sum(tensor.numel() * tensor.element_size() for tensor in a.values())
    copies = 2 if job.aligner is None else 2 * MAX_SIDE[name]
    side = max(1, min(MAX_SIDE[name], STATE_BYTES // max(1, copies * state_bytes)))
    most = side * side
    if job.calibration:
        one = max(1, len(inner)) * outputs * len(job.samples.target)
        most = max(1, min(most, LOGIT_BYTES // max(1, one)))
        side = min(side, max(1, round(most**0.5)))
    group = road.pairs_per_call(rows)
    return Plan(name, layers, rows, group, side, max(group, most // group * group))


def cut_into_tasks(
    pairs: Sequence[tuple[int, int]], plan: Plan, n_tasks: int
) -> list[list[tuple[int, int]]]:
    """Cut pairs into tasks that share nets; groups of pairs are never split differently."""
    ordered = sorted(pairs, key=lambda pair: (pair[0] // plan.side, pair[1] // plan.side, pair))
    size = -(-len(ordered) // max(1, n_tasks))
    size = max(plan.group, min(plan.most_pairs, -(-size // plan.group) * plan.group))
    return [ordered[at : at + size] for at in range(0, len(ordered), size)]


def make_road(name, layers, skeleton, states, alphas, classify: bool) -> Road:
    """Build a road by its name."""
    if name == "chain":
        return ChainRoad(skeleton, states, alphas, classify, layers)
    if name == "split":
        return SplitRoad(skeleton, states, alphas, classify, layers[0])
    return Road(skeleton, states, alphas, classify)


def road_width(skeleton, state, args) -> int:
    """Return the bytes of the outputs of one sample."""
    outputs = run_between(skeleton, state, state, 0.0, args)
    return outputs[0].numel() * outputs.element_size()


def target_values(target: np.ndarray, classify: bool) -> torch.Tensor:
    """Lay targets out as the roads lay out outputs: codes (n_values,) or (n_outputs, n)."""
    values = torch.tensor(target)
    return values.reshape(-1) if classify else values.reshape(len(values), -1).T


def takes_all_models(aligner) -> bool:
    """Say whether an aligner brings many models into one frame at once."""
    return "models" in inspect.signature(aligner.fit).parameters


def _assemble(pairs, end: torch.Tensor, inner: torch.Tensor) -> np.ndarray:
    """Put end points around the inner values; a net and itself have the same value throughout."""
    table = np.empty((len(pairs), inner.shape[1] + 2))
    for k, (a, b) in enumerate(pairs):
        table[k, 0], table[k, -1] = end[a], end[b]
        table[k, 1:-1] = end[a] if a == b else inner[k]
    return table


def _agrees(name, layers, skeleton, states, args, classify: bool) -> bool:
    """Prove a road on a few samples: does it compute what the general road computes?"""
    alpha = 0.375
    wanted = values_last(run_between(skeleton, *states, alpha, args).cpu(), classify)
    try:
        road = make_road(name, layers, skeleton, states, [alpha], classify)
        road.load(args)
        seen = road.between([(0, 1)], [None])[0, 0]
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return False
    scale = wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny)
    return seen.shape == wanted.shape and bool((seen - wanted).abs().max() <= AGREEMENT * scale)
