"""What a merge is fitted to and judged by: inputs, maybe labels, and maybe whose own they are."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from sklmc.models import Inputs

JUDGED = 5  # every fifth sample is kept from a fit to judge by


@dataclasses.dataclass(frozen=True)
class SampleSet:
    """Samples of all end points, or of each its own."""

    inputs: Inputs
    labels: torch.Tensor | None = None
    part: torch.Tensor | None = None  # (n_samples,) the end point whose own each is; None: all's

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, rows: torch.Tensor) -> SampleSet:
        labels = None if self.labels is None else self.labels[rows]
        return SampleSet(self.inputs[rows], labels, None if self.part is None else self.part[rows])

    def own(self, end: int) -> SampleSet:
        """Return the samples that one end point alone answers for; all, where they are all's."""
        if self.part is None:
            return self
        one = self[torch.nonzero(self.part == end)[:, 0]]
        return SampleSet(one.inputs, one.labels)

    def weighted(self, weights: np.ndarray) -> SampleSet:
        """Return the samples of those end points that have weight."""
        if self.part is None or bool((weights > 0).all()):
            return self
        return self[torch.nonzero(torch.from_numpy(weights > 0)[self.part])[:, 0]]

    def spread(self, most: int) -> SampleSet:
        """Return at most so many samples, of every end point's own, at even distances."""
        if self.part is None:
            return self if len(self) <= most else self[self.inputs.spread(most)]
        counts = torch.bincount(self.part)
        if int(counts.max()) <= most:
            return self
        place, count = self._places(), counts[self.part]
        # sample j of n is kept where it is the first beyond a multiple of n / most
        kept = (place * most) // count != ((place - 1) * most).div(count, rounding_mode="floor")
        return self[torch.nonzero((count <= most) | kept)[:, 0]]

    def split(self) -> tuple[SampleSet, SampleSet]:
        """Return what to fit on, and what to judge by: every fifth, of each end point's own."""
        judged = self._places() % JUDGED == JUDGED - 1
        rows = torch.arange(len(self))
        return self[rows[~judged]], self[rows[judged]]

    def _places(self) -> torch.Tensor:
        """Number the samples, those of every end point by themselves."""
        if self.part is None:
            return torch.arange(len(self))
        order = torch.argsort(self.part, stable=True)
        counts = torch.bincount(self.part)
        starts = torch.cumsum(counts, 0) - counts
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order)) - starts[self.part[order]]
        return places
