"""Means, variances and cross moments of values that come in blocks: never all at once.

Sums are kept as deviations from running means and joined pairwise (Chan, Golub, LeVeque, 1979):
no digits are lost where values are large beside their spread, and two parts that were gathered
apart, in other blocks or on other machines, can be merged. Everything kept is float64.
"""

from __future__ import annotations

import math

import torch


class Moments:
    """Mean and variance of each unit.

    `squares` are the summed squared deviations from `mean`.
    """

    def __init__(self) -> None:
        self.count: float = 0
        self.mean: torch.Tensor = torch.zeros((), dtype=torch.float64)
        self.squares: torch.Tensor = torch.zeros((), dtype=torch.float64)

    def add(self, values: torch.Tensor, unit_axis: int | tuple[int, ...] = 0) -> None:
        """Take in a block; every place along the other axes is a value of each unit."""
        axes = (unit_axis,) if isinstance(unit_axis, int) else unit_axis
        axes = tuple(axis % values.ndim for axis in axes)
        others = [dim for dim in range(values.ndim) if dim not in axes]
        count = math.prod(values.shape[dim] for dim in others)
        if not count:
            return
        if values.dtype not in (torch.float32, torch.float64):
            values = values.float()
        variance, mean = torch.var_mean(values, dim=others, correction=0)  # by Welford's sums
        self._join(count, mean.double(), variance.double() * count)

    def merge(self, other: Moments) -> None:
        """Take in all that another one has seen."""
        if other.count:
            self._join(other.count, other.mean, other.squares)

    def scaled(self, factor: float) -> Moments:
        """Return the moments with every value counted so many times."""
        found = Moments()
        found.count, found.mean = self.count * factor, self.mean
        found.squares = self.squares * factor
        return found

    def variance(self, correction: int = 0) -> torch.Tensor:
        """Return the variance per unit: 0 for the plain one, 1 for the unbiased one."""
        return self.squares / max(self.count - correction, 1)

    def _join(self, count: float, mean: torch.Tensor, squares: torch.Tensor) -> None:
        total = self.count + count
        gap = mean - self.mean
        self.squares = self.squares + squares + gap.square() * (self.count * count / total)
        self.mean = self.mean + gap * (count / total)
        self.count = total


class CrossMoments:
    """How two sets of units go together: x (..., p, n) and y (..., q, n), n values at a time.

    `products` (..., p, q) are the summed products of their deviations from `x_mean` (..., p) and
    `y_mean` (..., q).
    """

    def __init__(self) -> None:
        self.count: float = 0
        self.x_mean = self.y_mean = torch.zeros((), dtype=torch.float64)
        self.products = torch.zeros((), dtype=torch.float64)

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Take in a block of values of both."""
        if not x.shape[-1]:
            return
        x, y = x.double(), y.double()
        x_mean, y_mean = x.mean(dim=-1), y.mean(dim=-1)
        products = (x - x_mean[..., None]) @ (y - y_mean[..., None]).mT
        self._join(x.shape[-1], x_mean, y_mean, products)

    def merge(self, other: CrossMoments) -> None:
        """Take in all that another one has seen."""
        if other.count:
            self._join(other.count, other.x_mean, other.y_mean, other.products)

    def scaled(self, factor: float) -> CrossMoments:
        """Return the moments with every value counted so many times."""
        found = CrossMoments()
        found.count, found.x_mean, found.y_mean = self.count * factor, self.x_mean, self.y_mean
        found.products = self.products * factor
        return found

    def covariance(self) -> torch.Tensor:
        """Return the plain covariances (..., p, q)."""
        return self.products / max(self.count, 1)

    def uncentred(self) -> torch.Tensor:
        """Return the means of the products x y (..., p, q)."""
        return self.covariance() + self.x_mean[..., :, None] * self.y_mean[..., None, :]

    def _join(self, count: float, x_mean, y_mean, products) -> None:
        total = self.count + count
        x_gap, y_gap = x_mean - self.x_mean, y_mean - self.y_mean
        share = self.count * count / total
        self.products = self.products + products
        if share:  # the first block has no means before it
            self.products = self.products + x_gap[..., :, None] * y_gap[..., None, :] * share
        self.x_mean = self.x_mean + x_gap * (count / total)
        self.y_mean = self.y_mean + y_gap * (count / total)
        self.count = total


def correlation(cross: CrossMoments, x: Moments, y: Moments) -> torch.Tensor:
    """Return Pearson correlations (p, q); NaN where a unit is constant."""
    size = x.squares.sqrt()[:, None] * y.squares.sqrt()
    return torch.where(size > 0, (cross.products / size).clamp(-1.0, 1.0), torch.nan)
