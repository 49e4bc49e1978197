"""Why two nets do not average."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sklmc._validation import check_same_length
from sklmc.alignment import PermutationAligner
from sklmc.connectivity._unwrap import common_input, see_through
from sklmc.exceptions import SklmcWarning
from sklmc.features._halves import Halves, Score, mean_score
from sklmc.features._layer_evidence import layer_evidence, unit_correlation
from sklmc.features._remedies import cause
from sklmc.features._report import BarrierCause, BarrierReport
from sklmc.features._variance import variance_ratio
from sklmc.merging import repair
from sklmc.merging._batch_norm import reestimate_statistics, tracked_norms
from sklmc.models import ModelView, check_compatible, interpolate_states, view
from sklmc.symmetry import PermutationSymmetry, cached_symmetry

MIN_SAMPLES = 40
CONNECTED = 0.03  # of what the ends have learned: a barrier below this is none
LISTED = 0.1  # of the barrier: what explains less is not named
SKILL = 0.5  # share of a constant prediction's error that an end must remove
SKILL_GAP = 0.1  # by which the ends may differ in that
SCALE_ONLY = 0.15  # of the barrier that may be left for scale to be the whole story
ERROR_RISE = 0.05  # of what the ends have learned, in errors: more is not a matter of scale
AT_CHANCE = 0.2  # share of the attainable objective below which B's order is no better than random
RELATED = 0.3  # correlation of units of one place below which they are different features
IN_ORDER = 0.95  # share of that objective above which B's order counts as good by weights
NEARER = 0.05  # rise of the correlation of units that makes another order better all the same
LEFT_OVER = 2 / 3  # weight of what is left in the ranking
LEFT_OVERS = ("different_features", "frozen_symmetry")
PERMUTABLE = 0.5  # share of weights that should be permutable
N_RANDOM = 5  # random permutations that tell what chance gives


def explain_barrier(a, b, X, y):
    """Explain why the average of two nets is worse than the nets.

    Every known cause is tried by its remedy: what the remedy removes of the barrier at the
    midpoint is the cause's share. Half of the samples serve to fit remedies, half to score.

    Parameters
    ----------
    a, b : skorch net, fitted sklmc estimator, Pipeline or torch.nn.Module
        Two nets of one architecture. A is the reference; neither is changed. A Pipeline counts
        as its last step, seen through the earlier ones.
    X : array-like of shape (n_samples, ...)
        At least 40 samples, better some hundreds; held-out ones, if the nets fit their training
        data perfectly.
    y : array-like of shape (n_samples,)
        Labels or targets.

    Returns
    -------
    report : BarrierReport
        `causes`, ranked, each with its number, its reference level and the call that would help;
        `layers`; ``print(report)`` says it in words, ``report.to_frame()`` as a table.

    Raises
    ------
    ArchitectureMismatchError
        If the nets differ in tensors, task or classes (a ValueError).
    ValueError
        If there are too few samples, y does not fit, or a weight is not finite.

    See Also
    --------
    sklmc.LMCScorer : Measures the barrier.
    layerwise_linear_connectivity, variance_ratio : The evidence by layer.

    Notes
    -----
    Causes overlap: permuted units collapse in variance, and collapsed nets have small logits. So
    the order of decisions matters; it goes from what spoils every other measurement, by what is
    cheap to mend, to what is left:

    1. *stale_batch_norm*: statistics are estimated again at both ends and at the midpoint. What
       that gains is its share; all that follows uses the new statistics.
    2. *under_trained*: an end removes less than half of a constant prediction's error, or the
       ends differ by more than 0.1 in that share. It comes first in the report if it is found.
       If there is no barrier (3 % of what the ends have learned), the search ends here.
    3. *logit_scale*: named only if one inverse temperature for each net leaves at most 15 % of
       the barrier, and the midpoint makes hardly more errors than the ends. The search then
       ends. Otherwise everything below is measured in calibrated loss.
    4. *not_aligned* or *local_optimum*: B is aligned with A (``method="auto"``). If that gains,
       the sum of products of weights tells which: B's own order reaches less than a fifth of
       what alignment adds to random orders (not aligned), or more (a local optimum). An order
       that is better neither by weights nor by activations is not taken. Where units of one
       place are related in every layer (correlation above 0.3), 5 comes before 4.
    5. *variance_collapse*: the aligned midpoint is renormalised. The gain counts where units of
       one place are related on average; else it belongs to 6.
    6. What is left: *frozen_symmetry* if less than half of the weights can be permuted,
       otherwise *different_features*.

    Causes are ranked by their shares, what is left (6) counting two thirds. What explains less
    than a tenth of the barrier is not named. Deterministic.

    References
    ----------
    .. [1] Ainsworth, Hayase, Srinivasa, "Git Re-Basin", ICLR 2023 (4).
    .. [2] Jordan, Sedghi, Saukh, Entezari, Neyshabur, "REPAIR", ICLR 2023 (1, 5).
    .. [3] Ito, Yamada, Chijiwa, Kumagai, "Do we really need permutations?", 2025 (3).

    Examples
    --------
    Two copies of one net, the hidden units of one in another order:

    >>> import numpy as np
    >>> import torch
    >>> from sklmc import NetClassifier
    >>> from sklmc.features import explain_barrier
    >>> from sklmc.symmetry import discover_symmetry
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 4))
    >>> y = (X[:, 0] * X[:, 1] > 0).astype(int)
    >>> a = NetClassifier(module__width=16, module__depth=2, random_state=0).fit(X, y)
    >>> symmetry = discover_symmetry(a)
    >>> b = symmetry.apply(a, symmetry.random_permutation(0))
    >>> [cause.name for cause in explain_barrier(a, b, X, y).causes]
    ['not_aligned']
    """
    caller = "explain_barrier"
    (before_a, inner_a), (before_b, inner_b) = see_through(a), see_through(b)
    X = common_input([before_a, before_b], X, caller, ["a", "b"])
    check_same_length(X[0] if isinstance(X, tuple) else X, y, caller)
    looks = [view(inner_a, caller=caller, name="a"), view(inner_b, caller=caller, name="b")]
    check_compatible(looks, caller, ["a", "b"])
    for look in looks:
        look.check_logits()
    data, target = looks[0].to_input(X), looks[0].to_target(y)
    if len(target) < MIN_SAMPLES:
        raise ValueError(
            f"{caller}: 'X' holds {len(target)} samples, too few: at least {MIN_SAMPLES} are "
            "needed, half to try remedies on and half to score them."
        )
    plain = view(looks[0].module, caller=caller, name="a")
    search = _Search(plain, Halves(plain, data, target), looks[0].state, looks[1].state)
    return search.run()


class _Search:
    """The search for causes: one step after another, each leaving the pair as it mended it."""

    def __init__(self, look: ModelView, halves: Halves, a, b):
        self.look, self.halves = look, halves
        self.given = a, b
        self.a, self.b = a, b
        self.normed = bool(tracked_norms(look.module))
        self.renormalized = False
        self.rows: list[tuple[str, Score]] = []
        self.causes: list[BarrierCause] = []

    def run(self) -> BarrierReport:
        """Take all steps in order."""
        self.constant = self.halves.constant()
        self.ends = [self._note(name, state) for name, state in zip("AB", self.given)]
        given = self.midpoint = self._note("midpoint", interpolate_states(*self.given, 0.5))
        barrier = given.loss - mean_score(*self.ends).loss
        if self.normed:
            self._refresh_ends()
        self.mean = mean_score(*self.ends)
        self.total = given.loss - self.mean.loss
        self._training()
        if not self._connected():
            if self.normed:
                self._refresh_midpoint()
            if not self._scale_only():
                self._weights()
        layers = layer_evidence(self.look, self.given, (self.a, self.b), self.halves.fit_data)
        measures = pd.DataFrame(
            [[name, *score] for name, score in self.rows],
            columns=["net", "loss", "calibrated_loss", "error"],
        )
        return BarrierReport(ranked(self.causes), barrier, measures, layers)

    def _note(self, name: str, state) -> Score:
        """Score a net and keep the score for the report."""
        score = self.halves.score(state)
        self.rows.append((name, score))
        return score

    def _fresh(self, state):
        """Return a state whose batch-norm statistics are its own."""
        if not self.normed:
            return state
        return reestimate_statistics(self.look, state, self.halves.fit_data)

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

    def _training(self) -> None:
        """Compare the ends with a constant prediction, and with each other."""
        skills = [1.0 - end.error / max(self.constant.error, 1e-12) for end in self.ends]
        low, high, worse = min(skills), max(skills), "AB"[int(np.argmin(skills))]
        if low < SKILL:
            self.causes.append(cause("under_trained", np.nan, low, SKILL, end=worse))
        elif high - low > SKILL_GAP:
            words = {"kind": "unequal", "end": worse}
            self.causes.append(cause("under_trained", np.nan, low, high, **words))

    def _connected(self) -> bool:
        """Say whether there is no barrier to explain."""
        learned = (max(x - y, 0.0) for x, y in zip(self.constant, self.mean))
        rises = (x - y for x, y in zip(self.midpoint, self.mean))
        loss, _, error = (rise <= CONNECTED * most for rise, most in zip(rises, learned))
        return loss and error

    def _refresh_midpoint(self) -> None:
        """Give the midpoint statistics of its own."""
        score = self._note(
            "midpoint, new statistics", self._fresh(interpolate_states(self.a, self.b, 0.5))
        )
        gain = self.midpoint.loss - score.loss
        if gain > LISTED * self.total:
            found = cause("stale_batch_norm", gain / self.total, self.midpoint.loss, score.loss)
            self.causes.append(found)
        if gain > 0:
            self.midpoint = score

    def _scale_only(self) -> bool:
        """Say whether the scale of logits explains what is left of the barrier."""
        raw = self.midpoint.loss - self.mean.loss
        left = self.midpoint.calibrated - self.mean.calibrated
        learned = max(self.constant.error - self.mean.error, 0.0)
        self.weight = raw / self.total if self.total > 0 else 0.0
        errors = self.midpoint.error - self.mean.error
        poor = any(found.name == "under_trained" for found in self.causes)
        if self.weight < LISTED:
            return True  # statistics were all of it
        if not self.halves.classify or poor:
            return False
        if left > SCALE_ONLY * raw or errors > ERROR_RISE * learned:
            return False
        share = self.weight * (1.0 - max(left, 0.0) / raw)
        self.causes.append(cause("logit_scale", share, max(left, 0.0), raw))
        return True

    def _weights(self) -> None:
        """Look for causes in the order of units, their variance, and the features themselves."""
        whole = self.midpoint.calibrated - self.mean.calibrated
        if whole <= 0:
            return
        symmetry = cached_symmetry(self.look, self.halves.fit_data)
        steps = [self._order, self._variance]
        if self._correlations().min() >= RELATED:  # B is in order already
            steps.reverse()
        for step in steps:
            step(symmetry, whole)
        share = self._left(whole)
        if share < LISTED:
            return
        frozen = frozen_share(symmetry)
        if frozen > 1.0 - PERMUTABLE:
            self.causes.append(cause("frozen_symmetry", share, frozen, 0.0))
        else:
            related = self._correlations().mean()
            self.causes.append(cause("different_features", share, related, RELATED))

    def _order(self, symmetry: PermutationSymmetry, whole: float) -> None:
        """Align B with A where that helps."""
        if not symmetry.groups or self._left(whole) < LISTED:
            return
        halves = self.halves
        a, b = self.look.rebuild(self.a), self.look.rebuild(self.b)
        aligner = PermutationAligner("auto", symmetry=symmetry, random_state=0)
        aligner.fit(a, b, halves.fit_data, halves.fit_target.numpy())
        moved = symmetry.apply_state(self.b, aligner.permutation_)
        reached = order_share(symmetry, self.a, self.b, moved)
        nearer = self._correlations(moved).mean() - self._correlations().mean()
        score = self._note("midpoint, aligned", self._middle(moved))
        gain = self.midpoint.calibrated - score.calibrated
        if gain <= 0 or (reached > IN_ORDER and nearer < NEARER):
            return  # B's own order is the better one by weights and by activations
        self.b, self.midpoint = moved, score
        share = self.weight * gain / whole
        if share >= LISTED:
            name = "not_aligned" if reached < AT_CHANCE else "local_optimum"
            reference = AT_CHANCE if name == "not_aligned" else 1.0
            self.causes.append(cause(name, share, reached, reference, gain=gain))

    def _variance(self, symmetry: PermutationSymmetry, whole: float) -> None:
        """Renormalise the midpoint of related nets where that helps."""
        if self._left(whole) < LISTED or not self._correlations().mean() >= RELATED:
            return
        self.renormalized = True
        score = self._note("midpoint, renormalized", self._middle(self.b))
        gain = self.midpoint.calibrated - score.calibrated
        if gain <= 0:
            self.renormalized = False
            return
        self.midpoint = score
        share = self.weight * gain / whole
        if share >= LISTED:
            a, b = self.look.rebuild(self.a), self.look.rebuild(self.b)
            lowest = variance_ratio(a, b, self.halves.fit_data).ratio.min()
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
            mended = repair(models[0], models[1:], self.halves.fit_data, method="renormalize")
        return view(mended, caller=self.look.caller).state

    def _left(self, whole: float) -> float:
        """Return the share of the barrier that is left."""
        return self.weight * (self.midpoint.calibrated - self.mean.calibrated) / whole

    def _correlations(self, b=None) -> np.ndarray:
        """Return the correlation of A's and B's units of one place in each hidden layer."""
        models = self.look.rebuild(self.a), self.look.rebuild(self.b if b is None else b)
        found = list(unit_correlation(models[0], models[1], self.halves.fit_data).values())
        return np.nan_to_num(found[:-1] or found)


def ranked(causes: Sequence[BarrierCause]) -> tuple[BarrierCause, ...]:
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
