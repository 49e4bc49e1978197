"""The stages of a merge, scored one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from sklmc.merging._merge import Merged
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._reports._report import MergeReport
from sklmc.models import State, view

# what the rows of a report are called that are no members
STAGES = {"ensemble", "naive", "aligned", "repaired", "polished", "merged"}


def add_stages(
    report: MergeReport,
    before: EndPoints,
    aligned: EndPoints | None,
    merged: Merged,
    ensemble=None,
    names: Sequence[str] = (),
    outputs: Sequence[torch.Tensor] | None = None,
    taught: Mapping[str, State] | None = None,
) -> None:
    """Add the members and their ensemble, their naive mean, the aligned one, the repaired one.

    `before` holds the members as they came, `aligned` as they were averaged (None: as they came),
    `outputs` what the members give, where that is known, `taught` a part that took the steps of a
    polish, by its name, and then the merged net.
    """
    alike = EndPoints.alike(before.states, before.known, before.heads)
    report.add_members(alike, ensemble, names, outputs)
    report.add_state("naive", before.mean())
    if aligned is not None:
        report.add_state("aligned", aligned.mean())
    if merged.repair is not None:
        report.add_state("repaired", view(merged.model, caller=report.look.caller).state)
    if taught is not None:
        (part, control), (_, polished) = taught.items()
        report.add_control(part, control)
        report.add_state("polished", polished)
