"""Samples in blocks; losses, errors and calibrated losses of all nets on paths over them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from sklmc.models import (
    BLOCK_ROWS,
    IGNORED,
    Inputs,
    fit_inverse_temperatures,
    raw_bytes,
    scaled_cross_entropy,
)

N_FOLDS = 5  # of "crossfit"


@dataclasses.dataclass(frozen=True)
class Samples:
    """Samples to score on, and more of them where the inverse temperature is fitted on others.

    `target` holds those of the first and then those of the second. `weights` (n_scored,), all
    positive, are those of the samples that are scored; None means equal weights.
    """

    inputs: Inputs
    target: np.ndarray
    more: Inputs | None = None
    weights: np.ndarray | None = None

    @property
    def n_scored(self) -> int:
        return len(self.inputs)

    def passes(self, rows: int) -> Iterator[tuple[tuple, slice | torch.Tensor, int, int]]:
        """Yield forward's arguments in fresh memory, which outputs count, and whose they are.

        The last are the start and stop of samples that follow each other; batches that stay whole
        have more outputs than these where some samples have been left out. No block holds both
        samples that are scored and others.
        """
        done = 0
        for inputs in (self.inputs, self.more):
            for block in () if inputs is None else inputs.passes(rows):
                n_samples = (
                    block.samples.stop - block.samples.start
                    if isinstance(block.samples, slice)
                    else len(block.samples)
                )
                yield block.args, block.outputs, done, done + n_samples
                done += n_samples

    def side(self) -> tuple[Inputs, np.ndarray]:
        """Return what aligner and repair see: the samples that are not scored, if there are any."""
        if self.more is None:
            return self.inputs, self.target
        return self.more, self.target[self.n_scored :]

    def digest(self) -> str:
        """Return what tells these samples from others."""
        digest = hashlib.blake2b(digest_size=16)
        for args, outputs, start, stop in self.passes(BLOCK_ROWS):
            chosen = outputs.tolist() if isinstance(outputs, torch.Tensor) else None
            digest.update(repr(chosen).encode())
            for part in args:
                tensor = isinstance(part, torch.Tensor)
                digest.update(repr((start, stop, part.shape if tensor else part)).encode())
                digest.update(raw_bytes(part) if tensor else b"")
        digest.update(np.ascontiguousarray(self.target).data)
        if self.weights is not None:
            digest.update(self.weights.data)
        return digest.hexdigest()


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
        codes = samples.target.reshape(-1) if classify else np.zeros(len(samples.target))
        self.counts = torch.from_numpy(codes != IGNORED)
        # values that count before each one: tokens without a label are left out everywhere
        self.before = np.concatenate([[0], np.cumsum(self.counts.numpy())])
        self.n_scored = self.before[samples.n_scored * self.tokens]  # values
        self.weights = None  # of the values that are scored
        if samples.weights is not None:
            weights = torch.from_numpy(samples.weights).repeat_interleave(self.tokens)
            self.weights = weights[self.counts[: len(weights)]]
        # loss and error of the ends (2, n_ends) and of the inner nets (2, n_pairs, n_inner)
        self.sums = {"ends": np.zeros((2, n_ends)), "inner": np.zeros((2, n_pairs, n_inner))}
        self.logits: dict[str, torch.Tensor] = {}

    def start_block(self, chosen: slice | torch.Tensor, start: int, stop: int) -> None:
        """Turn to another block of samples; `chosen` are the outputs that are theirs."""
        self.chosen = chosen
        first, last = start * self.tokens, stop * self.tokens
        self.scored = start < self.samples.n_scored
        self.kept = self.counts[first:last]
        self.target = target_values(self.samples.target[start:stop], self.classify)
        if not self.kept.all():
            self.target = self.target[..., self.kept]
        self.values = slice(self.before[first], self.before[last])
        self.some = None if self.weights is None else self.weights[self.values]

    def add(self, nets: str, rows: slice | Sequence[int], outputs: torch.Tensor) -> None:
        """Add outputs (n_rows, [n_inner,] n_outputs, n_values) of "ends" or "inner" nets."""
        if isinstance(self.chosen, torch.Tensor):
            by_sample = outputs.unflatten(-1, (-1, self.tokens))
            outputs = by_sample[..., self.chosen, :].flatten(-2)
        if not self.kept.all():
            outputs = outputs[..., self.kept]
        if self.scored:
            for sums, total in zip(
                self.sums[nets], block_sums(outputs, self.target, self.classify, self.some)
            ):
                sums[rows] += total.numpy()
        if self.calibration is not None:
            if nets not in self.logits:
                size = (*self.sums[nets].shape[1:], outputs.shape[-2], self.before[-1])
                self.logits[nets] = torch.zeros(size, dtype=outputs.dtype)
            self.logits[nets][rows, ..., self.values] = outputs

    def curves(self, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
        """Return loss, error, calibrated loss and inverse temperature: (4, n_pairs, n_alphas)."""
        total = self.n_scored if self.weights is None else float(self.weights.sum())
        ends, inner = (
            np.concatenate([sums / total, np.full_like(sums, np.nan)])
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
        target = target_values(self.samples.target, True)[self.counts]
        n = self.n_scored
        scored, wanted = logits[..., :n], target[:n]
        if self.calibration == "crossfit":
            folds = fold_of_samples(self.samples.target[: self.samples.n_scored])
            spread = torch.from_numpy(folds).repeat_interleave(self.tokens)
            spread = spread[self.counts[: len(spread)]]
            result = calibrate_crossfit(scored, wanted, spread, self.weights)
        else:
            other = (logits[..., n:], target[n:]) if self.calibration == "given" else None
            result = calibrate(scored, wanted, other, self.weights)
        return torch.stack(result).numpy()


def block_sums(
    outputs: torch.Tensor,
    target: torch.Tensor,
    classify: bool,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return summed losses and errors (float64) of outputs (..., n_outputs, n_values).

    With weights (n_values,) each loss and error counts that much.
    """
    if not classify:
        total = weighted_sum((outputs.double() - target).square().mean(dim=-2), weights)
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
    return weighted_sum(loss, weights), weighted_sum(wrong, weights)


def weighted_sum(values: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Return the sum (float64) over the last axis, each value times its weight if it has one."""
    if weights is None:
        return values.sum(dim=-1, dtype=torch.float64)
    return (values.double() * weights).sum(dim=-1)


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
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the calibrated loss and the inverse temperature of k nets, logits (k, classes, n).

    The temperature is fitted on the samples themselves with their weights, or on other logits and
    targets, which have none.
    """
    if fit_on is None:
        beta = fit_inverse_temperatures(logits, target, weights=weights)
    else:
        beta = fit_inverse_temperatures(*fit_on, held_out=True)
    parts = [
        scaled_cross_entropy(logits[i : i + 1], target, beta[i : i + 1]) for i in range(len(logits))
    ]
    losses = torch.cat(parts)
    if weights is None:
        return losses.mean(dim=1), beta
    return weighted_sum(losses, weights) / weights.sum(), beta


def calibrate_crossfit(
    logits: torch.Tensor,
    target: torch.Tensor,
    folds: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score each fold with the inverse temperature of the others; beta is their geometric mean."""
    everything = fit_inverse_temperatures(logits, target, held_out=True, weights=weights)
    total = torch.zeros(len(logits), dtype=torch.float64)
    log_beta = torch.zeros_like(total)
    n_folds = int(folds.max()) + 1
    for fold in range(n_folds):
        held = folds == fold
        fitted, scored = (None if weights is None else weights[some] for some in (~held, held))
        beta = fit_inverse_temperatures(
            logits[:, :, ~held], target[~held], held_out=True, start=everything, weights=fitted
        )
        losses = scaled_cross_entropy(logits[:, :, held], target[held], beta)
        total += weighted_sum(losses, scored)
        log_beta += beta.log()
    whole = len(target) if weights is None else weights.sum()
    return total / whole, (log_beta / n_folds).exp()
