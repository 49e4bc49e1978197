"""Coordinate ascent over the permutations of a symmetry: one assignment problem at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from sklmc.alignment._tensor_pairs import TensorPair, permute_dim

# Shares of sum |a| |b|. A gain read off float32 Gram matrices is trusted above the first; below
# it the objective itself decides, and must rise by more than the second.
TRUSTED_GAIN = {torch.float32: 1e-5, torch.float64: 1e-11}
SMALLEST_GAIN = 1e-13
ROOM = 2**28  # bytes of Gram matrices kept at most; half of what B holds where that is more
FEW = 0.5  # up to this share of moved units a Gram matrix is corrected, not computed again
ALONE = -1  # in place of a block's index: the sum over blocks that one group alone moves


@dataclass
class DescentResult:
    """Index arrays by group and the objective: before the first sweep, then after each gain."""

    perms: dict[str, np.ndarray]
    objective_path: list[float]

    @property
    def objective(self) -> float:
        return self.objective_path[-1]


class CoordinateDescent:
    """Maximise ``sum <a, g b>`` over g, one group of permutations after the other.

    With everything else held fixed the objective is linear in the permutation of one group, so
    that a linear assignment on the sum of its blocks' Gram matrices is the exact maximiser. In its
    plain form, for states `a` and `b` and the dims ``axes[group]`` of tensors that a group of `n`
    units moves, weight matching (Git Re-Basin, algorithm 1) is::

        moved = True
        while moved:
            moved = False
            for group, n in sizes.items():
                gram = np.zeros((n, n))
                for name, dim in axes[group]:  # rows: units; columns: all other dims
                    left, right = (np.moveaxis(t[name], dim, 0).reshape(n, -1) for t in (a, b))
                    gram += left @ right.T
                perm = linear_sum_assignment(gram, maximize=True)[1]
                if gram[np.arange(n), perm].sum() > np.trace(gram) + rounding:
                    for name, dim in axes[group]:
                        b[name] = b[name].take(perm, axis=dim)
                    moved = True

    What follows does the same in less time and for more nets. Gram matrices are kept, as many as
    there is room for; when a permutation moves few entries of another dim of their block, only the
    products over those are added. Where a group carries inner groups (heads), it is solved together
    with them; where it acts on two dims of a tensor, the assignment is only proposed. Proposals are
    accepted when the objective rises.
    """

    def __init__(self, pairs: Sequence[TensorPair], groups: Sequence):
        self.pairs = list(pairs)
        moved = set().union(*(pair.free for pair in self.pairs)) if self.pairs else set()
        self.groups = [group for group in groups if group.name in moved]
        self.within = {group.name: tuple(group.within) for group in groups}
        self.perms: dict[str, np.ndarray] = {}
        self._blocks = {
            group.name: [i for i, pair in enumerate(self.pairs) if group.name in pair.free]
            for group in self.groups
        }
        # blocks that one group, on one dim, is all that moves
        self._alone = {
            name: [
                i for i in of if self.pairs[i].free == {name} and len(self.pairs[i].dims(name)) == 1
            ]
            for name, of in self._blocks.items()
        }
        self._children = {
            group.name: [g.name for g in self.groups if group.name in g.within]
            for group in self.groups
        }
        self._grams: dict[tuple[str, int], np.ndarray] = {}
        self._room = max(ROOM, sum(pair.b.nbytes for pair in self.pairs) // 2)
        self._stale = {group.name for group in self.groups}
        dtype = self.pairs[0].dtype if self.pairs else torch.float64
        scale = sum(pair.scale() for pair in self.pairs)
        self.trusted, self.tol = TRUSTED_GAIN[dtype] * scale, SMALLEST_GAIN * scale

    def objective(self) -> float:
        """Return the sum of inner products, each tensor counted once."""
        return sum(pair.inner_product() for pair in self.pairs)

    def run(
        self,
        start: dict[str, np.ndarray],
        max_iter: int,
        *,
        one_sided: bool = True,
        rng: np.random.RandomState | None = None,
        progress: Callable[[float], object] = lambda value: None,
    ) -> DescentResult:
        """Sweep from `start` until a sweep gains nothing; `rng` shuffles the order of groups."""
        self.perms = {name: perm.copy() for name, perm in start.items()}
        for group in self.groups:
            perm = self.perms[group.name]
            if (perm != np.arange(group.size)).any():
                for index in self._blocks[group.name]:
                    self._permute_block(index, group.name, perm)
        path = [self.objective()]

        def record() -> bool:
            value = self.objective()
            gained = value > path[-1] + self.tol
            if gained:
                path.append(value)
                progress(value)
            return gained

        sweeps = 0
        if one_sided and max_iter:
            before = self._snapshot()
            self._one_sided_pass()
            sweeps += 1
            if not record():
                self._restore(before)
            del before  # a copy of B, where B was moved before the pass
        while sweeps < max_iter and self._stale:
            order = list(self.groups)
            if rng is not None:
                order = [order[i] for i in rng.permutation(len(order))]
            for group in order:
                if group.name in self._stale:
                    self._step(group.name)
            sweeps += 1
            if not record():
                break
        return DescentResult(self.perms, path)

    def _one_sided_pass(self) -> None:
        """Match each group on the blocks whose other dims are matched already, in data flow."""
        matched: set[str] = set()
        for group in self.groups:
            name = group.name
            known = matched | {name} | set(self._children[name])
            usable = [i for i in self._blocks[name] if self.pairs[i].free <= known]
            if usable:
                self._step(name, usable)
                matched |= {name, *self._children[name]}

    def _step(self, name: str, usable: list[int] | None = None) -> None:
        """Move one group (and its inner groups) to the best assignment, if that gains."""
        blocks = self._blocks[name] if usable is None else usable
        if len(blocks) == len(self._blocks[name]):
            self._stale.discard(name)
        if self._children[name] or any(len(self.pairs[i].dims(name)) > 1 for i in blocks):
            self._propose(name, blocks, self._candidates(name, blocks))
            return
        gram = self._total_gram(name, blocks)
        perm = assign(gram)
        if (perm == np.arange(gram.shape[-1])).all():
            return
        gain = float(assigned_value(gram, perm).sum())
        gain -= float(np.trace(gram, axis1=-2, axis2=-1).sum())
        if gain > self.trusted:
            self._apply(name, perm)
        else:
            self._propose(name, blocks, [[(name, perm)]])

    def _propose(self, name: str, blocks: list[int], candidates) -> None:
        """Try candidates, sequences of (group, permutation); keep the best that gains."""
        before, value = self._snapshot(), self._value(blocks)
        best, best_gain = before, self.tol
        for candidate in candidates:
            for moved, perm in candidate:
                self._apply(moved, perm)
            gain = self._value(blocks) - value
            if gain > best_gain:
                best, best_gain = self._snapshot(), gain
            self._restore(before)
        self._restore(best)

    def _candidates(self, name: str, blocks: list[int]) -> list[list[tuple[str, np.ndarray]]]:
        """Return proposals for a group that carries inner groups or is quadratic."""
        plain = [i for i in blocks if len(self.pairs[i].dims(name)) == 1]
        square = [i for i in blocks if i not in plain]
        candidates = []
        if self._children[name]:
            candidates.append(self._solve_nested(name, plain))
        gram = self._total_gram(name, blocks)
        candidates.append([(name, assign(gram))])
        if plain and square:
            # the derivative overstates what a quadratic part gains: damp it, then leave it out
            part = self._total_gram(name, square)
            candidates += [[(name, assign(gram - share * part))] for share in (0.5, 1.0)]
        return candidates

    def _solve_nested(self, name: str, plain: list[int]) -> list[tuple[str, np.ndarray]]:
        """Solve a group together with its inner groups: assignments within an assignment.

        For each pair (i, j) of its indices, every inner group has a best permutation of its own,
        whose value enters the outer assignment. Exact where a block holds one inner group only.
        """
        inner, lead = set(self._children[name]), self.within[name]
        score = self._total_gram(name, [i for i in plain if not self.pairs[i].free & inner])
        chosen = {}
        for child in self._children[name]:
            mine = [
                i
                for i in plain
                if self.pairs[i].free & inner == {child} and len(self.pairs[i].dims(child)) == 1
            ]
            if not mine:
                continue
            extra = tuple(n for n in self.within[child] if n != name and n not in lead)
            grams = (self.pairs[i].nested_gram(name, child, extra + lead) for i in mine)
            gram = sum(part.double().cpu().numpy() for part in grams)
            perms = assign(gram)  # (*extra, *lead, i, j, units)
            score = score + assigned_value(gram, perms).sum(axis=tuple(range(len(extra))))
            chosen[child] = (perms, extra)
        outer = assign(score)
        steps = [(name, outer)]
        for child, (perms, extra) in chosen.items():
            index = np.broadcast_to(outer[..., None, None], (*perms.shape[:-2], 1, 1))
            picked = np.take_along_axis(perms, index, axis=-2)[..., 0, :]  # at j = outer[i]
            names = (*extra, *lead, name)
            order = [names.index(n) for n in self.within[child]]
            steps.append((child, picked.transpose([*order, len(names)])))
        return steps

    def _total_gram(self, name: str, blocks: list[int]) -> np.ndarray:
        """Return the gain matrix of one group over some blocks, in float64.

        Blocks that no other group moves are summed once: their sum only changes its columns.
        """
        alone = [i for i in blocks if i in self._alone[name]]
        kept = [i for i in blocks if i not in alone]
        size = self.perms[name].shape[-1]
        total = np.zeros((*self.perms[name].shape[:-1], size, size))
        if len(alone) > 1 and len(alone) == len(self._alone[name]):
            for index in kept:
                total += self._gram(name, index)
            total += self._kept(
                (name, ALONE),
                lambda: reduce(np.add, (self._compute_gram(name, index) for index in alone)),
            )
        else:
            for index in kept + alone:
                total += self._gram(name, index)
        return total

    def _gram(self, name: str, index: int) -> np.ndarray:
        """Return the Gram matrix of one block for one group."""
        return self._kept((name, index), lambda: self._compute_gram(name, index))

    def _kept(self, key: tuple[str, int], compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return a Gram matrix from the cache where it is fresh; keep it while there is room.

        What found no room is computed at every visit. To push out another for it would serve
        nothing: visits go round in circles, and the next would miss that one.
        """
        if key in self._grams:
            return self._grams[key]
        gram = compute()
        if sum(other.nbytes for other in self._grams.values()) + gram.nbytes <= self._room:
            self._grams[key] = gram
        return gram

    def _compute_gram(self, name: str, index: int) -> np.ndarray:
        """Compute the Gram matrix of one block for one group."""
        return self.pairs[index].gram(name, self.within[name]).cpu().numpy()

    def _apply(self, name: str, perm: np.ndarray) -> None:
        """Permute B's blocks, the permutations found so far, and what is cached."""
        for index in self._blocks[name]:
            self._permute_block(index, name, perm)
        if (name, ALONE) in self._grams:
            self._grams[name, ALONE] = _columns(self._grams[name, ALONE], perm)
        self.perms[name] = np.take_along_axis(self.perms[name], perm, axis=-1)
        for child in self._children[name]:
            # the inner permutations go along with the index that they belong to
            dims = [self.within[child].index(outer) for outer in (*self.within[name], name)]
            inner = permute_dim(torch.from_numpy(self.perms[child]), torch.from_numpy(perm), dims)
            self.perms[child] = inner.numpy()

    def _permute_block(self, index: int, name: str, perm: np.ndarray) -> None:
        """Permute one block; what is known of it follows a small move and is lost in a large."""
        pair = self.pairs[index]
        before = pair.b
        pair.permute(name, torch.from_numpy(perm).to(before.device), self.within[name])
        moved = self._few_moved(name, index, perm)
        for other in pair.free:
            gram = self._grams.pop((other, index), None)
            if other != name:
                self._stale.add(other)
                if gram is not None and moved is not None and self._is_plain(other, index):
                    change = pair.gram_change(other, name, moved, before)
                    self._grams[other, index] = gram + change.cpu().numpy()
            elif gram is not None and len(pair.dims(name)) == 1:
                self._grams[name, index] = _columns(gram, perm)
            elif len(pair.dims(name)) > 1:
                self._stale.add(name)
        if moved is not None:
            pair.correct_product(name, moved, before)

    def _few_moved(self, name: str, index: int, perm: np.ndarray) -> torch.Tensor | None:
        """Return the units that a permutation moves; None where starting afresh is cheaper."""
        pair = self.pairs[index]
        if not (pair.correctable and self._is_plain(name, index)):
            return None
        moved = np.flatnonzero(perm != np.arange(len(perm)))
        return torch.from_numpy(moved).to(pair.b.device) if len(moved) <= FEW * len(perm) else None

    def _is_plain(self, name: str, index: int) -> bool:
        """Whether a group is on one dim of a block, and one permutation serves for all of it."""
        return len(self.pairs[index].dims(name)) == 1 and not self.within[name]

    def _value(self, blocks: list[int]) -> float:
        """Return the part of the objective that some blocks hold."""
        return sum(self.pairs[i].inner_product() for i in blocks)

    def _snapshot(self):
        """Remember the present permutations; tensors are never written in place."""
        return (
            [pair.b for pair in self.pairs],
            dict(self.perms),
            dict(self._grams),
            set(self._stale),
        )

    def _restore(self, snapshot) -> None:
        """Go back to a snapshot."""
        tensors, perms, grams, stale = snapshot
        for pair, tensor in zip(self.pairs, tensors, strict=True):
            pair.b = tensor
        self.perms, self._grams, self._stale = dict(perms), dict(grams), set(stale)


def assign(gain: np.ndarray) -> np.ndarray:
    """Return the permutations that maximise ``sum_i gain[..., i, perm[..., i]]``.

    Row and column means do not move the optimum; without them, a gain dominated by one rank
    (uncentred moments) sends the solver on long augmenting paths.
    """
    size = gain.shape[-1]
    flat = np.asarray(gain, dtype=np.float64).reshape(-1, size, size)
    perms = np.empty(flat.shape[:2], dtype=np.int64)
    for index, matrix in enumerate(flat):
        cost = matrix.mean(axis=0) - matrix  # negated here: maximize=True would copy it once more
        cost += matrix.mean(axis=1, keepdims=True)
        perms[index] = linear_sum_assignment(cost)[1]
    return perms.reshape(gain.shape[:-1])


def assigned_value(gain: np.ndarray, perms: np.ndarray) -> np.ndarray:
    """Return ``sum_i gain[..., i, perm[..., i]]`` for each leading index."""
    return np.take_along_axis(gain, perms[..., None], axis=-1)[..., 0].sum(axis=-1)


def _columns(gram: np.ndarray, perm: np.ndarray) -> np.ndarray:
    """Reorder B's side of a Gram matrix."""
    if perm.ndim == 1:
        return gram.take(perm, axis=-1)
    return np.take_along_axis(gram, perm[..., None, :], axis=-1)
