"""Which of a merged net, its members and their ensemble to use: by paired differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from scipy import stats

N_RESAMPLES = 300  # of the samples, for all intervals
SCORE_CONFIDENCE = 0.95  # of the interval of a score
CONFIDENCE = 0.99  # of the interval of a difference, which verdicts and warnings stand on
LEAST_SAMPLES = 7  # with fewer, one-sidedness is common among equals: nothing is told apart


def draw_resamples(n_samples: int) -> Iterator[np.ndarray]:
    """Yield the rows of each resample, (n_samples,); the same every time."""
    rng = np.random.default_rng(0)
    return (rng.integers(0, n_samples, n_samples) for _ in range(N_RESAMPLES))


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference of two scores on the same samples, and its interval."""

    value: float
    low: float
    high: float

    @property
    def worse(self) -> bool:
        return self.high < 0

    @property
    def better(self) -> bool:
        return self.low > 0

    def __str__(self) -> str:
        return (
            f"difference {self.value:+.3g}, {CONFIDENCE:.0%} interval {self.low:+.3g} to "
            f"{self.high:+.3g}"
        )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The scores of some models, and those on resamples of the samples."""

    scores: np.ndarray  # (n_models,), greater is better
    resampled: np.ndarray  # (n_models, n_resamples)
    n_samples: int

    def interval(self, model: int) -> tuple[float, float]:
        """Return the ends of the interval of a model's score: percentiles of the resamples."""
        known = self.resampled[model][np.isfinite(self.resampled[model])]
        if len(known) == 0:
            return np.nan, np.nan
        edge = 0.5 * (1.0 - SCORE_CONFIDENCE)
        low, high = np.quantile(known, [edge, 1.0 - edge])
        return float(low), float(high)

    def best(self, models: list[int]) -> int:
        """Return the model with the greatest score; the first among equals."""
        return models[int(np.nan_to_num(self.scores[models], nan=-np.inf).argmax())]

    def difference(self, model: int, others: list[int]) -> Difference:
        """Return by how much a model is better than the best of others.

        The best is picked anew inside each resample. Being picked flatters it, in the resamples as
        in the samples themselves: what resampling adds to the difference is taken off again, and
        the ends are those of Student's t.
        """
        value = float(self.scores[model] - self.scores[self.best(others)])
        with np.errstate(invalid="ignore"):  # what is not finite drops out next
            differences = self.resampled[model] - np.fmax.reduce(self.resampled[others])
        known = differences[np.isfinite(differences)]
        if self.n_samples < LEAST_SAMPLES or len(known) < 2:
            return Difference(value, -np.inf, np.inf)
        middle = 2.0 * value - known.mean()
        reach = stats.t.ppf(0.5 * (1.0 + CONFIDENCE), self.n_samples - 1) * known.std(ddof=1)
        return Difference(value, float(middle - reach), float(middle + reach))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A sentence, whether it is bad news of the merged net, and which single net to use."""

    text: str
    warns: bool
    single: int  # its row; the merged net's unless that is worse than its best part


def judge(
    comparison: Comparison,
    names: list[str],
    members: list[int],
    ensemble: int | None,
    merged: int,
    score: str,
    samples: str,
) -> Verdict:
    """Say which model to use, and why; a single net where the ensemble is not clearly better.

    Without the row of an ensemble, scores say how near models come to it.
    """
    best = comparison.best(members)
    margin = comparison.difference(merged, members)
    broken = np.isnan(comparison.scores[merged]) and np.isfinite(comparison.scores[best])
    values = (
        f"{score} {comparison.scores[merged]:.4g} against {comparison.scores[best]:.4g} of "
        f"{names[best]}, {samples}, {margin}"
    )
    single, chosen = merged, "the merged net"
    if margin.worse or broken:
        single, chosen = best, names[best]
        reason = f"the merged net is worse than its best part ({values})"
    elif margin.better:
        reason = f"it is better than its best part ({values})"
    else:
        chosen = f"the merged net or {names[best]}"
        reason = f"they are not distinguishable ({values})"
    warns = bool(margin.worse or broken)
    if ensemble is None:
        reason = f"{reason}; no labels were given, and {score} is that with the ensemble"
        return Verdict(f"Use {chosen}: {reason}.", warns, single)
    gain = comparison.difference(ensemble, [single])
    than = names[best] if single == best else "the merged net"
    if not gain.better:
        how = "worse" if gain.worse else f"not distinguishable from {than}"
        text = f"Use {chosen}: {reason}; the ensemble is {how} ({gain})."
    else:
        text = (
            f"Use the ensemble: it is better than {than} ({gain}); of single nets, {chosen}: "
            f"{reason}."
        )
    return Verdict(text, warns, single)


def judge_collapse(
    n_labels: list[int],
    recalls: list[float],
    names: list[str],
    members: list[int],
    merged: int,
    rows: str,
) -> Verdict | None:
    """Say so where the merged net predicts one class alone and some members do not.

    `n_labels` holds how many classes each model predicts, `recalls` its mean recall.
    """
    alive = [index for index in members if n_labels[index] > 1]
    if n_labels[merged] > 1 or not alive:
        return None
    best = max(alive, key=lambda index: recalls[index])
    plain = all(names[index].startswith("member_") for index in alive)
    listed = ", ".join(names[index].removeprefix("member_") for index in alive)
    if len(alive) == 1:
        who = f"member {listed} does" if plain else f"{listed} does"
    else:
        who = f"members {listed} do" if plain else f"{listed} do"
    return Verdict(
        f"Use {names[best]}: the merged net predicts one class on all {rows} rows, {who} not "
        f"(mean recall of the classes {recalls[merged]:.2g} against {recalls[best]:.2g}; "
        "scoring='balanced_accuracy' reports it).",
        warns=True,
        single=best,
    )


def judge_control(verdict: Verdict, gain: Difference, part: str) -> Verdict:
    """Add what the steps of a merged net that was taught give when a part takes them."""
    worth = (
        f"The same steps from {part} do worse ({gain})."
        if gain.better
        else f"The same steps from {part} do as well ({gain}): merging was not needed."
    )
    return dataclasses.replace(verdict, text=f"{verdict.text} {worth}")
