"""What the fit of a layer needs to know of samples: sums over them, never the samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from sklmc.models import CrossMoments, Moments


class LayerMoments:
    """Sums over rows of what goes into a layer, h, and what should come out, t: group by group.

    With n rows, p inputs and q outputs: a count, the means of h and t, the sums of h h'
    (groups, p, p) and t h' (groups, q, p). Those of t squared say how large an error is; they
    stay where the rows are.
    """

    def __init__(self) -> None:
        self._joint, self._outputs = CrossMoments(), Moments()

    @classmethod
    def total(cls, parts: Iterable[LayerMoments]) -> LayerMoments:
        """Return the sums over the rows of all parts."""
        found = cls()
        for part in parts:
            found._joint.merge(part._joint)
            found._outputs.merge(part._outputs)
        return found

    @classmethod
    def mixture(cls, parts: Sequence[LayerMoments], weights: Sequence[float]) -> LayerMoments:
        """Return the sums over all parts, their rows weighted so that each part has its weight."""
        if len(parts) == 1:
            return parts[0]
        n_rows = sum(part.count for part in parts)
        shares = [weight / sum(weights) for weight in weights]
        return cls.total(
            part._scaled(share * n_rows / part.count)
            for part, share in zip(parts, shares, strict=True)
            if part.count
        )

    def add(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """Take in rows (n_rows, groups, n_inputs) and (n_rows, groups, n_outputs)."""
        x, t = x.movedim(0, -1).double(), t.movedim(0, -1).double()
        self._joint.add(x, torch.cat([x, t], dim=1))
        self._outputs.add(t, unit_axis=(0, 1))

    @property
    def count(self) -> float:
        """Number of rows."""
        return self._joint.count

    @property
    def inputs(self) -> torch.Tensor:
        """Mean inputs (groups, p)."""
        return self._joint.x_mean

    @property
    def outputs(self) -> torch.Tensor:
        """Mean outputs (groups, q)."""
        return self._joint.y_mean[..., self.inputs.shape[-1] :]

    def gram(self, centred: bool = True) -> torch.Tensor:
        """Return the sums of h h', of deviations from the mean or as they are."""
        return self._products(centred)[..., : self.inputs.shape[-1]]

    def cross(self, centred: bool = True) -> torch.Tensor:
        """Return the sums of t h', likewise."""
        return self._products(centred)[..., self.inputs.shape[-1] :].mT

    def error(self, weight: torch.Tensor, shift: torch.Tensor) -> float:
        """Return the summed ``|t - W h - b|^2``."""
        residual = self.outputs - (weight @ self.inputs[:, :, None])[..., 0] - shift
        return float(
            self._outputs.squares.sum()
            - 2 * (weight * self.cross()).sum()
            + ((weight @ self.gram()) * weight).sum()
            + self.count * residual.square().sum()
        )

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Return count, means and products as tensors: of the symmetric ones, a triangle."""
        n_inputs = self.inputs.shape[-1]
        rows, columns = torch.triu_indices(n_inputs, n_inputs)
        return {
            "count": torch.tensor(float(self.count), dtype=torch.float64),
            "input_means": self.inputs,
            "output_means": self.outputs,
            "input_products": self.gram()[:, rows, columns],
            "output_products": self.cross(),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> LayerMoments:
        """Return what `to_tensors` was made of."""
        found = cls()
        joint, inputs = found._joint, tensors["input_means"]
        n_groups, n_inputs = inputs.shape
        rows, columns = torch.triu_indices(n_inputs, n_inputs)
        gram = inputs.new_zeros(n_groups, n_inputs, n_inputs)
        gram[:, rows, columns] = tensors["input_products"]
        gram[:, columns, rows] = tensors["input_products"]
        joint.count = float(tensors["count"])
        joint.x_mean = inputs
        joint.y_mean = torch.cat([inputs, tensors["output_means"]], dim=-1)
        joint.products = torch.cat([gram, tensors["output_products"].mT], dim=-1)
        return found

    def _scaled(self, factor: float) -> LayerMoments:
        """Return the sums with every row counted so many times."""
        found = LayerMoments()
        found._joint, found._outputs = self._joint.scaled(factor), self._outputs.scaled(factor)
        return found

    def _products(self, centred: bool) -> torch.Tensor:
        return self._joint.products if centred else self._joint.uncentred() * self.count
