"""What a merge gives and costs, beside its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.stats import binom
from sklearn.metrics import r2_score

from sklmc.models import (
    Inputs,
    ModelView,
    as_logits,
    class_logits,
    count_multiply_adds,
    is_classification,
    per_sample_error,
    per_sample_loss,
    predict_outputs,
)

N_BINS = 15  # of confidence, in the expected calibration error
SIGNIFICANCE = 0.01  # of the sign test that a MergeWarning stands on


class MergeReport:
    """Collects rows of scores on one set of samples."""

    def __init__(self, look: ModelView, inputs: Inputs, target: torch.Tensor):
        self.look = look
        self.inputs = inputs
        self.target = target
        self.n_parameters = sum(parameter.numel() for parameter in look.original.parameters())
        self.n_multiply_adds = count_multiply_adds(look, inputs)
        self.rows: list[dict] = []  # the last one is the merged net
        self._errors: list[torch.Tensor] = []  # per sample, row by row

    def add_members(self, states: Sequence[Mapping[str, torch.Tensor]]) -> None:
        """Add every member, and the ensemble that averages their predictions."""
        outputs = [predict_outputs(self.look, self.inputs, state) for state in states]
        for index, one in enumerate(outputs):
            self._add(f"member_{index}", one, 1)
        self._add("ensemble", self._mean_prediction(outputs), len(states))

    def add_state(self, name: str, state: Mapping[str, torch.Tensor]) -> None:
        """Add one net."""
        self._add(name, predict_outputs(self.look, self.inputs, state), 1)

    def verdict(self) -> str | None:
        """Say by how much the last row is worse than the best member, if it clearly is.

        Clearly: its score is lower, and among the samples on which the two differ (right or
        wrong; squared error) it loses so many that a fair coin would do so with a probability
        below 1 %. Fewer than seven such samples never suffice.
        """
        column = "accuracy" if is_classification(self.target) else "r2"
        members = [i for i, row in enumerate(self.rows) if str(row["model"]).startswith("member_")]
        best = min(members, key=lambda i: float(self._errors[i].mean()))
        merged = self._errors[-1]
        lost = int((merged > self._errors[best]).sum())
        won = int((merged < self._errors[best]).sum())
        if float(merged.mean()) <= float(self._errors[best].mean()):
            return None
        if binom.sf(lost - 1, lost + won, 0.5) >= SIGNIFICANCE:
            return None
        return (
            f"{column} {self.rows[-1][column]:.4g} against {self.rows[best][column]:.4g} of "
            f"{self.rows[best]['model']}, on {len(merged)} samples"
        )

    def _add(self, name: str, outputs: torch.Tensor, n_nets: int) -> None:
        """Add the scores of one set of outputs."""
        error = per_sample_error(outputs, self.target, self.look.caller)
        loss = per_sample_loss(outputs, self.target, self.look.caller)
        score: dict[str, float]
        if is_classification(self.target):
            score = {"accuracy": 1.0 - float(error.mean())}
            calibration = {"calibration_error": self._calibration_error(outputs)}
        else:
            score, calibration = {"r2": self._r2(outputs)}, {}
        self._errors.append(error)
        self.rows.append(
            {
                "model": name,
                **score,
                "loss": float(loss.mean()),
                **calibration,
                "n_parameters": n_nets * self.n_parameters,
                "n_multiply_adds": n_nets * self.n_multiply_adds,
            }
        )

    def _r2(self, outputs: torch.Tensor) -> float:
        """Return the coefficient of determination; NaN where a single sample has no variance."""
        if len(self.target) < 2:
            return float("nan")
        wanted = self.target.numpy().reshape(len(self.target), -1)
        given = outputs.double().numpy().reshape(wanted.shape)
        return float(r2_score(wanted, given)) if np.isfinite(given).all() else float("nan")

    def _calibration_error(self, outputs: torch.Tensor) -> float:
        """Return the mean gap between confidence and accuracy over 15 bins of confidence."""
        logits, codes = class_logits(outputs, self.target, self.look.caller)
        confidence, label = torch.softmax(logits, dim=-1).max(dim=-1)
        right = (label == codes).double()
        bins = (confidence * N_BINS).ceil().clamp(1, N_BINS).nan_to_num(1.0).long() - 1
        gaps = torch.zeros(N_BINS, dtype=torch.float64).index_add_(0, bins, right - confidence)
        return float(gaps.abs().sum() / len(right))

    def _mean_prediction(self, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the log of the mean probabilities, or the mean prediction."""
        if not is_classification(self.target):
            return torch.stack([one.double() for one in outputs]).mean(dim=0)
        single = self.target.ndim == 1
        logits = torch.stack([(as_logits(one) if single else one).double() for one in outputs])
        logs = torch.log_softmax(logits, dim=-1)
        return torch.logsumexp(logs, dim=0) - np.log(len(outputs))
