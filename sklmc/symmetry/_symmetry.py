"""PermutationSymmetry: the groups of a net, and what can be done with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sklmc._validation import check_mapping, check_seed
from sklmc.exceptions import SymmetryError
from sklmc.models import ModelView, SpentState, check_state, view
from sklmc.symmetry._axes_to_perm import axes_to_perm, claim_from_axes
from sklmc.symmetry._groups._blocks import Block, FrozenAxis, Structure
from sklmc.symmetry._groups._group import PermutationGroup
from sklmc.symmetry._groups._mover import Mover
from sklmc.symmetry._groups._permutation import Permutation
from sklmc.symmetry._proof._origin import Origin
from sklmc.symmetry._proof._trial import function_change
from sklmc.symmetry._spec import arguments_from_dict, symmetry_to_dict
from sklmc.symmetry._summary import as_frame, as_html, as_text, permutable_fraction
from sklmc.symmetry._tracing._subject import Subject
from sklmc.symmetry._tracing._tensors import (
    alias_sets,
    check_dense,
    check_same_constants,
    check_same_shapes,
    constant_digests,
)


class PermutationSymmetry:
    """The permutations of hidden units that leave a net's function unchanged.

    Made by `discover_symmetry`. It belongs to an architecture, not to one set of weights: it
    applies to every model with the same tensors, the same constants and the same forward pass.

    Attributes
    ----------
    groups : tuple of PermutationGroup
        In the order in which the data meets them.
    blocks : dict of str to tuple of Block
        For every tensor of the state, the parts that it is cut into: disjoint, and together all
        of it.
    frozen : tuple of FrozenAxis
        What may not be permuted, with module path and reason.
    shapes : dict of str to tuple of int
        Shape of every tensor.
    aliases : tuple of tuples of str
        Names that stand for one tied tensor.
    buffers : frozenset of str
        Tensors that are running statistics: they move with their group.
    constants : dict of str to str
        Digests of buffers that cannot move (integer or non-persistent ones): two models must
        share them.
    graph_hash : str or None
        Digest of the traced forward pass; compared by `check` after `from_dict`.
    evidence : dict or None
        What verification measured; None if it was not run. ``draws`` counts the permutations of
        each kind that were tried in each of the ``modes``; ``error`` is the largest relative change
        of an output when all groups move, ``errors`` when one does; ``failed`` and ``tied`` name
        the groups that were frozen or lost copies; ``own_error`` is the change of the net itself
        with its own weights in ``own_dtype``. ``dtype`` is float64, or float32 (with a larger
        ``tolerance``) where some operation of the net runs in no other.
    origin : object or None
        What tells nets with another forward pass from the net that the symmetry was found on;
        `to_dict` keeps no more of it than `graph_hash`.

    Examples
    --------
    >>> from torch import nn
    >>> from sklmc.symmetry import discover_symmetry
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    >>> symmetry = discover_symmetry(net)
    >>> [(group.name, group.size) for group in symmetry.groups]
    [('0', 8), ('2', 6)]
    >>> symmetry.verify(net) < 1e-9
    True
    """

    def __init__(
        self,
        groups: Sequence[PermutationGroup],
        blocks: Mapping[str, Sequence[Block]],
        shapes: Mapping[str, tuple[int, ...]],
        aliases: Sequence[tuple[str, ...]] = (),
        buffers=frozenset(),
        frozen: Sequence[FrozenAxis] = (),
        constants: Mapping[str, str] | None = None,
        graph_hash: str | None = None,
        evidence: dict | None = None,
        origin: Origin | None = None,
    ):
        self.groups = tuple(groups)
        self.blocks = {name: tuple(found) for name, found in blocks.items()}
        self.shapes = dict(shapes)
        self.aliases = tuple(aliases)
        self.buffers = frozenset(buffers)
        self.frozen = tuple(frozen)
        self.constants = dict(constants or {})
        self.graph_hash = graph_hash
        self.evidence = evidence
        self.origin = origin
        self._by_name = {group.name: group for group in self.groups}
        self._mover = Mover(self.blocks, self.groups)

    def group(self, name: str) -> PermutationGroup:
        """Return the group of this name.

        Parameters
        ----------
        name : str
            Name of a group.

        Returns
        -------
        group : PermutationGroup
            The group.
        """
        if not isinstance(name, str) or name not in self._by_name:
            raise SymmetryError(
                f"PermutationSymmetry: there is no group {name!r}; the groups are "
                f"{', '.join(map(repr, self._by_name)) or 'none'}."
            )
        return self._by_name[name]

    # -- elements --------------------------------------------------------------------------

    def identity(self) -> Permutation:
        """Return the permutation that moves nothing.

        Returns
        -------
        permutation : Permutation
            The neutral element.
        """
        return Permutation({}, self.groups)

    def permutation(self, arrays: Mapping, record: Mapping | None = None) -> Permutation:
        """Make a permutation from index arrays.

        Parameters
        ----------
        arrays : mapping of str to array of int
            New unit ``i`` is old unit ``perm[i]``; groups that are left out do not move.
        record : mapping, default=None
            Where the permutation comes from, as plain values; see :class:`Permutation`.

        Returns
        -------
        permutation : Permutation
            Checked: every array is a permutation of its group.
        """
        return Permutation(arrays, self.groups, record)

    def random_permutation(self, random_state=None) -> Permutation:
        """Draw uniformly from all permutations.

        Parameters
        ----------
        random_state : int, RandomState or None, default=None
            Source of chance.

        Returns
        -------
        permutation : Permutation
            Independent over groups and copies.
        """
        random = check_seed(random_state, "PermutationSymmetry.random_permutation")
        return Permutation({group.name: group.draw(random) for group in self.groups}, self.groups)

    # -- application -----------------------------------------------------------------------

    def apply(self, model, permutation: Mapping):
        """Return a new model with its hidden units in another order and the same function.

        Parameters
        ----------
        model : skorch net, fitted; sklmc estimator, fitted; or torch.nn.Module
            Not changed.
        permutation : Permutation, or mapping of group name to index array
            New unit ``i`` is old unit ``perm[i]``.

        Returns
        -------
        model : same kind as `model`
            The permuted model, on the same device and in the same dtype; tensors that no group
            touches keep their bits.

        Raises
        ------
        ArchitectureMismatchError
            If the model's tensors are not those that this symmetry was found for.
        """
        seen = view(model, caller="PermutationSymmetry.apply")
        self.check(seen)
        return seen.rebuild(SpentState(self.apply_state(seen.state, permutation)))

    def apply_state(self, state: Mapping[str, torch.Tensor], permutation: Mapping) -> dict:
        """Return a state dict with the units in another order.

        Parameters
        ----------
        state : mapping of str to tensor
            All tensors of the net; not changed.
        permutation : Permutation, or mapping of group name to index array
            New unit ``i`` is old unit ``perm[i]``.

        Returns
        -------
        state : dict of str to tensor
            New tensors where something moves, the same tensors elsewhere.
        """
        check_state(state, "PermutationSymmetry.apply_state")
        check_same_shapes(state, self.shapes, "PermutationSymmetry.apply_state")
        if not isinstance(permutation, Permutation):
            permutation = self.permutation(check_mapping(permutation, "apply_state", "permutation"))
        moving = {
            name: array
            for name, array in permutation.items()
            if np.count_nonzero(array != np.arange(array.shape[-1]))
        }
        foreign = [g for g in permutation.groups if g.name in moving and not self._has(g)]
        if foreign:
            raise SymmetryError(
                "PermutationSymmetry.apply: the permutation belongs to another net; its groups are "
                f"{list(permutation)}, this symmetry's are {list(self._by_name)}."
            )
        return self._mover.state(state, moving)

    def _has(self, group: PermutationGroup) -> bool:
        """Whether a group is one of ours: the same name, sizes and places."""
        own = self._by_name.get(group.name)
        return own is not None and (own.shape, own.places) == (group.shape, group.places)

    # -- checks ----------------------------------------------------------------------------

    def check(self, model, X=None) -> None:
        """Refuse a model that this symmetry does not belong to.

        Parameters
        ----------
        model : skorch net, fitted; sklmc estimator, fitted; or torch.nn.Module
            The model.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader, default=None
            A few samples to trace the model with, for a symmetry that was read from a dict; one
            that was found here has samples of its own.

        Raises
        ------
        ArchitectureMismatchError
            If names, shapes or constants differ, the first difference is named; or if the
            forward pass differs and the model's function changes when its units move. That is
            looked at only where modules or settings are not those of the net that the symmetry
            was found on. A symmetry that was read from a dict compares `graph_hash` with the
            model's traced forward pass, and moves units where the two differ; it needs X for that
            where the shape of the input is not known (neither a fitted estimator nor a leading
            Linear layer), and looks at tensors and constants alone without. So does a symmetry
            that was not verified here.
        SymmetryError
            If a tensor is on the meta device, quantised or sparse.
        """
        seen = view(model, caller="PermutationSymmetry.check")
        self._check_tensors(seen)
        if self.origin is not None:
            self.origin.check(seen, self._mover, self.groups, X)

    def _check_tensors(self, seen: ModelView) -> None:
        """Refuse a model by its tensors and constants, whatever its forward pass."""
        check_dense(seen.original, "PermutationSymmetry.check")
        check_same_shapes(seen.state, self.shapes, "PermutationSymmetry.check")
        check_same_constants(seen.original, self.constants)

    def verify(self, model, X=None, *, random_state=0) -> float:
        """Measure how much the model's own function changes under its permutations.

        Parameters
        ----------
        model : skorch net, fitted; sklmc estimator, fitted; or torch.nn.Module
            The model with its own weights; not changed.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader, default=None
            A few samples, as in `discover_symmetry`.
        random_state : int, RandomState or None, default=0
            Source of the 20 permutations. A number by default: the same proof every time.

        Returns
        -------
        error : float
            Largest change of an output in eval mode, relative to its largest value, in float64.

        Notes
        -----
        The permutations are uniform draws from all that is claimed but the identity. Where some
        permutation changes the function, at least half of them do: all 20 miss it with probability
        at most 1e-6. A change that is large for rounding (above 1e-9, say) refutes the claim.
        """
        return function_change(self, model, X, check_seed(random_state, "verify"))

    # -- plain values ----------------------------------------------------------------------

    def to_dict(self) -> dict:
        """Return the symmetry as plain values that JSON can hold.

        Returns
        -------
        spec : dict
            All that there is: groups, blocks, frozen axes, evidence; and a checksum, the SHA-256
            of the rest as canonical JSON.
        """
        return symmetry_to_dict(self)

    @classmethod
    def from_dict(cls, spec: Mapping) -> PermutationSymmetry:
        """Return the symmetry that `to_dict` wrote.

        Parameters
        ----------
        spec : dict
            What `to_dict` returned, also after a trip through JSON.

        Returns
        -------
        symmetry : PermutationSymmetry
            Equal in all it does. What it is applied to is compared with it as `check` says.

        Raises
        ------
        SymmetryError
            If `spec` is no symmetry, is of another version of the format (files of version 1
            had no checksum: discover anew), or was damaged: its checksum or its parts do not
            fit together (a ValueError).
        """
        return cls(**arguments_from_dict(spec))

    def to_axes_to_perm(self, *, lossy: bool = False) -> dict[str, tuple[str | None, ...]]:
        """Return the symmetry in git-re-basin's dialect: a group name or None for every axis.

        Parameters
        ----------
        lossy : bool, default=False
            Whether to leave out groups that the format cannot say (heads, flattened blocks,
            gates, concatenations); they are fixed then.

        Returns
        -------
        spec : dict of str to tuple of (str or None)
            By tensor name.

        Raises
        ------
        SymmetryError
            If groups would be lost and `lossy` is False; the axes are named.
        """
        return axes_to_perm(self, lossy)

    @classmethod
    def from_axes_to_perm(cls, spec: Mapping, model, X=None, *, verify: bool = True):
        """Return the symmetry of a git-re-basin spec, proved on a model.

        Also the way on for a module whose forward pass cannot be traced: it is then verified by
        running the module itself, in eval mode.

        Parameters
        ----------
        spec : mapping of str to tuple of (str or None)
            For every tensor one group name, or None, per axis; tensors left out do not move.
        model : skorch net, fitted; sklmc estimator, fitted; or torch.nn.Module
            The net that the spec is for.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader, default=None
            A few samples, as in `discover_symmetry`.
        verify : bool, default=True
            Whether to test the spec, as `discover_symmetry` does.

        Returns
        -------
        symmetry : PermutationSymmetry
            With the groups of the spec.

        Raises
        ------
        SymmetryError
            If the spec does not fit the tensors, or a group changes the function; it is named.
        """
        return symmetry_of(*claim_from_axes(spec, model, X, verify))

    # -- what a user sees ------------------------------------------------------------------

    @property
    def permutable_fraction(self) -> float:
        """Share of the net's weights that some group moves (running statistics not counted)."""
        return permutable_fraction(self)

    def to_frame(self):
        """Return one row per group and place.

        Returns
        -------
        frame : DataFrame
            Columns ``group, size, copies, within, tensor, axis, observable``.
        """
        return as_frame(self)

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)


def symmetry_of(
    subject: Subject, structure: Structure, evidence: dict | None, graph_hash: str | None
) -> PermutationSymmetry:
    """Put what was found of a subject, and proved where there is evidence, into one object."""
    return PermutationSymmetry(
        groups=structure.groups,
        blocks=structure.blocks,
        shapes=subject.shapes,
        aliases=alias_sets(subject.aliases),
        buffers=subject.buffers,
        frozen=structure.frozen,
        constants=constant_digests(subject.view.original),
        graph_hash=graph_hash,
        evidence=evidence,
        origin=Origin(subject.view.original, subject.sample) if evidence else None,
    )
