"""Samples in blocks; losses, errors and calibrated losses of all nets on paths over them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from sklmc.models import fit_inverse_temperatures, scaled_cross_entropy

N_FOLDS = 5  # of "crossfit"


@dataclasses.dataclass(frozen=True)
class Samples:
    """Inputs and targets as arrays (memory-mapped when they travel); the first `n_scored` count."""

    inputs: tuple[np.ndarray, ...]
    target: np.ndarray
    n_scored: int

    def block(self, start: int, stop: int) -> tuple[torch.Tensor, ...]:
        """Return forward's arguments for some samples, in fresh memory."""
        return tuple(torch.tensor(part[start:stop]) for part in self.inputs)

    def spans(self, rows: int) -> list[tuple[int, int]]:
        """Return the blocks; none holds both samples that count and samples that do not."""
        edges = [(0, self.n_scored), (self.n_scored, len(self.target))]
        return [
            (at, min(at + rows, stop)) for start, stop in edges for at in range(start, stop, rows)
        ]


def target_values(target: np.ndarray, classify: bool) -> torch.Tensor:
    """Lay targets out as path evaluators lay out outputs: codes (n_values,) or (n_outputs, n)."""
    values = torch.tensor(target)
    return values.reshape(-1) if classify else values.reshape(len(values), -1).T


class PathLosses:
    """Gathers losses and errors of end points and inner nets, and logits where they are calibrated.

    End points are rows of their own, shared by all pairs; inner nets are (n_pairs, n_inner).
    """

    def __init__(
        self,
        samples: Samples,
        classify: bool,
        calibration: str | None,
        n_ends: int,
        n_pairs: int,
        n_inner: int,
    ):
        self.samples = samples
        self.classify = classify
        self.calibration = calibration
        self.tokens = int(np.prod(samples.target.shape[1:])) if classify else 1
        # loss and error of the ends (2, n_ends) and of the inner nets (2, n_pairs, n_inner)
        self.sums = {"ends": np.zeros((2, n_ends)), "inner": np.zeros((2, n_pairs, n_inner))}
        self.logits: dict[str, torch.Tensor] = {}

    def start_block(self, start: int, stop: int) -> None:
        """Turn to another block of samples."""
        self.counts = start < self.samples.n_scored
        self.target = target_values(self.samples.target[start:stop], self.classify)
        self.values = slice(start * self.tokens, stop * self.tokens)

    def add(self, nets: str, rows: slice | Sequence[int], outputs: torch.Tensor) -> None:
        """Add outputs (n_rows, [n_inner,] n_outputs, n_values) of "ends" or "inner" nets."""
        if self.counts:
            for sums, total in zip(
                self.sums[nets], block_sums(outputs, self.target, self.classify)
            ):
                sums[rows] += total.numpy()
        if self.calibration is not None:
            if nets not in self.logits:
                n_values = len(self.samples.target) * self.tokens
                size = (*self.sums[nets].shape[1:], outputs.shape[-2], n_values)
                self.logits[nets] = torch.zeros(size, dtype=outputs.dtype)
            self.logits[nets][rows, ..., self.values] = outputs

    def curves(self, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
        """Return loss, error, calibrated loss and inverse temperature: (4, n_pairs, n_alphas)."""
        n_values = self.samples.n_scored * self.tokens
        ends, inner = (
            np.concatenate([sums / n_values, np.full_like(sums, np.nan)])
            for sums in self.sums.values()
        )
        if self.calibration is not None:
            ends[2:] = self._calibrate(self.logits["ends"])
            moving = [k for k, (a, b) in enumerate(pairs) if a != b]
            if moving:
                whole = len(moving) == len(pairs)
                logits = self.logits["inner"] if whole else self.logits["inner"][moving]
                found = self._calibrate(logits.flatten(0, 1))
                inner[2:, moving] = found.reshape(2, len(moving), -1)
        a, b = np.array(pairs).T
        first, last = ends[:, a, None], ends[:, b, None]
        inner = np.where((a == b)[:, None], first, inner)  # a net and itself: one value throughout
        return np.concatenate([first, inner, last], axis=2)

    def _calibrate(self, logits: torch.Tensor) -> np.ndarray:
        """Return calibrated loss and inverse temperature (2, n_nets) of logits (n_nets, ...)."""
        target = target_values(self.samples.target, True)
        n = self.samples.n_scored * self.tokens
        scored, wanted = logits[..., :n], target[:n]
        if self.calibration == "crossfit":
            folds = fold_of_samples(self.samples.target[: self.samples.n_scored])
            spread = torch.from_numpy(folds).repeat_interleave(self.tokens)
            result = calibrate_crossfit(scored, wanted, spread)
        else:
            other = (logits[..., n:], target[n:]) if self.calibration == "given" else None
            result = calibrate(scored, wanted, other)
        return torch.stack(result).numpy()


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


def calibrate(
    logits: torch.Tensor,
    target: torch.Tensor,
    fit_on: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the calibrated loss and the inverse temperature of k nets, logits (k, classes, n).

    The temperature is fitted on the samples themselves, or on other logits and targets.
    """
    beta = fit_inverse_temperatures(*(fit_on or (logits, target)), held_out=fit_on is not None)
    parts = [
        scaled_cross_entropy(logits[i : i + 1], target, beta[i : i + 1]) for i in range(len(logits))
    ]
    return torch.cat(parts).mean(dim=1), beta


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
