"""Where in a net the units of a permutation group can be watched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CHANNEL_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)


@dataclass(frozen=True)
class WatchedUnits:
    """Units on one axis of what goes into ("input") or comes out of ("output") a module."""

    layer: str
    side: str
    dim: int
    positions: np.ndarray  # where each combination of the factors lies on that axis
    factors: tuple[str | None, ...]

    def units(self, values: torch.Tensor) -> torch.Tensor:
        """Return activations as (rows, units): samples, positions and fixed factors are rows."""
        values = values.movedim(self.dim, -1)
        index = torch.from_numpy(self.positions.reshape(-1)).to(values.device)
        values = values.reshape(-1, values.shape[-1]).index_select(1, index)
        values = values.reshape(-1, *self.positions.shape)
        kept = [d for d, name in enumerate(self.factors) if name is not None]
        rest = [d for d in range(len(self.factors)) if d not in kept]
        order = [0, *(d + 1 for d in rest), *(d + 1 for d in kept)]
        width = int(np.prod([self.positions.shape[d] for d in kept]))
        return values.permute(order).reshape(-1, width)

    @property
    def names(self) -> tuple[str, ...]:
        """The factors that move, or that a movement depends on."""
        return tuple(name for name in self.factors if name is not None)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of `names`."""
        return tuple(
            size for size, name in zip(self.positions.shape, self.factors) if name is not None
        )


def find_watched_units(module: nn.Module, symmetry) -> list[WatchedUnits]:
    """Return the places where units can be watched, for as many groups as there are any.

    A group is watched wherever it goes into weights (behind norm and nonlinearity); where no module
    shows that, at the output of the layer that makes it.
    """
    groups = {group.name for group in symmetry.groups}
    found: dict[str, list[WatchedUnits]] = {"input": [], "output": []}
    for path, part in module.named_modules():
        name = f"{path}.weight" if path else "weight"
        if name not in symmetry.blocks:
            continue
        for side, tensor_axis, dim in _watched_axes(part):
            for block in symmetry.blocks[name]:
                axis = block.axes[tensor_axis]
                names = [factor for factor in axis.factors if factor is not None]
                # a group whose outer indices lie elsewhere cannot be told apart on this axis
                whole = all(
                    set(symmetry.group(factor).within) <= set(names)
                    for factor in names
                    if factor in groups
                )
                if groups.intersection(names) and whole and len(set(names)) == len(names):
                    found[side].append(WatchedUnits(path, side, dim, axis.positions, axis.factors))
    places = found["input"]
    seen = {name for place in places for name in place.names}
    for place in found["output"]:
        if not seen.issuperset(groups.intersection(place.names)):
            places.append(place)
    return places


def _watched_axes(part: nn.Module) -> list[tuple[str, int, int]]:
    """Return (side, axis of the weight, axis of the activations) for a module's weight."""
    if isinstance(part, nn.Linear):
        return [("input", 1, -1), ("output", 0, -1)]
    if isinstance(part, _CONVS):
        whole = [("input", 1, 1)] if part.groups == 1 else []
        return [*whole, ("output", 0, 1)]
    if isinstance(part, nn.modules.conv._ConvTransposeNd) and part.groups == 1:
        return [("input", 0, 1), ("output", 1, 1)]
    if isinstance(part, _CHANNEL_NORMS):
        return [("output", 0, 1)]
    if isinstance(part, nn.LayerNorm) and len(part.normalized_shape) == 1:
        return [("output", 0, -1)]
    if isinstance(part, nn.Embedding):
        return [("output", 1, -1)]
    return []
