"""Ridge regression towards given weights, from streamed sums."""

from __future__ import annotations

import torch

RIDGE = 1e-3  # of the mean squared input
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)  # tried by folds where rows are few
FEW_ROWS = 5  # per input
N_FOLDS = 5


class LeastSquares:
    """Fits outputs by inputs, group by group; sums in float64, one set per fold.

    Minimises ``|T - W X - b|^2 + ridge |W - W0|^2``, b free or absent.
    """

    def __init__(self, start: torch.Tensor, intercept: bool, by_folds: bool):
        groups, n_outputs, n_inputs = start.shape
        self.start = start.double()  # (groups, n_outputs, n_inputs)
        self.intercept = intercept
        n_folds = N_FOLDS if by_folds else 1
        kind = {"dtype": torch.float64}
        self.count = torch.zeros(n_folds, **kind)
        self.inputs = torch.zeros(n_folds, groups, n_inputs, **kind)
        self.outputs = torch.zeros(n_folds, groups, n_outputs, **kind)
        self.gram = torch.zeros(n_folds, groups, n_inputs, n_inputs, **kind)
        self.cross = torch.zeros(n_folds, groups, n_outputs, n_inputs, **kind)
        self.squares = torch.zeros(n_folds, groups, n_outputs, **kind)

    def add(self, inputs: torch.Tensor, outputs: torch.Tensor, block: int) -> None:
        """Take in rows (n_rows, groups, n_inputs) and (n_rows, groups, n_outputs)."""
        fold = block % len(self.count)
        x = inputs.double().movedim(0, -1)  # (groups, n_inputs, n_rows)
        t = outputs.double().movedim(0, -1)
        self.count[fold] += len(inputs)
        self.inputs[fold] += x.sum(dim=-1)
        self.outputs[fold] += t.sum(dim=-1)
        self.gram[fold] += x @ x.mT
        self.cross[fold] += t @ x.mT
        self.squares[fold] += t.square().sum(dim=-1)

    def solve(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights (groups, n_outputs, n_inputs) and intercepts (groups, n_outputs)."""
        everything = torch.ones(len(self.count), dtype=torch.float64)
        return self._solve(everything, self._ridge())

    def moments(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and unbiased variance of ``W X``, each (groups, n_outputs)."""
        count = self.count.sum()
        mean = self.inputs.sum(dim=0) / count
        centred = self.gram.sum(dim=0) - count * mean[:, :, None] * mean[:, None, :]
        variance = ((weight @ centred) * weight).sum(dim=-1) / max(float(count) - 1, 1.0)
        return (weight @ mean[:, :, None])[..., 0], variance.clamp_min(0)

    def _ridge(self) -> float:
        """Return the ridge, in units of the mean squared input; by folds where there are any."""
        present = [fold for fold in range(len(self.count)) if self.count[fold] > 0]
        if len(present) < 2:
            return RIDGE
        errors = []
        for ridge in RIDGES:
            error = 0.0
            for fold in present:
                others = torch.ones(len(self.count), dtype=torch.float64)
                others[fold] = 0.0
                error += self._error(fold, *self._solve(others, ridge))
            errors.append(error)
        return RIDGES[min(range(len(RIDGES)), key=errors.__getitem__)]

    def _solve(self, folds: torch.Tensor, ridge: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Solve on the folds with weight 1; where the matrix is singular, with a larger ridge."""
        count = (self.count * folds).sum()
        gram, cross = (torch.einsum("f,fgij->gij", folds, s) for s in (self.gram, self.cross))
        x, t = (torch.einsum("f,fgi->gi", folds, s) / count for s in (self.inputs, self.outputs))
        if self.intercept:
            gram = gram - count * x[:, :, None] * x[:, None, :]
            cross = cross - count * t[:, :, None] * x[:, None, :]
        weight = self.start.clone()
        scale = gram.diagonal(dim1=1, dim2=2).mean(dim=1)
        eye = torch.eye(gram.shape[-1], dtype=torch.float64)
        left = scale > 0  # a layer that sees nothing keeps its weights
        for _ in range(8):
            if not left.any():
                break
            factor, failed = torch.linalg.cholesky_ex(gram + (ridge * scale)[:, None, None] * eye)
            step = torch.cholesky_solve((cross - self.start @ gram).mT, factor).mT
            good = left & (failed == 0) & torch.isfinite(step).all(dim=(1, 2))
            weight[good] += step[good]
            left = left & ~good
            ridge *= 10.0
        shift = t - (weight @ x[:, :, None])[..., 0] if self.intercept else torch.zeros_like(t)
        return weight, shift

    def _error(self, fold: int, weight: torch.Tensor, shift: torch.Tensor) -> float:
        """Return the squared error of a solution on one fold."""
        fitted = (weight @ self.inputs[fold][:, :, None])[..., 0]
        return float(
            self.squares[fold].sum()
            - 2 * (weight * self.cross[fold]).sum()
            + ((weight @ self.gram[fold]) * weight).sum()
            - 2 * (shift * (self.outputs[fold] - fitted)).sum()
            + self.count[fold] * shift.square().sum()
        )
