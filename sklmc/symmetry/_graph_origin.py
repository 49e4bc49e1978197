"""What a symmetry read from a dict knows of its net: the digest of the forward pass."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence

from sklmc.exceptions import TraceError
from sklmc.models import ModelView, run_module
from sklmc.symmetry._application import Mover
from sklmc.symmetry._graph import export_graph, trace_input
from sklmc.symmetry._group import PermutationGroup
from sklmc.symmetry._origin import Origin, make_of


class GraphOrigin:
    """The digest of the traced forward pass that a symmetry was found on.

    A net whose forward pass has the same digest is the same net to the rules. Any other (also one
    that is traced with samples of another shape, or by another torch) is put to the test, as
    `Origin` does: its units are moved and its function must not change. Where no sample is known,
    nothing can be said.
    """

    def __init__(self, graph_hash: str):
        self.graph_hash = graph_hash
        self._known: set[Hashable] = set()

    def __getstate__(self) -> dict:
        return {**vars(self), "_known": set()}  # classes and functions may not travel

    def check(
        self, seen: ModelView, mover: Mover, groups: Sequence[PermutationGroup], X=None
    ) -> None:
        """Refuse a model with another forward pass whose function changes when its units move."""
        make = make_of(seen.original)
        if make is not None and make in self._known:
            return
        try:
            sample = trace_input(seen.sample(X))
            run_module(seen, sample)
        except ValueError:
            if X is None:  # no shape is known, or the width of a first layer guessed it wrong
                return
            raise
        if not self._is_same(seen, sample):
            trial = copy.copy(Origin(seen.original, sample))  # a copy knows no net, not even this
            trial.check(seen, mover, groups)
        self._known.add(make)

    def _is_same(self, seen: ModelView, sample: tuple) -> bool:
        """Say whether a model's forward pass has the digest."""
        try:
            graph = export_graph(
                seen.module, sample, training=False, caller="PermutationSymmetry.check"
            )
        except TraceError:
            return False
        return graph.hash == self.graph_hash
