"""Why two nets do not average: one remedy after another is tried, each gain measured."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sklmc.alignment import PermutationAligner
from sklmc.exceptions import SklmcWarning
from sklmc.features._explain._barrier_report import BarrierCause, BarrierReport, cause
from sklmc.features._explain._evidence import (
    frozen_share,
    layer_evidence,
    order_share,
    unit_correlation,
)
from sklmc.features._explain._split_samples import MEASURES, Score, SplitSamples, mean_score
from sklmc.features._variance import variance_ratio
from sklmc.merging import reestimate_statistics, repair, tracked_norms
from sklmc.models import (
    ModelView,
    check_compatible,
    interpolate_states,
    read_labelled_data,
    view,
    view_through,
)
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
MIN_SAMPLES = 40


def explain_barrier(model_a, model_b, X, y=None) -> BarrierReport:
    """Explain why the average of two nets is worse than the nets.

    Every known cause is tried by its remedy: what the remedy removes of the barrier at the
    midpoint is the cause's share. Half of the samples serve to fit remedies, half to score.

    Parameters
    ----------
    model_a, model_b : skorch net, fitted sklmc estimator, Pipeline or torch.nn.Module
        Two nets of one architecture. A is the reference; neither is changed. A Pipeline counts
        as its last step, seen through the earlier ones.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        At least 40 samples, better some hundreds; held-out ones, if the nets fit their training
        data perfectly.
    y : array-like of shape (n_samples,), default=None
        Labels or targets. None where X holds them (Dataset, DataLoader).

    Returns
    -------
    report : BarrierReport
        `causes`, ranked, each with its number, its reference level and the call that would help;
        `rises`, which of loss, calibrated loss and error are higher at the midpoint; `layers`;
        ``print(report)`` says it in words, ``report.to_frame()`` as a table.

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
    Over-confident ends hide a barrier: averaging makes logits smaller, and the loss may fall while
    the error rises. A barrier is there if the loss, the loss after one inverse temperature for each
    net, or the error rises by more than 3 % of what the ends have learned; the first of them that
    does is what shares are shares of.

    Causes overlap: permuted units collapse in variance, and collapsed nets have small logits. So
    the order of decisions matters; it goes from what spoils every other measurement, by what is
    cheap to mend, to what is left:

    1. *stale_batch_norm*: statistics are estimated again at both ends and at the midpoint. What
       that gains is its share; all that follows uses the new statistics.
    2. *under_trained*: an end removes less than half of a constant prediction's error, or the
       ends differ by more than 0.1 in that share. It comes first in the report if it is found;
       below a quarter the search ends here. So it does if there is no barrier.
    3. *logit_scale*: named only if the loss itself rises, one inverse temperature for each net
       leaves at most 15 % of the barrier, and the midpoint makes hardly more errors than the ends.
       The search then ends. Otherwise everything below is measured in calibrated loss, or in
       errors if these alone rise.
    4. *not_aligned* or *local_optimum*: B is aligned with A (``method="auto"``). If that gains,
       the sum of products of weights tells which: B's own order reaches less than a fifth of
       what alignment adds to random orders (not aligned), or more (a local optimum). An order
       that is better neither by weights nor by activations is not taken. Where B's own order
       reaches 0.7 of it, and units of one place are related in every layer (correlation above
       0.3), 5 comes before 4.
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
    >>> from sklmc import NetClassifier, discover_symmetry, explain_barrier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 2))
    >>> y = (X[:, 0] * X[:, 1] > 0).astype(int)
    >>> a = NetClassifier(module__width=16, max_epochs=20, random_state=0).fit(X, y)
    >>> symmetry = discover_symmetry(a)
    >>> b = symmetry.apply(a, symmetry.random_permutation(0))
    >>> [cause.name for cause in explain_barrier(a, b, X, y).causes]
    ['not_aligned']
    """
    caller = "explain_barrier"
    names = ["model_a", "model_b"]
    looks, _, X = view_through([model_a, model_b], X, caller, names)
    check_compatible(looks, caller, names)
    data, target = read_labelled_data(looks[0], X, y)
    if len(target) < MIN_SAMPLES:
        raise ValueError(
            f"{caller}: 'X' holds {len(target)} samples, too few: at least {MIN_SAMPLES} are "
            "needed, half to try remedies on and half to score them."
        )
    plain = view(looks[0].module, caller=caller, name="model_a")
    search = CauseSearch(plain, SplitSamples(plain, data, target), looks[0].state, looks[1].state)
    return search.run()


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
        return (
            reestimate_statistics(self.look, state, self.split.fit_data) if self.normed else state
        )

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
        in_order = found is None or found[1] >= MOSTLY_IN_ORDER
        if in_order and self._correlations().min() >= RELATED:
            self._variance(whole)
        if found is not None:
            self._order(*found, whole)
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

    def _best_order(self, symmetry: PermutationSymmetry) -> tuple[dict, float, float]:
        """Align B with A: its state, how far B's own order reaches, how much nearer this is."""
        split = self.split
        a, b = self.look.rebuild(self.a), self.look.rebuild(self.b)
        aligner = PermutationAligner("auto", symmetry=symmetry, random_state=0)
        aligner.fit(a, b, split.fit_data, split.fit_target.numpy())
        moved = symmetry.apply_state(self.b, aligner.permutation_)
        nearer = self._correlations(moved).mean() - self._correlations().mean()
        return moved, order_share(symmetry, self.a, self.b, moved), nearer

    def _order(self, moved, reached: float, nearer: float, whole: float) -> None:
        """Take the better order of B's units where that helps."""
        if self._share_left(whole) < LISTED:
            return
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
