"""The work of scoring pairs of nets: what every task knows, and what it does with its pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from sklearn.base import clone

from sklmc._torch import single_thread
from sklmc.connectivity._chain_evaluator import ChainEvaluator, chain_layers
from sklmc.connectivity._path_evaluator import PathEvaluator, SplitEvaluator, first_weight_layer
from sklmc.connectivity._path_losses import PathLosses, Samples
from sklmc.connectivity._population import Population, same_bits
from sklmc.merging import reestimate_statistics, tracked_norms
from sklmc.models import Batches, interpolate_states, view

LOGIT_BYTES = 2**27  # logits that one task may keep for calibration
STATE_BYTES = 2**28  # weights that one task may hold
EVALUATORS = {"chain": ChainEvaluator, "split": SplitEvaluator, "plain": PathEvaluator}
MAX_SIDE = {"chain": 64, "split": 8, "plain": 64}  # nets on each side of a task's pairs
AGREEMENT = 1e-4  # relative difference of float32 outputs beyond which the plain evaluator is taken
PROBE_ROWS = 16
PROBE_ALPHA = 0.375


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to run: the evaluator, its layers, samples per block, pairs per call and per task."""

    evaluator: str
    layers: tuple[str, ...]
    rows: int
    group: int
    side: int
    most_pairs: int


@dataclasses.dataclass
class Curves:
    """What was found out about pairs: `values` (4, n_pairs, n_alphas), and failures by row.

    The four are loss, error, calibrated loss and inverse temperature; NaN is what is not known.
    """

    values: np.ndarray
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

    def pack(self) -> PathJob:
        """Return the form that travels to other processes."""
        return dataclasses.replace(self, population=self.population.pack())

    def run(self, pairs: Sequence[tuple[int, int]], tick: Callable | None = None) -> Curves:
        """Score some pairs; `tick(n)` is told of the share of pairs that is done."""
        used = sorted({model for pair in pairs for model in pair})
        states = [self.population.state(model) for model in used]
        place = {model: k for k, model in enumerate(used)}
        local = [(place[a], place[b]) for a, b in pairs]
        failures: dict[int, str] = {}
        if self.aligner is not None:
            local, states = self._align(local, states, failures)
        with single_thread():
            return self._score(local, states, failures, tick)

    # Alignment

    def _align(self, pairs, states, failures):
        """Return pairs whose second net is its aligned copy, and all states."""
        skeleton = self.population.skeleton()
        inputs, y = self.samples.side()
        models = [skeleton.rebuild(state) for state in states]
        states, local = list(states), []
        for index, (a, b) in enumerate(pairs):
            moved = states[a]
            if a != b:
                try:
                    aligner = clone(self.aligner).fit(models[a], models[b], inputs, y)
                    moved = view(aligner.transform(models[b]), caller=self.population.caller).state
                except Exception as error:
                    if not self.catch:
                        raise
                    failures[index] = f"{type(error).__name__}: {error}"
            place = next((k for k in (a, b) if same_bits(moved, states[k])), len(states))
            if place == len(states):
                states.append(moved)
            local.append((a, place))
        return local, states

    # Scores

    def _score(self, pairs, states, failures, tick) -> Curves:
        """Run blocks of samples over all pairs and add up their losses."""
        samples, plan = self.samples, self.plan
        overrides = self._reestimate(pairs, states)
        skeleton = self.population.skeleton()
        inner = self.alphas[1:-1]
        evaluator = make_evaluator(
            plan.evaluator, plan.layers, skeleton, states, inner, self.classify
        )
        ends = sorted({model for pair in pairs for model in pair})
        rows = {model: k for k, model in enumerate(ends)}
        losses = PathLosses(
            samples, self.classify, self.calibration, len(ends), len(pairs), len(inner)
        )
        for args, chosen, start, stop in samples.passes(plan.rows):
            evaluator.load(args)
            losses.start_block(chosen, start, stop)
            for at in range(0, len(ends), plan.group):
                some = slice(at, at + plan.group)
                losses.add("ends", some, evaluator.ends(ends[some]))
            for at in range(0, len(pairs), plan.group):
                whole = range(at, min(at + plan.group, len(pairs)))
                group = [k for k in whole if pairs[k][0] != pairs[k][1]]
                if group:
                    outputs = evaluator.between(
                        [pairs[k] for k in group], [overrides[k] for k in group]
                    )
                    losses.add("inner", group, outputs)
                if tick is not None:
                    tick(len(whole) * (stop - start) / len(samples.target))
        return Curves(losses.curves([(rows[a], rows[b]) for a, b in pairs]), failures)

    def _reestimate(self, pairs, states) -> list:
        """Return, for each pair and inner alpha, the batch-norm statistics estimated anew."""
        skeleton = self.population.skeleton()
        tracked = {} if self.repair is None else tracked_norms(skeleton.module)
        names = [
            f"{name}.{buffer}".removeprefix(".")
            for norms in tracked.values()
            for name in norms
            for buffer in ("running_mean", "running_var")
        ]
        if not names:
            return [None] * len(pairs)
        inputs, _ = self.samples.side()
        found: list = []
        for a, b in pairs:
            at_alphas = []
            for alpha in self.alphas[1:-1] if a != b else ():
                state = interpolate_states(states[a], states[b], alpha)
                state = reestimate_statistics(skeleton, state, inputs)
                at_alphas.append({name: state[name].clone() for name in names})
            found.append(at_alphas)
        return found


def make_plan(job: PathJob) -> Plan:
    """Choose the evaluator by what the net is, prove it on a few samples, and cut the work.

    The plan depends on the nets, the samples and the number of alphas only: neither on n_jobs
    nor on how many pairs there are.
    """
    skeleton = job.population.skeleton()
    a = job.population.state(0)
    b = job.population.state(len(job.population) - 1)
    args, _, _, n_probe = next(job.samples.passes(PROBE_ROWS))
    inner = job.alphas[1:-1]
    name: str = "plain"
    layers: tuple[str, ...] = ()
    norms = job.repair is not None and tracked_norms(skeleton.module)
    with single_thread():
        wanted = _run_between(PathEvaluator(skeleton, (a, b), [PROBE_ALPHA], job.classify), args)
        first = first_weight_layer(skeleton, a, args)
        chain = chain_layers(skeleton, a, args, first) if first is not None else None
        candidates = [("chain", tuple(chain))] if chain and not norms else []
        candidates += [("split", (first,))] if first is not None else []
        for candidate in candidates:
            if _agrees(*candidate, skeleton, (a, b), args, wanted, job.classify):
                name, layers = candidate
                break
        evaluator = make_evaluator(name, layers, skeleton, (a, b), inner, job.classify)
        whole = isinstance(job.samples.inputs, Batches)  # what cannot be cut is a block
        rows = n_probe if whole else min(evaluator.rows(args), len(job.samples.target))
    state_bytes = sum(tensor.numel() * tensor.element_size() for tensor in a.values())
    copies = 2 if job.aligner is None else 2 * MAX_SIDE[name]
    side = max(1, min(MAX_SIDE[name], STATE_BYTES // max(1, copies * state_bytes)))
    most = side * side
    if job.calibration:
        one = len(inner) * wanted.numel() // n_probe * wanted.element_size()
        one *= len(job.samples.target)
        most = max(1, min(most, LOGIT_BYTES // max(1, one)))
        side = min(side, max(1, round(most**0.5)))
    group = evaluator.group(rows, wanted.numel() // n_probe)
    return Plan(name, layers, rows, group, side, max(group, most // group * group))


def cut_into_tasks(
    pairs: Sequence[tuple[int, int]], plan: Plan, n_tasks: int
) -> list[list[tuple[int, int]]]:
    """Cut pairs into tasks that share nets; groups of pairs are never split differently."""
    ordered = sorted(pairs, key=lambda pair: (pair[0] // plan.side, pair[1] // plan.side, pair))
    size = -(-len(ordered) // max(1, n_tasks))
    size = max(plan.group, min(plan.most_pairs, -(-size // plan.group) * plan.group))
    return [ordered[at : at + size] for at in range(0, len(ordered), size)]


def make_evaluator(name, layers, skeleton, states, alphas, classify: bool) -> PathEvaluator:
    """Build an evaluator by its name."""
    return EVALUATORS[name](skeleton, states, alphas, classify, layers)


def _run_between(evaluator: PathEvaluator, args) -> torch.Tensor:
    """Return the outputs of the net at an evaluator's only alpha between its only two nets."""
    evaluator.load(args)
    return evaluator.between([(0, 1)], [None])[0, 0]


def _agrees(name, layers, skeleton, states, args, wanted: torch.Tensor, classify: bool) -> bool:
    """Prove an evaluator on a few samples: does it compute what the plain one computes?"""
    try:
        evaluator = make_evaluator(name, layers, skeleton, states, [PROBE_ALPHA], classify)
        seen = _run_between(evaluator, args)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return False
    scale = wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny)
    return seen.shape == wanted.shape and bool((seen - wanted).abs().max() <= AGREEMENT * scale)
