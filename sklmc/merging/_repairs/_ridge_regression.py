"""Ridge regression towards given weights, the least squares of refit, from streamed sums."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sklmc.models import CrossMoments, Moments

RIDGE = 1e-3  # of the mean squared input
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)  # tried by folds where rows are few
FEW_ROWS = 5  # per input
N_FOLDS = 5


class RidgeRegression:
    """Fits outputs by inputs, group by group, from moments in float64, one set per fold.

    Minimises ``|T - W X - b|^2 + ridge |W - W0|^2``, b free or absent.
    """

    def __init__(self, start: torch.Tensor, intercept: bool, by_folds: bool):
        self.start = start.double()  # (groups, n_outputs, n_inputs)
        self.intercept = intercept
        self.folds = [_Sums() for _ in range(N_FOLDS if by_folds else 1)]

    def add(self, inputs: torch.Tensor, outputs: torch.Tensor, block: int) -> None:
        """Take in rows (n_rows, groups, n_inputs) and (n_rows, groups, n_outputs)."""
        self.folds[block % len(self.folds)].add(inputs.movedim(0, -1), outputs.movedim(0, -1))

    def solve(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights (groups, n_outputs, n_inputs) and intercepts (groups, n_outputs)."""
        return self._solve(self.folds, self._ridge())

    def moments(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and unbiased variance of ``W X``, each (groups, n_outputs)."""
        sums = _Sums.of(self.folds)
        squares = ((weight @ sums.gram()) * weight).sum(dim=-1)
        mean = (weight @ sums.inputs[:, :, None])[..., 0]
        return mean, (squares / max(sums.count - 1, 1)).clamp_min(0)

    def _ridge(self) -> float:
        """Return the ridge, in units of the mean squared input; by folds where there are any."""
        present = [fold for fold in self.folds if fold.count]
        if len(present) < 2:
            return RIDGE

        def error(ridge: float) -> float:
            others = [[other for other in present if other is not fold] for fold in present]
            fits = [self._solve(folds, ridge) for folds in others]
            return sum(fold.error(*fit) for fold, fit in zip(present, fits))

        return min(RIDGES, key=error)

    def _solve(self, folds: Sequence[_Sums], ridge: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Solve on some folds; where the matrix is singular, with a larger ridge."""
        sums = _Sums.of(folds)
        gram, cross = sums.gram(self.intercept), sums.cross(self.intercept)
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
        shift = sums.outputs - (weight @ sums.inputs[:, :, None])[..., 0]
        return weight, shift if self.intercept else torch.zeros_like(shift)


class _Sums:
    """Moments of rows, group by group: of the inputs with inputs and outputs, and of the outputs.

    With n values, p inputs and q outputs: gram (groups, p, p), cross (groups, q, p).
    """

    def __init__(self) -> None:
        self._joint, self._outputs = CrossMoments(), Moments()

    @classmethod
    def of(cls, folds: Sequence[_Sums]) -> _Sums:
        """Return the sums over some folds."""
        found = cls()
        for fold in folds:
            found._joint.merge(fold._joint)
            found._outputs.merge(fold._outputs)
        return found

    def add(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """Take in inputs (groups, p, n) and outputs (groups, q, n)."""
        x, t = x.double(), t.double()
        self._joint.add(x, torch.cat([x, t], dim=1))
        self._outputs.add(t, unit_axis=(0, 1))

    @property
    def count(self) -> int:
        """Number of rows."""
        return self._joint.count

    @property
    def inputs(self) -> torch.Tensor:
        """Mean inputs (groups, p)."""
        return self._joint.x_mean

    @property
    def outputs(self) -> torch.Tensor:
        """Mean outputs (groups, q)."""
        return self._outputs.mean

    def gram(self, centred: bool = True) -> torch.Tensor:
        """Return the sums of x x', of deviations from the mean or as they are."""
        return self._products(centred)[..., : self.inputs.shape[-1]]

    def cross(self, centred: bool = True) -> torch.Tensor:
        """Return the sums of t x', likewise."""
        return self._products(centred)[..., self.inputs.shape[-1] :].mT

    def _products(self, centred: bool) -> torch.Tensor:
        return self._joint.products if centred else self._joint.uncentred() * self.count

    def error(self, weight: torch.Tensor, shift: torch.Tensor) -> float:
        """Return the summed ``|t - W x - b|^2``."""
        residual = self.outputs - (weight @ self.inputs[:, :, None])[..., 0] - shift
        return float(
            self._outputs.squares.sum()
            - 2 * (weight * self.cross()).sum()
            + ((weight @ self.gram()) * weight).sum()
            + self.count * residual.square().sum()
        )
