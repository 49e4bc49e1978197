"""Second moments between the activations of A and B, in the coordinates of a symmetry."""

from __future__ import annotations

import string

import torch


class MomentPair:
    """How A's units go with B's on one axis of activations; stands beside `BlockPair`.

    `b` has the axis' factors twice, A's first: ``b[i, j]`` is the similarity of A's unit i and
    B's unit j under the permutations applied so far. The objective is its trace.
    """

    correctable = False  # its Gram matrices cost no products

    def __init__(self, moment: torch.Tensor, factors, groups):
        self.factors = tuple(factors)
        self.b = moment  # (*sizes, *sizes)
        self.free = {name for name in self.factors if name in groups}
        self._letters = string.ascii_lowercase[: len(self.factors)]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the similarities."""
        return self.b.dtype

    def dims(self, group: str) -> list[int]:
        """Dims on which a group acts."""
        return [dim for dim, name in enumerate(self.factors) if name == group]

    def permute(self, group: str, perm: torch.Tensor, within: tuple[str, ...]) -> None:
        """Move B's side: new index i of the group is old index ``perm[..., i]``."""
        n = len(self.factors)
        (own,) = self.dims(group)
        dims = [*(n + self.factors.index(name) for name in within), n + own]
        shape = [1] * self.b.ndim
        for position, size in zip(dims, perm.shape):
            shape[position] = size
        index = perm.permute(sorted(range(len(dims)), key=dims.__getitem__)).reshape(shape)
        self.b = torch.take_along_dim(self.b, index, dims[-1])

    def gram(self, group: str, within: tuple[str, ...]) -> torch.Tensor:
        """Return the similarity of the group's units, (*outer sizes, size, size)."""
        (own,) = self.dims(group)
        lead = "".join(self._letters[self.factors.index(name)] for name in within)
        return self._contract({own: "Y"}, f"{lead}{self._letters[own]}Y")

    def nested_gram(self, group: str, child: str, lead: tuple[str, ...]) -> torch.Tensor:
        """Return the similarity of the child's units for each pair of the group's indices."""
        (own,), (inner,) = self.dims(group), self.dims(child)
        outer = "".join(self._letters[self.factors.index(name)] for name in lead)
        i, u = self._letters[own], self._letters[inner]
        return self._contract({own: "Y", inner: "Z"}, f"{outer}{i}Y{u}Z")

    def inner_product(self) -> float:
        """Return the trace: the similarity of the units that stand opposite each other."""
        return float(self._contract({}, ""))

    def scale(self) -> float:
        """Return the size of the objective, for tolerances."""
        return float(self.b.norm())

    def _contract(self, free: dict[int, str], output: str) -> torch.Tensor:
        """Sum over equal indices of A and B, except on the dims in `free`.

        With factors (heads a, units b): the trace is ``abab->``, the gain matrix of heads
        ``abYb->aY``, that of units within each head ``abaY->abY``, and that of units for each pair
        of heads ``abYZ->aYbZ``. Capitals index B's side.
        """
        other = "".join(free.get(dim, letter) for dim, letter in enumerate(self._letters))
        return torch.einsum(f"{self._letters}{other}->{output}", self.b)
