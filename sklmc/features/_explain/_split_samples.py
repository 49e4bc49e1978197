"""Scores of nets on one half of the samples, with everything fitted on the other half."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from sklmc.models import (
    Inputs,
    ModelView,
    State,
    class_logits,
    fit_inverse_temperature,
    is_classification,
    per_sample_error,
    per_sample_loss,
    predict_outputs,
)

MAX_FIT_ROWS = 2000  # samples that statistics and permutations are fitted on


class Score(NamedTuple):
    """Mean loss, the same after one inverse temperature, and error, on held-out samples."""

    loss: float
    calibrated: float
    error: float


MEASURES = ("loss", "calibrated_loss", "error")  # a score's three, as tables call them


class SplitSamples:
    """Samples split at random into a part to fit on and a part to score on."""

    def __init__(self, look: ModelView, data: Inputs, target: torch.Tensor):
        self.look = look
        self.classify = is_classification(target)
        order = torch.from_numpy(np.random.RandomState(0).permutation(len(target)))
        fit, held_out = order[: len(order) // 2], order[len(order) // 2 :]
        fit = fit[:MAX_FIT_ROWS]
        self.fit_data, self.data = data[fit], data[held_out]
        self.fit_target, self.target = target[fit], target[held_out]

    def score(self, state: State) -> Score:
        """Score one net."""
        outputs = predict_outputs(self.look, self.data, state)
        caller = self.look.caller
        loss = float(per_sample_loss(outputs, self.target, caller).mean())
        error = float(per_sample_error(outputs, self.target, caller).mean())
        if not self.classify:
            return Score(loss, loss, error)
        fitted = predict_outputs(self.look, self.fit_data, state)
        beta = fit_inverse_temperature(
            *class_logits(fitted, self.fit_target, caller), held_out=True
        )
        logits, codes = class_logits(outputs, self.target, caller)
        return Score(loss, float(functional.cross_entropy(beta * logits, codes)), error)

    def constant(self) -> Score:
        """Score the best constant prediction."""
        if not self.classify:
            mean = self.fit_target.double().mean(dim=0)
            loss = float((self.target.double() - mean).square().mean())
            return Score(loss, loss, loss)
        counts = torch.bincount(torch.cat([self.fit_target, self.target]).flatten()).double()
        shares = counts[counts > 0] / counts.sum()
        loss = float(-(shares * shares.log()).sum())
        return Score(loss, loss, 1.0 - float(shares.max()))


def mean_score(first: Score, second: Score) -> Score:
    """Return the mean of two scores."""
    return Score(*((x + y) / 2.0 for x, y in zip(first, second)))
