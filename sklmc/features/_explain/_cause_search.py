"""The search for the causes of a barrier: one remedy after another, each gain measured."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from sklmc.alignment import PermutationAligner
from sklmc.exceptions import SklmcWarning
from sklmc.features._explain._barrier_report import BarrierCause, BarrierReport
from sklmc.features._explain._layer_evidence import layer_evidence, unit_correlation
from sklmc.features._explain._remedies import cause
from sklmc.features._explain._split_samples import MEASURES, Score, SplitSamples, mean_score
from sklmc.features._variance import variance_ratio
from sklmc.merging import reestimate_statistics, repair, tracked_norms
from sklmc.models import ModelView, interpolate_states, view
from sklmc.symmetry import PermutationSymmetry, cached_symmetry

CONNECTED = 0.03  # of what the ends have learned: a barrier below this is none
LISTED = 0.1  # of the barrier: what explains less is not named
SKILL = 0.5  # share of a constant prediction's error that an end must remove
NO_SKILL = 0.25  # below this an end has learned too little for anything else to matter
SKILL_GAP = 0.1  # by which the ends may differ in that
SCALE_ONLY = 0.15  # of the barrier that may be left for scale to be the whole story
ERROR_RISE = 0.05  # of what the ends have learned, in errors: more is not a matter of scale
AT_CHANCE = 0.2  # share of the attainable objective below which B's order is no better than random
RELATED = 0.3  # correlation of units of one place below which they are different features
MOSTLY_IN_ORDER = 0.7  # share above which a collapse of variance is looked at first
IN_ORDER = 0.95  # share of that objective above which B's order counts as good by weights
NEARER = 0.05  # rise of the correlation of units that makes another order better all the same
LEFT_OVER = 2 / 3  # weight of what is left in the ranking
LEFT_OVERS = ("different_features", "frozen_symmetry")
PERMUTABLE = 0.5  # share of weights that should be permutable
N_RANDOM = 5  # random permutations that tell what chance gives


class _Order(NamedTuple):
    """Another order of B's units: B's state, how far its own order reaches, how much nearer."""

    moved: dict
    reached: float
    nearer: float


class CauseSearch:
    """The search for causes: one step after another, each leaving the pair as it mended it.

    A barrier may show in the loss, in the calibrated loss or in the error alone: `measure` is the
    first of them that rises, and shares are shares of that rise. What permutes or renormalises is
    judged beyond the scale of logits, by `inner`: never the loss itself.
    """

    def __init__(self, look: ModelView, split: SplitSamples, a, b):
        self.look, self.split = look, split
        self.given = a, b
        self.a, self.b = a, b
        self.normed = bool(tracked_norms(look.module))
        self.renormalized = False
        self.rows: list[tuple[str, Score]] = []
        self.causes: list[BarrierCause] = []

    def run(self) -> BarrierReport:
        """Take all steps in order."""
        self.constant = self.split.constant()
        self.ends = [self._note(name, state) for name, state in zip("AB", self.given)]
        given = self.midpoint = self._note("midpoint", interpolate_states(*self.given, 0.5))
        barrier = given.loss - mean_score(*self.ends).loss
        if self.normed:
            self._refresh_ends()
        self.mean = mean_score(*self.ends)
        rises = rises_between(self.mean, self.midpoint, self.constant)
        self.measure, self.inner = measures_of(rises)
        self.total = self._rise(self.measure)
        skill = self._training()
        if skill >= NO_SKILL and rises.rose.any():
            if self.normed:
                self._refresh_midpoint()
            if not self._scale_only():
                self._weights()
        layers = layer_evidence(self.look, self.given, (self.a, self.b), self.split.fit_data)
        measures = pd.DataFrame(
            [[name, *score] for name, score in self.rows], columns=["net", *MEASURES]
        )
        told = rises if self.split.classify else rises[:1]  # regression knows one measure
        return BarrierReport(rank_causes(self.causes), barrier, measures, layers, told)

    def _note(self, name: str, state) -> Score:
        """Score a net and keep the score for the report."""
        score = self.split.score(state)
        self.rows.append((name, score))
        return score

    def _fresh(self, state):
        """Return a state whose batch-norm statistics are its own."""
        if not self.normed:
            return state
        return reestimate_statistics(self.look, state, self.split.fit_data)

    def _refresh_ends(self) -> None:
        """Give an end statistics of its own where those that it has are wrong."""
        states = [self.a, self.b]
        for place, name in enumerate("AB"):
            fresh, old = self._fresh(states[place]), self.ends[place]
            score = self._note(f"{name}, new statistics", fresh)
            gain = old.loss - score.loss
            if gain > LISTED * self.constant.loss:
                words = {"kind": "end", "end": name}
                self.causes.append(cause("stale_batch_norm", 1.0, old.loss, score.loss, **words))
                states[place], self.ends[place] = fresh, score
        self.a, self.b = states

    def _training(self) -> float:
        """Compare the ends with a constant prediction and with each other; return the worse."""
        skills = [1.0 - end.error / max(self.constant.error, 1e-12) for end in self.ends]
        low, high, worse = min(skills), max(skills), "AB"[int(np.argmin(skills))]
        if low < SKILL:
            self.causes.append(cause("under_trained", np.nan, low, SKILL, end=worse))
        elif high - low > SKILL_GAP:
            words = {"kind": "unequal", "end": worse}
            self.causes.append(cause("under_trained", np.nan, low, high, **words))
        return low

    def _rise(self, measure: str) -> float:
        """Return how far the midpoint, as mended so far, is above the ends."""
        return getattr(self.midpoint, measure) - getattr(self.mean, measure)

    def _refresh_midpoint(self) -> None:
        """Give the midpoint statistics of its own."""
        score = self._note(
            "midpoint, new statistics", self._fresh(interpolate_states(self.a, self.b, 0.5))
        )
        old, new = getattr(self.midpoint, self.measure), getattr(score, self.measure)
        gain = old - new
        if gain > LISTED * self.total:
            what = MEASURES[Score._fields.index(self.measure)].replace("_", " ")
            self.causes.append(cause("stale_batch_norm", gain / self.total, old, new, what=what))
        if gain > 0:
            self.midpoint = score

    def _scale_only(self) -> bool:
        """Say whether the scale of logits explains what is left of the barrier."""
        raw, left, errors = (self._rise(measure) for measure in Score._fields)
        learned = max(self.constant.error - self.mean.error, 0.0)
        self.weight = self._rise(self.measure) / self.total
        poor = any(found.name == "under_trained" for found in self.causes)
        if self.weight < LISTED:
            return True  # statistics were all of it
        if not self.split.classify or poor or self.measure != "loss":
            return False
        if left > SCALE_ONLY * raw or errors > ERROR_RISE * learned:
            return False
        share = self.weight * (1.0 - max(left, 0.0) / raw)
        self.causes.append(cause("logit_scale", share, max(left, 0.0), raw))
        return True

    def _weights(self) -> None:
        """Look for causes in the order of units, their variance, and the features themselves."""
        whole = self._rise(self.inner)
        if whole <= 0:
            return
        symmetry = cached_symmetry(self.look, self.split.fit_data)
        found = self._best_order(symmetry) if symmetry.groups else None
        in_order = found is None or found.reached >= MOSTLY_IN_ORDER
        if in_order and self._correlations().min() >= RELATED:
            self._variance(whole)
        if found is not None:
            self._order(found, whole)
        if not self.renormalized:
            self._variance(whole)
        share = self._share_left(whole)
        if share < LISTED:
            return
        frozen = frozen_share(symmetry)
        if frozen > 1.0 - PERMUTABLE:
            self.causes.append(cause("frozen_symmetry", share, frozen, 0.0))
        else:
            related = self._correlations().mean()
            self.causes.append(cause("different_features", share, related, RELATED))

    def _best_order(self, symmetry: PermutationSymmetry) -> _Order:
        """Align B with A."""
        split = self.split
        a, b = self.look.rebuild(self.a), self.look.rebuild(self.b)
        aligner = PermutationAligner("auto", symmetry=symmetry, random_state=0)
        aligner.fit(a, b, split.fit_data, split.fit_target.numpy())
        moved = symmetry.apply_state(self.b, aligner.permutation_)
        nearer = self._correlations(moved).mean() - self._correlations().mean()
        return _Order(moved, order_share(symmetry, self.a, self.b, moved), nearer)

    def _order(self, found: _Order, whole: float) -> None:
        """Take the better order of B's units where that helps."""
        if self._share_left(whole) < LISTED:
            return
        moved, reached, nearer = found
        score = self._note("midpoint, aligned", self._middle(moved))
        gain = self._gain(score)
        if gain <= 0 or (reached > IN_ORDER and nearer < NEARER):
            return  # B's own order is the better one by weights and by activations
        self.b, self.midpoint = moved, score
        share = self.weight * gain / whole
        if share >= LISTED:
            name = "not_aligned" if reached < AT_CHANCE else "local_optimum"
            reference = AT_CHANCE if name == "not_aligned" else 1.0
            what = "calibrated loss" if self.inner == "calibrated" else "error"
            self.causes.append(cause(name, share, reached, reference, gain=gain, what=what))

    def _variance(self, whole: float) -> None:
        """Renormalise the midpoint of related nets where that helps."""
        if self._share_left(whole) < LISTED or not self._correlations().mean() >= RELATED:
            return
        self.renormalized = True
        score = self._note("midpoint, renormalized", self._middle(self.b))
        gain = self._gain(score)
        if gain <= 0:
            self.renormalized = False
            return
        self.midpoint = score
        share = self.weight * gain / whole
        if share >= LISTED:
            a, b = self.look.rebuild(self.a), self.look.rebuild(self.b)
            lowest = variance_ratio(a, b, self.split.fit_data).ratio.min()
            aligner = "None" if self.b is self.given[1] else "'auto'"
            self.causes.append(cause("variance_collapse", share, lowest, 1.0, aligner=aligner))

    def _middle(self, b):
        """Return the midpoint of A and a state of B, mended as far as this was found to help."""
        middle = interpolate_states(self.a, b, 0.5)
        if not self.renormalized:
            return self._fresh(middle)
        models = [self.look.rebuild(state) for state in (middle, self.a, b)]
        with warnings.catch_warnings():  # what it leaves averaged is for users who asked for it
            warnings.simplefilter("ignore", SklmcWarning)
            mended = repair(models[0], models[1:], self.split.fit_data, method="renormalize")
        return view(mended, caller=self.look.caller).state

    def _share_left(self, whole: float) -> float:
        """Return the share of the barrier that is left."""
        return self.weight * self._rise(self.inner) / whole

    def _gain(self, score: Score) -> float:
        """Return what another midpoint would take off this one."""
        return getattr(self.midpoint, self.inner) - getattr(score, self.inner)

    def _correlations(self, b=None) -> np.ndarray:
        """Return the correlation of A's and B's units of one place in each hidden layer."""
        models = self.look.rebuild(self.a), self.look.rebuild(self.b if b is None else b)
        found = list(unit_correlation(models[0], models[1], self.split.fit_data).values())
        return np.nan_to_num(found[:-1] or found)


def rises_between(ends: Score, midpoint: Score, constant: Score) -> pd.DataFrame:
    """Return each measure at the ends (mean) and at the midpoint, and whether it rose."""
    scores = zip(MEASURES, ends, midpoint, constant)
    return pd.DataFrame(
        [
            [name, low, high, high - low > CONNECTED * max(worst - low, 0.0)]
            for name, low, high, worst in scores
        ],
        columns=["measure", "ends", "midpoint", "rose"],
    )


def measures_of(rises: pd.DataFrame) -> tuple[str, str]:
    """Return what a barrier is measured in, and what is left of it beyond the scale of logits."""
    rose = [name for name, up in zip(Score._fields, rises.rose) if up]
    beyond = [name for name in rose if name != "loss"]
    return (rose or ["loss"])[0], (beyond or ["calibrated"])[0]


def rank_causes(causes: Sequence[BarrierCause]) -> tuple[BarrierCause, ...]:
    """Order causes: what spoils the other measurements first, then by share.

    What is left counts less than what a remedy removes.
    """

    def place(one: BarrierCause) -> float:
        if one.name == "under_trained":
            return -np.inf
        return -one.share * (LEFT_OVER if one.name in LEFT_OVERS else 1.0)

    return tuple(sorted(causes, key=place))


def order_share(symmetry: PermutationSymmetry, a, b, moved) -> float:
    """Return how far B's own order is on the way from random orders (0) to the aligned one (1)."""
    tied = {name for names in symmetry.aliases for name in names[1:]}
    names = [
        name
        for name, blocks in symmetry.blocks.items()
        if name not in symmetry.buffers and name not in tied and any(x.groups for x in blocks)
    ]

    def objective(state) -> float:
        return sum(float((a[name].double() * state[name].double()).sum()) for name in names)

    random = np.mean(
        [
            objective(symmetry.apply_state(b, symmetry.random_permutation(seed)))
            for seed in range(N_RANDOM)
        ]
    )
    gap = objective(moved) - random
    return float((objective(b) - random) / gap) if gap > 0 else 1.0


def frozen_share(symmetry: PermutationSymmetry) -> float:
    """Return the share of weights' hidden axes (by number of weights) that nothing may permute.

    Axes that belong to the net's input or output are not hidden.
    """
    frozen = movable = 0.0
    shapes = {n: s for n, s in symmetry.shapes.items() if n not in symmetry.buffers and len(s) > 1}
    for axis in symmetry.frozen:
        if axis.tensor in shapes and axis.kind not in ("input of the net", "output of the net"):
            shape = shapes[axis.tensor]
            frozen += math.prod(shape) * axis.size / shape[axis.axis]
    names = {group.name for group in symmetry.groups}
    for tensor in shapes:
        for block in symmetry.blocks[tensor]:
            size = math.prod(axis.positions.size for axis in block.axes)
            movable += size * sum(bool(names & set(axis.factors)) for axis in block.axes)
    return frozen / (frozen + movable) if frozen + movable else 0.0
