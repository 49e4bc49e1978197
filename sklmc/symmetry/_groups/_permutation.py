"""An element of a net's symmetry group: one index array per group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch

from sklmc._validation import check_mapping, check_read_path, check_written_path
from sklmc.exceptions import PermutationError
from sklmc.models import read_state, state_fingerprint, view, write_state
from sklmc.symmetry._groups._group import PermutationGroup, checksum, group_from_dict, group_to_dict

FORMAT_VERSION = 2  # version 1 had no checksum


class Permutation(Mapping):
    """Which old unit becomes each new unit, group by group.

    A Mapping from group name to an int64 index array: new unit ``i`` is old unit ``perm[i]``. A
    group that lies within others has an array of shape ``(*outer_sizes, size)``, indexed by the
    *new* indices of the outer ones. Made by `PermutationSymmetry` (`identity`,
    `random_permutation`, `permutation`) and by the aligners.

    Parameters
    ----------
    arrays : mapping of str to array of int
        Index arrays; a group that is left out does not move.
    groups : sequence of PermutationGroup
        The groups, as in ``symmetry.groups``.
    record : mapping, default=None
        Where it comes from, as plain values: a fit writes its method and objective, and
        fingerprints of both models' weights. Kept in files; two permutations that differ in
        nothing else are equal.

    Raises
    ------
    PermutationError
        If an array is no permutation of its group, or belongs to no group.

    Examples
    --------
    >>> from torch import nn
    >>> from sklmc.symmetry import discover_symmetry
    >>> symmetry = discover_symmetry(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    >>> p = symmetry.permutation({"0": [1, 0, 3, 2]})
    >>> p.n_moved
    4
    >>> p.compose(p) == symmetry.identity()
    True
    """

    def __init__(
        self,
        arrays: Mapping,
        groups: Sequence[PermutationGroup],
        record: Mapping | None = None,
    ):
        caller = "Permutation"
        check_mapping(arrays, caller, "arrays")
        self.record = {} if record is None else dict(check_mapping(record, caller, "record"))
        groups = list(groups) if isinstance(groups, Iterable) else [groups]
        if not all(isinstance(group, PermutationGroup) for group in groups):
            raise TypeError(
                f"{caller}: 'groups' must be PermutationGroups, as in symmetry.groups, got "
                f"{groups!r}."
            )
        self._groups = {group.name: group for group in groups}
        unknown = [name for name in arrays if name not in self._groups]
        if unknown:
            raise PermutationError(
                f"Permutation: there is no group {unknown[0]!r}; the groups are "
                f"{', '.join(map(repr, self._groups)) or 'none'}."
            )
        self._arrays = {}
        for name, group in self._groups.items():
            array = (
                group._check(arrays[name], "Permutation") if name in arrays else group.identity()
            )
            array.flags.writeable = False
            self._arrays[name] = array

    # -- Mapping ---------------------------------------------------------------------------

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __eq__(self, other) -> bool:
        if not isinstance(other, Permutation):
            return NotImplemented
        return self.keys() == other.keys() and all(
            np.array_equal(array, other[name]) for name, array in self.items()
        )

    __hash__ = None

    def __repr__(self) -> str:
        total = sum(array.size for array in self._arrays.values())
        return f"Permutation({len(self)} groups, {self.n_moved} of {total} units moved)"

    def __reduce__(self):
        return type(self), (self._arrays, self.groups, self.record)

    # -- group laws ------------------------------------------------------------------------

    @property
    def groups(self) -> tuple[PermutationGroup, ...]:
        """The groups that the arrays belong to."""
        return tuple(self._groups.values())

    @property
    def n_moved(self) -> int:
        """Number of units that change their place (each copy of a structured group counts)."""
        return int(
            sum((array != np.arange(array.shape[-1])).sum() for array in self._arrays.values())
        )

    def compose(self, other: Permutation) -> Permutation:
        """Return the permutation that applies `other` first, then this one.

        Parameters
        ----------
        other : Permutation
            A permutation of the same groups.

        Returns
        -------
        permutation : Permutation
            ``symmetry.apply(model, p.compose(q))`` is
            ``symmetry.apply(symmetry.apply(model, q), p)``.

        Raises
        ------
        PermutationError
            If the groups differ.
        """
        self._check_same_groups(other, "Permutation.compose")
        composed = {}
        for name, group in self._groups.items():
            first = other[name][self._outer_index(group)]
            composed[name] = np.take_along_axis(first, self[name], axis=-1)
        return Permutation(composed, self.groups)

    def inverse(self) -> Permutation:
        """Return the permutation that undoes this one.

        Returns
        -------
        permutation : Permutation
            ``p.inverse().compose(p)`` moves nothing.
        """
        inverse = {}
        for name, group in self._groups.items():
            back = np.argsort(self[name], axis=-1)
            moved = np.empty_like(back)
            moved[self._outer_index(group)] = back
            inverse[name] = moved
        return Permutation(inverse, self.groups)

    def _outer_index(self, group: PermutationGroup) -> tuple:
        """Return where each copy of a structured group comes from, for indexing its array."""
        return outer_index(group, self._groups, self._arrays)

    def _check_same_groups(self, other, caller: str) -> None:
        """Refuse what is no permutation of the same groups."""
        if not isinstance(other, Permutation):
            raise TypeError(f"{caller}: 'other' must be a Permutation, got {type(other).__name__}.")
        mine = {name: group.shape for name, group in self._groups.items()}
        theirs = {name: group.shape for name, group in other._groups.items()}
        if mine != theirs:
            raise PermutationError(
                f"{caller}: the permutations belong to different nets: groups {mine} and {theirs}."
            )

    # -- files -----------------------------------------------------------------------------

    def save(self, path) -> None:
        """Write index arrays, groups and record to one safetensors file.

        Parameters
        ----------
        path : str or path-like
            The file; it holds int64 tensors, JSON and a checksum of both, no pickle, and is
            written whole or not at all.
        """
        path = check_written_path(path, "Permutation.save")
        metadata = {
            "format": "sklmc.Permutation",
            "version": FORMAT_VERSION,
            "groups": [group_to_dict(group) for group in self.groups],
            "record": self.record,
        }
        write_state(
            path,
            {name: torch.from_numpy(array.copy()) for name, array in self.items()},
            {**metadata, "checksum": _checksum(metadata, self)},
            "Permutation.save",
        )

    @classmethod
    def load(cls, path, *, model_a=None, model_b=None) -> Permutation:
        """Read what `save` wrote, and check that it is a permutation.

        Parameters
        ----------
        path : str or path-like
            The file.
        model_a : skorch net, fitted sklmc estimator or torch.nn.Module, default=None
            If given, its weights must be those of the reference of the fit.
        model_b : skorch net, fitted sklmc estimator or torch.nn.Module, default=None
            If given, its weights must be those of the model that was moved in the fit.

        Returns
        -------
        permutation : Permutation
            Equal to the one that was saved. ``symmetry.apply`` refuses it where it belongs to
            another architecture.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        PermutationError
            If an array is no permutation of its group, or a model is not that of the fit.
        ValueError
            If the file is damaged (its checksum does not fit), is of another version of the
            format, or holds no permutation.
        """
        caller = "Permutation.load"
        path = check_read_path(path, caller)
        state, metadata = read_state(path, caller)
        if not isinstance(metadata, Mapping) or metadata.get("format") != "sklmc.Permutation":
            raise ValueError(
                f"{caller}: {str(path)!r} holds no permutation of sklmc; write it with "
                "Permutation.save."
            )
        if metadata.get("version") != FORMAT_VERSION:
            raise ValueError(
                f"{caller}: version {metadata.get('version')!r} of the format of {str(path)!r} is "
                f"not known (this is version {FORMAT_VERSION}; version 1 had no checksum); fit the "
                "aligner again."
            )
        try:
            groups = [group_from_dict(entry) for entry in metadata["groups"]]
            found = cls({k: v.numpy() for k, v in state.items()}, groups, metadata["record"])
            intact = metadata["checksum"] == _checksum(metadata, found)
        except PermutationError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise _damaged(caller, path, f"{type(error).__name__}: {error}") from None
        if not intact:
            raise _damaged(caller, path, "its checksum is not that of its contents")
        for name, model in (("model_a", model_a), ("model_b", model_b)):
            if model is None:
                continue
            seen = state_fingerprint(view(model, caller=caller, name=name).state)
            if seen != found.record.get(name):
                raise PermutationError(
                    f"{caller}: the weights of '{name}' are not those that {str(path)!r} was found "
                    f"for (fingerprint {seen}, in the file {found.record.get(name)}); pass the "
                    "model of the fit, or fit anew."
                )
        return found


def _checksum(metadata: Mapping, arrays: Mapping[str, np.ndarray]) -> str:
    """Return the checksum of a file's metadata and index arrays."""
    rest = {name: value for name, value in metadata.items() if name != "checksum"}
    return checksum({**rest, "arrays": {name: array.tolist() for name, array in arrays.items()}})


def _damaged(caller: str, path, what: str) -> ValueError:
    """Say that a file is not what was written."""
    return PermutationError(
        f"{caller}: {str(path)!r} is damaged or was changed after it was saved ({what}); take an "
        "intact copy, or fit the aligner again."
    )


def outer_index(
    group: PermutationGroup, groups: Mapping[str, PermutationGroup], arrays: Mapping
) -> tuple[np.ndarray, ...]:
    """Return old outer indices for every combination of new outer indices of a group."""
    grids = np.indices(group.outer_sizes)
    old = []
    for place, name in enumerate(group.within):
        if name in groups:
            around = tuple(grids[group.within.index(outer)] for outer in groups[name].within)
            old.append(arrays[name][(*around, grids[place])])
        else:
            old.append(grids[place])
    return tuple(old)
