"""Which repair serves best, judged on samples that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from sklmc.models import (
    Inputs,
    ModelView,
    State,
    as_logits,
    fit_inverse_temperature,
    is_classification,
    per_sample_loss,
    predict_outputs,
)

JUDGED = 5  # every fifth sample is kept to judge by


def choose_state(
    view: ModelView,
    candidates: Mapping[str, Callable[[Inputs], State]],
    endpoints: Sequence[State],
    inputs: Inputs,
    target: torch.Tensor | None,
    weights: np.ndarray,
) -> tuple[State, str]:
    """Return the candidate that does best on samples kept from its fit; the first among equals.

    With a target, by its loss (of classifiers after one inverse temperature, so that a mere
    change of scale decides nothing); without, by how near it comes to the end points' mean.
    """
    rows = torch.arange(len(inputs))
    judged = rows % JUDGED == JUDGED - 1
    fitted, kept = inputs[rows[~judged]], inputs[rows[judged]]
    if target is not None:
        wanted = target[rows[judged]]
    else:
        wanted = _mean_prediction(view, endpoints, kept, weights)
    best, chosen, least = None, "", np.inf
    for name, make in candidates.items():
        state = make(fitted)
        outputs = predict_outputs(view, kept, state)
        badness = misfit(view, outputs, wanted, known=target is not None)
        if best is None or badness < least:
            best, chosen, least = state, name, badness
    return best, chosen


def misfit(view: ModelView, outputs: torch.Tensor, wanted: torch.Tensor, known: bool) -> float:
    """Return how badly outputs fit labels or values, or the end points' mean."""
    if not torch.isfinite(outputs).all():
        return np.inf
    if not known and view.task == "classifier":
        logs = torch.log_softmax(_double_logits(outputs), dim=-1)
        return -float((wanted * logs).sum(dim=-1).mean())
    if not known:
        return float((outputs.double() - wanted).square().mean())
    if is_classification(wanted) and wanted.ndim == 1:
        outputs = as_logits(outputs).double()
        outputs = outputs * fit_inverse_temperature(outputs, wanted, held_out=True)
    return float(per_sample_loss(outputs, wanted, view.caller).mean())


def _mean_prediction(
    view: ModelView, endpoints: Sequence[State], inputs: Inputs, weights: np.ndarray
) -> torch.Tensor:
    """Return the end points' mean probabilities, or their mean outputs where there are none."""
    total = 0.0
    for state, weight in zip(endpoints, weights, strict=True):
        if weight == 0:
            continue
        outputs = predict_outputs(view, inputs, state)
        if view.task == "classifier":
            outputs = torch.softmax(_double_logits(outputs), dim=-1)
        total = total + weight * outputs.double()
    return total


def _double_logits(outputs: torch.Tensor) -> torch.Tensor:
    """Return logits in float64, two of them where the net has one."""
    single = outputs.ndim == 1 or outputs.shape[-1] == 1
    return (as_logits(outputs) if single else outputs).double()
