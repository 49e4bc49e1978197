"""Messages as bytes: tensors and JSON in the form of safetensors, with a digest; no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from sklmc._torch import torch_defaults
from sklmc.models import METADATA_KEY, content_digest

FORMAT = 1
LENGTH_BYTES = 8  # in front of the header


def pack(kind: str, notes: Mapping, tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Return a message as bytes."""
    tensors = {name: one.detach().cpu().clone().contiguous() for name, one in tensors.items()}
    notes = json.loads(json.dumps({**notes, "kind": kind, "format": FORMAT}))
    text = json.dumps({**notes, "digest": content_digest(tensors, notes)})
    return save(tensors, metadata={METADATA_KEY: text})


@torch_defaults(None)
def unpack(kind: str, data, caller: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Return tensors and notes of a message; whatever is wrong with it is a ValueError."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"{caller}: 'data' must be bytes, got {type(data).__name__}.")
    data = bytes(data)
    notes = _read_notes(data, caller)
    check_version(notes, kind, "'data'", caller)
    try:
        tensors = load(data)
    except SafetensorError:
        tensors = None
    digest = notes.pop("digest", None)
    if tensors is None or digest != content_digest(tensors, notes):
        raise ValueError(
            f"{caller}: 'data' is damaged or cut off ({len(data)} bytes do not fit their digest); "
            "have it sent again."
        )
    return tensors, notes


def check_version(notes: Mapping, kind: str, name: str, caller: str) -> None:
    """Refuse what is of another kind, or of a version that this one cannot know."""
    seen = notes.get("kind") if isinstance(notes, Mapping) else None
    if seen != kind:
        raise ValueError(f"{caller}: {name} holds {seen!r}, and {kind!r} is wanted.")
    version = notes.get("format")
    if version != FORMAT:
        raise ValueError(
            f"{caller}: {name} is of version {version!r} of the format, written by a newer sklmc; "
            f"this one reads version {FORMAT}: use the same sklmc everywhere."
        )


def _read_notes(data: bytes, caller: str) -> dict:
    """Return the notes in the header."""
    try:
        end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
        header = json.loads(data[LENGTH_BYTES:end])
        notes = json.loads(header["__metadata__"][METADATA_KEY])
    except (ValueError, LookupError, TypeError, RecursionError):
        notes = None
    if not isinstance(notes, dict):
        raise ValueError(
            f"{caller}: 'data' is no message of sklmc, or is cut off in its first part "
            f"({len(data)} bytes); pass what to_bytes returned."
        )
    return notes
