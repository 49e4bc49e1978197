"""Ridge regression towards given weights, the least squares of refit, from streamed sums."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sklmc.merging._repairs._layer_moments import LayerMoments

RIDGE = 1e-3  # of the mean squared input
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)  # tried by folds where rows are few
FEW_ROWS = 5  # per input
N_FOLDS = 5
WORTH = 0.5  # rows per input that the ridge weighs as much as, where nothing can choose it


def ridge_for(moments: LayerMoments) -> float:
    """Return the ridge for rows that cannot be cut into folds: the fewer they are, the larger."""
    return max(RIDGE, WORTH * moments.inputs.shape[-1] / max(moments.count, 1.0))


class RidgeRegression:
    """Fits outputs by inputs, group by group, from moments in float64, one set per fold.

    Minimises ``|T - W X - b|^2 + ridge |W - W0|^2``, b free or absent. Where there are several
    folds, they choose the ridge; a single one has the one given.
    """

    def __init__(
        self,
        start: torch.Tensor,
        intercept: bool,
        folds: Sequence[LayerMoments],
        ridge: float = RIDGE,
    ):
        self.ridge = ridge
        self.start = start.double()  # (groups, n_outputs, n_inputs)
        self.intercept = intercept
        self.folds = folds

    def solve(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights (groups, n_outputs, n_inputs) and intercepts (groups, n_outputs)."""
        return self._solve(self.folds, self._ridge())

    def moments(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and unbiased variance of ``W X``, each (groups, n_outputs)."""
        sums = LayerMoments.total(self.folds)
        squares = ((weight @ sums.gram()) * weight).sum(dim=-1)
        mean = (weight @ sums.inputs[:, :, None])[..., 0]
        return mean, (squares / max(sums.count - 1, 1)).clamp_min(0)

    def _ridge(self) -> float:
        """Return the ridge, in units of the mean squared input; by folds where there are any."""
        present = [fold for fold in self.folds if fold.count]
        if len(present) < 2:
            return self.ridge

        def error(ridge: float) -> float:
            others = [[other for other in present if other is not fold] for fold in present]
            fits = [self._solve(folds, ridge) for folds in others]
            return sum(fold.error(*fit) for fold, fit in zip(present, fits))

        return min(RIDGES, key=error)

    def _solve(
        self, folds: Sequence[LayerMoments], ridge: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Solve on some folds; where the matrix is singular, with a larger ridge."""
        sums = LayerMoments.total(folds)
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
