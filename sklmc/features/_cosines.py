"""Cosines and distances between features: pure functions on tensors, and running means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sklmc.models import Moments


def flat(features: torch.Tensor) -> torch.Tensor:
    """Return features (n, ...) as float64 (n, d)."""
    return features.double().flatten(1) if features.ndim > 1 else features.double()[:, None]


def dot(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return the inner product of each pair of rows (n,)."""
    return torch.linalg.vecdot(u, v)


def grams(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return all inner products of k nets' features (n, ...) of each sample, float64 (n, k, k).

    They are few numbers: only they come to the CPU.
    """
    n, width = len(features[0]), features[0][0].numel()
    where = features[0].device
    stacked = torch.empty(n, len(features), width, dtype=torch.float64, device=where)
    for place, one in enumerate(features):
        stacked[:, place] = one.reshape(n, width)
    return (stacked @ stacked.transpose(1, 2)).cpu()


def cosine(uv: torch.Tensor, uu: torch.Tensor, vv: torch.Tensor) -> torch.Tensor:
    """Return cosines (n,) from inner products; NaN where a vector is zero."""
    size = uu.clamp(min=0).sqrt() * vv.clamp(min=0).sqrt()
    return torch.where(size > 0, (uv / size).clamp(-1.0, 1.0), torch.nan)


def row_cosine(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return the cosine of each pair of rows of two feature matrices; NaN where one is zero."""
    return cosine(dot(u, v), dot(u, u), dot(v, v))


def relative_distance(difference: float, first: float, second: float) -> float:
    """Return ``|x - y|^2 / (|x| |y|)`` from three squared norms; NaN where one is zero."""
    size = np.sqrt(first) * np.sqrt(second)
    return float(difference / size) if size > 0 else float("nan")


class RunningMean:
    """Mean and standard deviation of values that come in blocks; NaN is counted, not averaged."""

    def __init__(self) -> None:
        self.n_undefined = 0
        self._moments = Moments()

    def add(self, values: torch.Tensor) -> None:
        """Take a block of values (n,)."""
        defined = values[~torch.isnan(values)]
        self.n_undefined += len(values) - len(defined)
        self._moments.add(defined[None])

    @property
    def mean(self) -> float:
        return float(self._moments.mean) if self._moments.count else float("nan")

    @property
    def std(self) -> float:
        return float(self._moments.variance().sqrt()) if self._moments.count else float("nan")
