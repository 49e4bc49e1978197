"""What print, notebooks and data frames show of a symmetry."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd

_ROWS = 40  # groups that a summary lists before it says how many more there are


def permutable_fraction(symmetry) -> float:
    """Return the share of the net's weights that some group moves."""
    moved = total = 0
    names = {group.name for group in symmetry.groups}
    tied = {name for names in symmetry.aliases for name in names[1:]}
    for name, blocks in symmetry.blocks.items():
        if name in symmetry.buffers or name in tied:
            continue
        for block in blocks:
            count = int(np.prod([axis.positions.size for axis in block.axes]))
            total += count
            if any(group in names for group in block.groups):
                moved += count
    return moved / total if total else 0.0


def as_frame(symmetry) -> pd.DataFrame:
    """Return one row per group and place."""
    rows = [
        {
            "group": group.name,
            "size": group.size,
            "copies": group.copies,
            "within": ", ".join(group.within),
            "tensor": tensor,
            "axis": axis,
            "observable": tensor not in group.unobservable,
        }
        for group in symmetry.groups
        for tensor, axis in group.places
    ]
    columns = ["group", "size", "copies", "within", "tensor", "axis", "observable"]
    return pd.DataFrame(rows, columns=columns)


def frozen_summary(symmetry) -> list[tuple[str, str]]:
    """Return reasons with the places that they freeze; a reason found in many modules is one."""
    by_kind: dict[str, dict[str, list[str]]] = {}
    for entry in symmetry.frozen:
        places = by_kind.setdefault(entry.kind, {}).setdefault(entry.reason, [])
        places.append(f"{entry.tensor}[{entry.axis}]")
    found = []
    for kind, reasons in by_kind.items():
        several = len(reasons) > 1
        name = f"{kind} ({len(reasons)} operations)" if several else next(iter(reasons))
        found.append((name, _shortened([p for places in reasons.values() for p in places])))
    return found


def advice(symmetry) -> list[str]:
    """Return what a user could do about what is frozen."""
    found = []
    shapes = symmetry.shapes
    output = [e for e in symmetry.frozen if e.reason.startswith("output of the net")]
    wide = {e.tensor for e in output if e.axis > 0 and shapes[e.tensor][e.axis] == e.size}
    if len(wide) >= 2:
        found.append(
            "The output seems to be a hidden state: it fixes input axes of "
            f"{_shortened(sorted(wide))}. Wrap the model so that it returns logits only."
        )
    unknown = [e for e in symmetry.frozen if e.reason.startswith("no rule")]
    if unknown:
        found.append("Operations without a rule: teach them with sklmc.symmetry.register_rule.")
    if symmetry.evidence is None:
        found.append("Not verified: call discover_symmetry(model, X, verify=True).")
    return found


def as_text(symmetry) -> str:
    """Return the summary that print shows."""
    lines = [_headline(symmetry)]
    for group in symmetry.groups[:_ROWS]:
        lines.append("  " + _group_line(group))
    if len(symmetry.groups) > _ROWS:
        lines.append(f"  ... and {len(symmetry.groups) - _ROWS} more groups (see to_frame())")
    reasons = frozen_summary(symmetry)
    if reasons:
        lines.append("frozen:")
        lines.extend(f"  {reason}: {places}" for reason, places in reasons[:_ROWS])
    unseen = [f"{t} ({g.name})" for g in symmetry.groups for t in g.unobservable]
    if unseen:
        lines.append(f"moved, but seen by no output: {_shortened(unseen)}")
    lines.append(_evidence_line(symmetry))
    lines.extend(f"note: {text}" for text in advice(symmetry))
    return "\n".join(lines)


def as_html(symmetry) -> str:
    """Return the summary that notebooks show."""
    rows = "".join(
        f"<tr><td>{html.escape(group.name)}</td><td>{group.size}</td><td>{group.copies}</td>"
        f"<td>{html.escape(', '.join(group.within))}</td>"
        f"<td>{html.escape(_shortened([f'{t}[{a}]' for t, a in group.places]))}</td></tr>"
        for group in symmetry.groups
    )
    frozen = "".join(
        f"<li>{html.escape(reason)}: {html.escape(places)}</li>"
        for reason, places in frozen_summary(symmetry)
    )
    notes = "".join(f"<li>{html.escape(text)}</li>" for text in advice(symmetry))
    return (
        f"<div><p><b>{html.escape(_headline(symmetry))}</b></p>"
        "<table><thead><tr><th>group</th><th>size</th><th>copies</th><th>within</th>"
        f"<th>places</th></tr></thead><tbody>{rows}</tbody></table>"
        f"<details><summary>frozen</summary><ul>{frozen}</ul></details>"
        f"<p>{html.escape(_evidence_line(symmetry))}</p><ul>{notes}</ul></div>"
    )


def _headline(symmetry) -> str:
    """Return number of groups and share of weights."""
    n = len(symmetry.groups)
    share = 100 * symmetry.permutable_fraction
    return (
        f"PermutationSymmetry: {n} group{'s' * (n != 1)}, {share:.0f} % of the weights permutable"
    )


def _group_line(group) -> str:
    """Return one group with where it lies."""
    copies = f" x {group.copies} (within {', '.join(group.within)})" if group.within else ""
    places = _shortened([f"{tensor}[{axis}]" for tensor, axis in group.places])
    return f"{group.name}: S_{group.size}{copies}: {places}"


def _evidence_line(symmetry) -> str:
    """Return what the claim rests on."""
    if symmetry.evidence is None:
        return "not verified"
    evidence = symmetry.evidence
    modes, dtype = " and ".join(evidence["modes"]), evidence.get("dtype", "float64")
    return (
        f"verified in {modes} mode, {evidence['n_draws']} draws: largest relative change of an "
        f"output {max([evidence['error'], *evidence['errors'].values()]):.1e} ({dtype}); with the "
        f"net's own weights {evidence['own_error']:.1e} ({evidence['own_dtype']})"
    )


def _shortened(names: list[str], n: int = 6) -> str:
    """Return the first few names and how many more there are."""
    more = f" and {len(names) - n} more" if len(names) > n else ""
    return ", ".join(names[:n]) + more
