"""Samples on their way through a net: in memory, read when they are needed, or whole batches."""

from __future__ import annotations

import abc
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

BLOCK_ROWS = 1024  # default number of samples in a forward pass
Args = tuple  # forward's arguments, in its order


class Block(NamedTuple):
    """One forward pass: its arguments, and which of its outputs belong to which samples."""

    args: Args
    outputs: slice | torch.Tensor  # the outputs that count
    samples: slice | torch.Tensor  # the samples, numbered in all, that they belong to


class Inputs(abc.ABC):
    """The samples that flow through a net, whatever X was.

    A sample is what has one output. Rooms ask how many there are, choose some by their indices,
    and send them through nets block by block.
    """

    __iter__ = None  # a row is no item: an array made of Inputs would be a mistake

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abc.abstractmethod
    def __getitem__(self, rows) -> Inputs:
        """Return some samples, by a slice or by their indices."""

    @abc.abstractmethod
    def passes(self, size: int | None = None) -> Iterator[Block]:
        """Yield forward passes of `size` samples each, that cover all samples."""

    def in_one_pass(self, size: int | None = None) -> bool:
        """Say whether one pass of `size` samples holds all of them."""
        return len(self) <= (size or BLOCK_ROWS)

    def blocks(self, size: int | None = None) -> Iterator[Args]:
        """Yield forward's arguments alone, where it does not matter whose outputs come out."""
        return (block.args for block in self.passes(size))

    def first(self, n: int) -> Args:
        """Return forward's arguments for the first samples."""
        return next(iter(self[:n].blocks(n)))

    def whole(self) -> Args:
        """Return forward's arguments for all samples in one pass, as far as one pass can."""
        return self.first(len(self))

    def spread(self, most: int) -> torch.Tensor:
        """Return rows at even distances: all of them, or `most`."""
        n_rows = min(len(self), most)
        return torch.linspace(0, len(self) - 1, n_rows, dtype=torch.float64).round().long()

    def targets(self) -> np.ndarray | None:
        """Return the labels that came with X as an array, or None."""
        return None

    def collect(self, run: Callable[[Args], torch.Tensor], size: int | None = None):
        """Return ``run(args)`` of all samples, (n_samples, ...), in their order."""
        blocks, found = [], []
        for block in self.passes(size):
            found.append(run(block.args)[block.outputs])
            blocks.append(block.samples)
        joined = torch.cat(found)
        if all(isinstance(rows, slice) for rows in blocks):
            return joined
        ordered = torch.empty_like(joined)
        ordered[torch.cat([_indices(rows) for rows in blocks])] = joined
        return ordered


class Arrays(Inputs):
    """Samples in memory: forward's arguments, one row of each for a sample.

    An argument of another length than the first that is longer than one (a mask that all samples
    share, a number, None) goes with every block as it is.
    """

    def __init__(self, *args):
        self.args = args
        lengths = [len(part) for part in args if isinstance(part, torch.Tensor) and part.ndim]
        self._n_samples = next((n for n in lengths if n > 1), max(lengths, default=0))

    def __getstate__(self):
        """Travel as numpy arrays: joblib puts large ones into memory that workers share."""
        args = [
            part.numpy() if isinstance(part, torch.Tensor) and _is_plain(part) else part
            for part in self.args
        ]
        return {**vars(self), "args": args}

    def __setstate__(self, state):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # shared memory is read only, and read
            args = (torch.from_numpy(p) if isinstance(p, np.ndarray) else p for p in state["args"])
            vars(self).update(state, args=tuple(args))

    def __len__(self) -> int:
        return self._n_samples

    def __getitem__(self, rows) -> Arrays:
        return Arrays(*(part[rows] if self._has_rows(part) else part for part in self.args))

    def passes(self, size: int | None = None) -> Iterator[Block]:
        size = size or BLOCK_ROWS
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield Block(_fresh(self[rows].args), slice(None), rows)

    def joins(self, args: Args) -> bool:
        """Say whether a batch goes on with these samples: the same in all but its rows."""
        other = Arrays(*args)
        return len(args) == len(self.args) and all(
            self._has_rows(a) and other._has_rows(b) and a.shape[1:] == b.shape[1:]
            for a, b in zip(self.args, args)
        )

    def join(self, batches: Sequence[Args]) -> Arrays:
        """Return these samples and those of other batches."""
        return Arrays(*map(torch.cat, zip(self.args, *batches)))

    def _has_rows(self, part) -> bool:
        return isinstance(part, torch.Tensor) and part.ndim > 0 and len(part) == len(self)


class Items(Inputs):
    """Samples that are read when they are needed: never more than a block of them in memory.

    `fetch` returns forward's arguments for some indices, `fetch_targets` (where X has labels in
    it) their labels.
    """

    def __init__(
        self,
        n_items: int,
        fetch: Callable[[list[int]], Args],
        fetch_targets: Callable[[list[int]], np.ndarray] | None = None,
        rows: torch.Tensor | None = None,
    ):
        self._n_items = n_items
        self._fetch = fetch
        self._fetch_targets = fetch_targets
        self._rows = torch.arange(n_items) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows) -> Items:
        return Items(self._n_items, self._fetch, self._fetch_targets, self._rows[rows])

    def passes(self, size: int | None = None) -> Iterator[Block]:
        size = size or BLOCK_ROWS
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield Block(self._fetch(self._rows[rows].tolist()), slice(None), rows)

    def targets(self) -> np.ndarray | None:
        if self._fetch_targets is None:
            return None
        parts = self._rows.split(BLOCK_ROWS)
        return np.concatenate([self._fetch_targets(part.tolist()) for part in parts])


class Batches(Inputs):
    """Batches that must stay whole, as graphs whose edges point across them.

    Whichever samples are chosen, the batches that hold them run as they are, and only the chosen
    outputs count. `read` returns all batches anew; `count` says how many outputs one has.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[Args]],
        count: Callable[[Args], int],
        read_targets: Callable[[], Iterable[np.ndarray]] | None = None,
        chosen: torch.Tensor | None = None,
        sizes: list[int] | None = None,
    ):
        self._read = read
        self._count = count
        self._read_targets = read_targets
        self._chosen = chosen
        self._known_sizes = sizes

    def __len__(self) -> int:
        return sum(self._sizes()) if self._chosen is None else len(self._chosen)

    def __getitem__(self, rows) -> Batches:
        chosen = torch.arange(len(self)) if self._chosen is None else self._chosen
        return Batches(
            self._read, self._count, self._read_targets, chosen[rows], list(self._sizes())
        )

    def passes(self, size: int | None = None) -> Iterator[Block]:
        starts = itertools.accumulate(self._sizes(), initial=0)
        for args, (start, stop) in zip(self._anew(), itertools.pairwise(starts)):
            if self._chosen is None:
                yield Block(args, slice(None), slice(start, stop))
                continue
            samples = ((start <= self._chosen) & (self._chosen < stop)).nonzero()[:, 0]
            if len(samples):
                yield Block(args, self._chosen[samples] - start, samples)

    def blocks(self, size: int | None = None) -> Iterator[Args]:
        if self._chosen is None:  # nobody asks how many outputs there are
            return self._anew()
        return super().blocks(size)

    def in_one_pass(self, size: int | None = None) -> bool:
        return len(self._sizes()) == 1

    def first(self, n: int) -> Args:
        return next(iter(self.blocks()))

    def targets(self) -> np.ndarray | None:
        if self._read_targets is None:
            return None
        joined = np.concatenate(list(self._read_targets()))
        return joined if self._chosen is None else joined[self._chosen.numpy()]

    def _sizes(self) -> list[int]:
        """Return the number of outputs of each batch; each is run once to see it."""
        if self._known_sizes is None:
            self._known_sizes = [self._count(args) for args in self._anew()]
        return self._known_sizes

    def _anew(self) -> Iterator[Args]:
        """Yield all batches as they were given."""
        return map(_fresh, self._read())


def _is_plain(tensor: torch.Tensor) -> bool:
    """Say whether numpy knows the numbers of a tensor."""
    return tensor.dtype is not torch.bfloat16 and not tensor.requires_grad


def _fresh(args: Args) -> Args:
    """Return arguments in memory of their own: a net may write into what it gets."""
    return tuple(part.clone() if isinstance(part, torch.Tensor) else part for part in args)


def _indices(rows: slice | torch.Tensor) -> torch.Tensor:
    """Return the samples of a block one by one."""
    return torch.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
