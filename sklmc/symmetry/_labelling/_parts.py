"""Parameters of which forward only ever uses pieces: each piece is a tensor of its own.

The packed projection of cross-attention reads queries from one stream, keys and values from
another: its rows are cut first, so its columns belong to two different streams.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from sklmc.symmetry._algebra._labels import Labels
from sklmc.symmetry._rules._position import stretches
from sklmc.symmetry._rules._registry import Labelled, operation_name
from sklmc.symmetry._tracing._graph import Graph, bind, live_nodes

_CUTS = {"slice", "narrow", "split", "split_with_sizes", "chunk", "tensor_split"}


@dataclass(frozen=True)
class Parted:
    """Labels of the pieces along the first axis, each with the place where it begins."""

    pieces: tuple[tuple[int, Labelled], ...]

    def cut(self, labels: Labels, start: int, stop: int) -> Labelled:
        """Return the label of a stretch that begins and ends where pieces do."""
        found = [piece for place, piece in self.pieces if start <= place < stop]
        first = found[0]
        for other in found[1:]:
            for a, b in zip(first.axes[1:], other.axes[1:], strict=True):
                labels.unify(a, b)
        rows = tuple(segment for piece in found for segment in piece.axes[0])
        return Labelled((rows, *first.axes[1:]), (stop - start, *first.shape[1:]))


def borders(graphs: Iterable[Graph]) -> dict[str, list[int]]:
    """Return, by tensor, where forward cuts it along its first axis: those that it only cuts."""
    found: dict[str, set[int]] = {}
    whole: set[str] = set()
    for graph in graphs:
        live = live_nodes(graph.module.graph)
        for entry in graph.entries:
            users = [user for user in entry.node.users if user in live]
            if entry.kind != "tensor" or not users:
                continue
            for user in users:
                stretches = list(cut_stretches(user))
                if not stretches or user.args[0] is not entry.node:
                    whole.add(entry.name)
                    break
                places = found.setdefault(entry.name, set())
                places.update(place for stretch in stretches for place in stretch)
            found.get(entry.name, set()).difference_update({0, *entry.node.meta["val"].shape[:1]})
    return {name: sorted(places) for name, places in found.items() if places and name not in whole}


def cut_stretches(node: torch.fx.Node) -> Iterator[tuple[int, int]]:
    """Yield start and stop of every result of a node that cuts along the first axis."""
    kind = operation_name(node.target).rpartition("::")[2]
    if node.op != "call_function" or kind not in _CUTS:
        return
    given = bind(node, node.args, node.kwargs)
    value = node.args[0].meta["val"]
    if given.get("dim", 0) % value.ndim != 0 or (given.get("step") or 1) != 1:
        return
    results = node.meta["val"]
    several = [results] if isinstance(results, torch.Tensor) else results
    yield from stretches(given.get("start"), value.shape[0], [part.shape[0] for part in several])
