"""Losses of many nets on one block of samples, and the calibrated loss of a whole path."""

from __future__ import annotations

import numpy as np
import torch

from sklmc.models import fit_inverse_temperatures, scaled_cross_entropy

N_FOLDS = 5  # of "crossfit"


def block_sums(
    outputs: torch.Tensor, target: torch.Tensor, classify: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return summed losses and errors (float64) of outputs (..., n_outputs, n_values)."""
    if not classify:
        total = (outputs.double() - target).square().mean(dim=-2).sum(dim=-1)
        return total, total
    if outputs.dtype in (torch.float16, torch.bfloat16):
        outputs = outputs.float()
    index = target.expand(*outputs.shape[:-2], 1, -1)
    largest = outputs.amax(dim=-2)
    hit = outputs.gather(-2, index)[..., 0, :]
    exponentials = (outputs - largest.unsqueeze(-2)).exp_().scatter_(-2, index, 0.0)
    # loss = log(sum of exponentials) + largest - hit, exact to the last bits where it is tiny
    others = exponentials.sum(dim=-2)
    behind = hit - largest
    loss = torch.log1p(others + torch.expm1(behind)) - behind
    wrong = ~(hit >= largest)  # NaN counts as wrong
    if torch.count_nonzero(outputs == largest.unsqueeze(-2)) != wrong.numel():
        # equal logits: the first class wins, as in predict
        wrong = (outputs.argmax(dim=-2) != target) | ~torch.isfinite(largest)
    return loss.sum(dim=-1, dtype=torch.float64), wrong.sum(dim=-1).double()


def fold_of_samples(target: np.ndarray, n_folds: int = N_FOLDS) -> np.ndarray:
    """Deal samples to folds in turn, class by class: balanced, and the same every time."""
    codes = target if target.ndim == 1 else np.zeros(len(target), dtype=np.int64)
    folds = np.empty(len(codes), dtype=np.int64)
    folds[np.argsort(codes, kind="stable")] = np.arange(len(codes)) % min(n_folds, len(codes))
    return folds


def calibrate_in_sample(
    logits: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the calibrated loss and the inverse temperature of k nets, logits (k, classes, n)."""
    beta = fit_inverse_temperatures(logits, target)
    return _mean_loss(logits, target, beta), beta


def calibrate_on(
    logits: torch.Tensor,
    target: torch.Tensor,
    fit_logits: torch.Tensor,
    fit_target: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit the inverse temperature on other samples than those whose loss is returned."""
    beta = fit_inverse_temperatures(fit_logits, fit_target, held_out=True)
    return _mean_loss(logits, target, beta), beta


def calibrate_crossfit(
    logits: torch.Tensor, target: torch.Tensor, folds: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score each fold with the inverse temperature of the others; beta is their geometric mean."""
    everything = fit_inverse_temperatures(logits, target, held_out=True)
    total = torch.zeros(len(logits), dtype=torch.float64)
    log_beta = torch.zeros_like(total)
    n_folds = int(folds.max()) + 1
    for fold in range(n_folds):
        held = folds == fold
        beta = fit_inverse_temperatures(
            logits[:, :, ~held], target[~held], held_out=True, start=everything
        )
        total += scaled_cross_entropy(logits[:, :, held], target[held], beta).sum(dim=1)
        log_beta += beta.log()
    return total / len(target), (log_beta / n_folds).exp()


def _mean_loss(logits, target, beta) -> torch.Tensor:
    """Return the mean cross entropy (k,) at the given inverse temperatures."""
    parts = [
        scaled_cross_entropy(logits[i : i + 1], target, beta[i : i + 1]) for i in range(len(logits))
    ]
    return torch.cat(parts).mean(dim=1)
