"""Losses and errors of single samples: every mean is then a true mean over samples."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from sklmc.models._outputs import as_logits

IGNORED = -100  # the code of a token without a label, as torch's losses have it


def is_classification(target: torch.Tensor) -> bool:
    """Integer codes mean classification, floats regression."""
    return not target.is_floating_point()


def per_sample_loss(outputs: torch.Tensor, target: torch.Tensor, caller: str) -> torch.Tensor:
    """Return cross entropy in nats (integer target) or squared error (float target), (n,) float64.

    Where a sample has several targets (tokens, outputs), its loss is their mean. Tokens whose code
    is -100 do not count; the mean over samples is then that over the tokens that do.
    """
    if not is_classification(target):
        return _regression_error(outputs, target, caller)
    logits, codes = class_logits(outputs, target, caller)
    loss = functional.cross_entropy(logits, codes, reduction="none")
    return _by_sample(loss, target)


def mean_over_samples(values: torch.Tensor, weights=None) -> float:
    """Return the mean of one value per sample (n,), with weights (n,) if there are any."""
    if weights is None:
        return float(values.mean())
    weights = np.asarray(weights, dtype=np.float64)
    return float(np.average(values.cpu().numpy(), weights=weights / weights.max()))


def per_sample_error(outputs: torch.Tensor, target: torch.Tensor, caller: str) -> torch.Tensor:
    """Return 0 or 1 (integer target: wrong class) or squared error (float target), (n,) float64."""
    if not is_classification(target):
        return _regression_error(outputs, target, caller)
    logits, codes = class_logits(outputs, target, caller)
    wrong = (logits.argmax(dim=1) != codes).double()
    # a net whose logits are NaN predicts nothing
    wrong[torch.isnan(logits).any(dim=1)] = 1.0
    return _by_sample(wrong, target)


def _by_sample(values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean of each sample's values, one for each target that counts."""
    counts = target.reshape(len(target), -1) != IGNORED
    if counts.all():
        return values.reshape(len(target), -1).mean(dim=1)
    counts = counts.to(values.device)
    table = torch.zeros(counts.shape, dtype=values.dtype, device=values.device)
    table = table.masked_scatter(counts, values)
    return table.sum(dim=1) / counts.sum(dim=1).double().mean()


def class_logits(
    outputs: torch.Tensor, target: torch.Tensor, caller: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (rows, classes) in float64 and the code of each row.

    A sample with a target has one row, a sample with several (tokens) one for each that counts:
    outputs are then (n, ..., classes). torch's losses have the classes on axis 1; where both
    readings fit y, neither is taken.
    """
    logits = as_logits(outputs) if target.ndim == 1 else outputs
    if target.ndim == 2 and target.shape[1] == 1 and logits.ndim == 2:
        target = target[:, 0]
    last = logits.ndim == target.ndim + 1 and logits.shape[:-1] == target.shape
    second = logits.ndim > 2 and (*logits.shape[:1], *logits.shape[2:]) == tuple(target.shape)
    y, z = f"'y' of shape {tuple(target.shape)}", f"logits of shape {tuple(outputs.shape)}"
    if last and second:
        raise ValueError(
            f"{caller}: {y} fits {z} with the classes on the last axis and on axis 1, and which is "
            "meant cannot be told; pad or cut the tokens to another number than that of classes."
        )
    if not last:
        hint = ": return outputs.movedim(1, -1)" if second else ""
        raise ValueError(
            f"{caller}: {y} does not fit {z}; the classes must be the last axis of the net's "
            f"output{hint}."
        )
    n_classes = logits.shape[-1]
    counts = target != IGNORED
    if not counts.all():
        if not counts.any():
            raise ValueError(f"{caller}: no label in 'y' counts, all are {IGNORED}.")
        logits, target = logits[counts.to(logits.device)], target[counts]
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= n_classes:
        raise ValueError(
            f"{caller}: 'y' holds label {low if low < 0 else high}, but the net has {n_classes} "
            f"outputs: labels must be 0..{n_classes - 1}. Float y means regression."
        )
    # y is looked at where it lies: on an accelerator each look would wait for what runs there
    return logits.reshape(-1, n_classes).double(), target.reshape(-1).to(logits.device)


def _regression_error(outputs, target, caller: str) -> torch.Tensor:
    """Return the mean squared error of each sample."""
    prediction, wanted = (
        one[:, 0] if one.ndim == 2 and one.shape[1] == 1 else one
        for one in (outputs.double(), target.double())
    )
    if prediction.shape != wanted.shape:
        raise ValueError(
            f"{caller}: 'y' of shape {tuple(target.shape)} does not fit outputs of shape "
            f"{tuple(outputs.shape)}. Float y means regression; class labels must be integers."
        )
    wanted = wanted.to(prediction.device)
    return (prediction - wanted).square().reshape(len(wanted), -1).mean(dim=1)
