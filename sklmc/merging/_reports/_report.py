"""What a merge gives and costs, beside its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from sklearn.metrics import r2_score

from sklmc.estimators._members import Data
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._reports._scoring import Scoring, resampled_scores, score_by_name
from sklmc.merging._reports._verdict import (
    LEAST_SAMPLES,
    Comparison,
    Verdict,
    draw_resamples,
    judge,
    judge_collapse,
    judge_control,
)
from sklmc.models import (
    Inputs,
    ModelView,
    as_logits,
    class_logits,
    count_multiply_adds,
    is_classification,
    mean_over_samples,
    per_sample_error,
    per_sample_loss,
    predict_outputs,
)

TAUGHT = " distilled"  # what follows the name of a part in the row of what it was taught
N_BINS = 15  # of confidence, in the expected calibration error
COLUMNS = (
    *("model", "low", "high", "margin", "margin_low", "margin_high", "loss"),
    *("calibration_error", "n_validation", "n_parameters", "n_multiply_adds"),
)  # which no score can be called


class MergeReport:
    """Collects rows of scores on one set of samples; the last row is the merged net.

    `scoring` adds scores that are taken from estimators, on `data`; the first of all scores is the
    one that is compared. `n_held` is how many of the samples were kept from training. Where the
    target is what the ensemble itself predicts, `of_ensemble` says so: there were no labels.
    """

    def __init__(
        self,
        look: ModelView,
        inputs: Inputs,
        target: torch.Tensor,
        weights: np.ndarray | None = None,
        n_held: int = 0,
        scoring: Scoring | None = None,
        data: Data | None = None,
        of_ensemble: bool = False,
    ):
        self.of_ensemble = of_ensemble
        self.n_members = 0
        self.control: int | None = None  # the row of a part that was taught like the merged net
        self.look = look
        self.inputs = inputs
        self.target = target
        self.weights = weights
        self.n_held = n_held
        self.scoring, self.data = scoring, data
        self.n_parameters = sum(parameter.numel() for parameter in look.original.parameters())
        self.n_multiply_adds = count_multiply_adds(look, inputs)
        self.measured: list[dict] = []  # row by row
        self._outputs: list[torch.Tensor] = []
        self._estimators: list = []

    def add_members(
        self,
        members: EndPoints,
        ensemble=None,
        names: Sequence[str] = (),
        outputs: Sequence[torch.Tensor] | None = None,
    ) -> None:
        """Add every member, and the ensemble that averages their predictions."""
        if outputs is None:
            outputs = [predict_outputs(self.look, self.inputs, state) for state in members.states]
        self.n_members = len(outputs)
        names = names or [f"member_{index}" for index in range(len(outputs))]
        for name, one, state in zip(names, outputs, members.states, strict=True):
            self._add(name, one, 1, lambda state=state: self.look.rebuild(state))
        if not self.of_ensemble:
            mean = mean_prediction(members, outputs, self.target)
            self._add("ensemble", mean, len(outputs), lambda: ensemble)

    def add_state(self, name: str, state: Mapping[str, torch.Tensor]) -> None:
        """Add one net."""
        outputs = predict_outputs(self.look, self.inputs, state)
        self._add(name, outputs, 1, lambda: self.look.rebuild(state))

    def add_control(self, part: str, state: Mapping[str, torch.Tensor]) -> None:
        """Add a part that was taught the same as the merged net, to see what merging is worth."""
        self.control = len(self.measured)
        self.add_state(f"{part}{TAUGHT}", state)

    def finish(self) -> tuple[list[dict], Verdict]:
        """Return all rows, with intervals, and the verdict."""
        names = [str(row["model"]) for row in self.measured]
        members = list(range(self.n_members))
        score = list(self.measured[0])[1]
        scores = np.array([row[score] for row in self.measured])
        comparison = Comparison(scores, self._resample(score), len(self.target))
        rows = []
        for place, row in enumerate(self.measured):
            margin = comparison.difference(place, members)
            low, high = comparison.interval(place)
            own = {"model": row["model"], score: row[score], "low": low, "high": high}
            own |= {"margin": margin.value, "margin_low": margin.low, "margin_high": margin.high}
            rows.append({**own, **row})
        merged, ensemble = len(names) - 1, None if self.of_ensemble else self.n_members
        held = "held-out" if self.n_held else "training"
        samples = f"on {len(self.target)} {held} samples"
        verdict = judge(comparison, names, members, ensemble, merged, score, samples)
        if not verdict.warns and not self.of_ensemble:
            verdict = self._judge_collapse(names, members, merged) or verdict
        if self.control is not None:
            gain = comparison.difference(merged, [self.control])
            verdict = judge_control(verdict, gain, names[self.control].removesuffix(TAUGHT))
        return rows, verdict

    def _judge_collapse(self, names, members, merged) -> Verdict | None:
        """Say so where one class is all that the merged net knows, unless a score was asked for."""
        few = len(self.target) < LEAST_SAMPLES
        if self.scoring is not None or few or not is_classification(self.target):
            return None
        labels, found, recalls = [], [], []
        for outputs in self._outputs:
            logits, codes = class_logits(outputs, self.target, self.look.caller)
            labels = logits.argmax(dim=-1)
            found.append(len(labels.unique()))
            parts = [(labels[codes == code] == code).double().mean() for code in codes.unique()]
            recalls.append(float(torch.stack(parts).mean()))
        if len(codes.unique()) < 2:
            return None
        rows = "held-back" if self.n_held else "training"
        return judge_collapse(found, recalls, names, members, merged, rows)

    def _add(
        self, name: str, outputs: torch.Tensor, n_nets: int, estimator: Callable | None = None
    ) -> None:
        """Add the scores of one set of outputs; `estimator()` returns what gives them."""
        error = per_sample_error(outputs, self.target, self.look.caller)
        loss = per_sample_loss(outputs, self.target, self.look.caller)
        given: dict[str, float] = {}
        if self.scoring is not None:
            self._estimators.append(estimator())
            given = score_by_name(self.scoring, self._estimators[-1], self.data, self.look.caller)
            clash = [one for one in given if one in COLUMNS]
            if clash:
                raise ValueError(
                    f"{self.look.caller}: 'scoring' calls a score {clash[0]!r}, as a column of the "
                    "report is called; give it another name."
                )
        score: dict[str, float]
        if is_classification(self.target):
            called = "agreement" if self.of_ensemble else "accuracy"
            score = {called: 1.0 - mean_over_samples(error, self.weights)}
            calibration = {"calibration_error": self._calibration_error(outputs)}
        else:
            score, calibration = {"r2": self._r2(outputs)}, {}
        mean_loss = mean_over_samples(loss, self.weights)
        self._outputs.append(outputs)
        self.measured.append(
            {
                "model": name,
                **given,
                **{key: value for key, value in score.items() if key not in given},
                **({} if self.of_ensemble else {"loss": mean_loss, **calibration}),
                "n_validation": self.n_held,
                "n_parameters": n_nets * self.n_parameters,
                "n_multiply_adds": n_nets * self.n_multiply_adds,
            }
        )

    def _resample(self, score: str) -> np.ndarray:
        """Return the first score of every row on resampled samples, (n_rows, n_resamples)."""
        resamples = draw_resamples(len(self.target))
        if self.scoring is not None:
            args = (self._estimators, self.data, resamples, self.look.caller)
            return resampled_scores(self.scoring, score, *args)
        n = len(self.target)
        weights = np.ones(n) if self.weights is None else self.weights
        measure = self._accuracies() if is_classification(self.target) else self._r2s()
        columns = [measure(np.bincount(rows, minlength=n) * weights) for rows in resamples]
        return np.stack(columns, axis=1)

    def _accuracies(self) -> Callable[[np.ndarray], np.ndarray]:
        """Return the accuracy of each row as a function of the weights of the samples."""
        caller = self.look.caller
        errors = np.stack([per_sample_error(one, self.target, caller) for one in self._outputs])
        return lambda counts: 1.0 - errors @ counts / counts.sum()

    def _r2s(self) -> Callable[[np.ndarray], np.ndarray]:
        """Return the R2 of each row as a function of the weights of the samples."""
        wanted = self.target.double().numpy().reshape(len(self.target), -1)
        given = np.stack([one.double().numpy().reshape(wanted.shape) for one in self._outputs])
        squares = (given - wanted) ** 2  # (n_rows, n_samples, n_outputs)

        def r2(counts: np.ndarray) -> np.ndarray:
            mean = np.average(wanted, axis=0, weights=counts)
            with np.errstate(all="ignore"):
                parts = np.tensordot(squares, counts, (1, 0)) / (counts @ (wanted - mean) ** 2)
                return (1.0 - parts).mean(axis=1)

        return r2

    def _r2(self, outputs: torch.Tensor) -> float:
        """Return the coefficient of determination; NaN where a single sample has no variance."""
        if len(self.target) < 2:
            return float("nan")
        wanted = self.target.numpy().reshape(len(self.target), -1)
        given = outputs.double().numpy().reshape(wanted.shape)
        if not np.isfinite(given).all():
            return float("nan")
        return float(r2_score(wanted, given, sample_weight=self.weights))

    def _calibration_error(self, outputs: torch.Tensor) -> float:
        """Return the mean gap between confidence and accuracy over 15 bins of confidence."""
        logits, codes = class_logits(outputs, self.target, self.look.caller)
        confidence, label = torch.softmax(logits, dim=-1).max(dim=-1)
        right = (label == codes).double()
        bins = (confidence * N_BINS).ceil().clamp(1, N_BINS).nan_to_num(1.0).long() - 1
        gap = right - confidence
        if self.weights is None:
            total = float(len(right))
        else:
            weights = torch.from_numpy(self.weights)
            gap, total = gap * weights, float(weights.sum())
        gaps = torch.zeros(N_BINS, dtype=torch.float64).index_add_(0, bins, gap)
        return float(gaps.abs().sum() / total)


def mean_prediction(
    members: EndPoints, outputs: Sequence[torch.Tensor], target: torch.Tensor
) -> torch.Tensor:
    """Return the log of the members' mean probabilities, or their mean prediction."""
    if not is_classification(target):
        return members.mean_output(outputs, by_class=False)
    single = target.ndim == 1
    logits = [as_logits(one) if single else one for one in outputs]
    return members.mean_log_probability(logits)
