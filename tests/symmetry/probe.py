"""A completeness probe: is what was frozen rightly frozen?

Each fixed leaf is set free, alone, and two of its indices are exchanged everywhere at once. Where
the outputs do not change, the labels were too careful.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from sklmc.symmetry._groups._mover import Mover
from sklmc.symmetry._labelling._extraction import extract
from sklmc.symmetry._labelling._walk import label_graphs
from sklmc.symmetry._proof._prover import Prover
from sklmc.symmetry._tracing._subject import Subject


def idle_exchanges(net, X, n_pairs: int = 6) -> Iterator[tuple[str, str, tuple[int, int], float]]:
    """Yield reason, places, indices and error of exchanges that should have changed an output."""
    subject = Subject(net, X, "probe")
    graphs = [subject.graph(False)]
    labelling = label_graphs(graphs, subject.shapes, subject.aliases, subject.movable)
    labels = labelling.labels
    known = {(group.size, group.places) for group in extract(labelling).groups}
    prover = Prover(subject, graphs)
    members = {
        leaf
        for tensor in labelling.tensors.values()
        for _, piece in tensor.pieces
        for axis in piece.axes
        for leaf in labels.members(axis)
    }
    for leaf in sorted(members, key=lambda leaf: leaf.index):
        if leaf.reason is None or "forward does not use" in str(leaf.reason):
            continue
        reason, leaf.reason = leaf.reason, None
        structure = extract(labelling)
        leaf.reason = reason
        new = [g for g in structure.groups if (g.size, g.places) not in known]
        mover = Mover(structure.blocks, structure.groups)
        for group in new:
            pairs = list(itertools.combinations(range(group.size), 2))
            for i, j in pairs[:: max(1, len(pairs) // n_pairs)]:
                array = group.identity()
                array[..., [i, j]] = array[..., [j, i]]
                state = mover.state(prover.state, {group.name: array}, prover.aliases)
                error = prover.change("eval", state)
                if not error > 1e-7:
                    places = ", ".join(f"{tensor}[{axis}]" for tensor, axis in group.places)
                    yield str(reason), places, (i, j), float(np.float64(error))
