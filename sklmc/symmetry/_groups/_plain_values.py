"""Groups as plain values that JSON can hold, checked where they are read back, and checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from sklmc.symmetry._groups._group import PermutationGroup


def checksum(values: Mapping) -> str:
    """Return the SHA-256 of values as canonical JSON: sorted keys, no spaces, ASCII."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_size(value) -> int:
    """Return a size; anything else is damage."""
    require(type(value) is int and value >= 0, f"{value!r} is no size")
    return value


def require(holds, what: str) -> None:
    """Raise where a part of a spec does not fit the others."""
    if not holds:
        raise ValueError(what)


def group_to_dict(group: PermutationGroup) -> dict:
    """Return a group as plain values."""
    return {
        "name": group.name,
        "size": group.size,
        "within": list(group.within),
        "outer_sizes": list(group.outer_sizes),
        "places": [list(place) for place in group.places],
        "unobservable": list(group.unobservable),
    }


def group_from_dict(entry: Mapping) -> PermutationGroup:
    """Return the group written by `group_to_dict`; what does not fit raises any error."""
    group = PermutationGroup(
        entry["name"],
        read_size(entry["size"]),
        tuple(entry["within"]),
        tuple(map(read_size, entry["outer_sizes"])),
        tuple((tensor, read_size(axis)) for tensor, axis in entry["places"]),
        tuple(entry["unobservable"]),
    )
    names = (group.name, *group.within, *group.unobservable, *(name for name, _ in group.places))
    require(all(isinstance(name, str) for name in names), "a name is no text")
    require(len(group.within) == len(group.outer_sizes), f"{group.name!r} lacks an outer size")
    return group
