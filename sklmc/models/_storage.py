"""States and finished work on disk: written whole or not at all, checked when read; no pickle.

A file holds tensors (safetensors) and JSON. A record is a file of a folder that processes share.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import sys
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sklmc._torch import torch_defaults
from sklmc._validation import check_path
from sklmc.exceptions import SklmcWarning

METADATA_KEY = "sklmc"
FORMAT = 1
STAYS_GOOD = "what is finished stays good in"


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name; the file written under it takes the place of `path` at the end."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_state(
    path, state: Mapping[str, torch.Tensor], metadata: Mapping | None = None, caller="write_state"
) -> None:
    """Write tensors and JSON-able metadata to one file, under a temporary name first.

    Raises
    ------
    OSError
        If the file cannot be written, whatever the reason; what was there before stays.
    """
    path = Path(path)
    # safetensors refuses tensors that share memory (tied weights), hence copies
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    text = json.dumps(dict(metadata or {}))
    try:
        with _replacing(path) as temporary:
            save_file(tensors, temporary, metadata={METADATA_KEY: text})
    except (OSError, SafetensorError) as error:  # safetensors says so of a full disk
        number = (error.errno,) if getattr(error, "errno", None) else ()
        raise OSError(
            *number,
            f"{caller}: {str(path)!r} cannot be written ({error}); free some space there, or "
            "choose a folder that can be written into.",
        ) from None


@torch_defaults(None)
def read_state(path, caller: str = "read_state") -> tuple[dict[str, torch.Tensor], dict]:
    """Read what `write_state` wrote; a damaged or foreign file is named in a ValueError."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{caller}: there is no file {str(path)!r}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})[METADATA_KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise ValueError(
            f"{caller}: {str(path)!r} is damaged or was not written by sklmc ({error}); "
            "delete it or move it away."
        ) from None


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a dense tensor, in the order of its elements."""
    return _as_bytes(tensor.detach().cpu().resolve_conj().resolve_neg()).numpy().data


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor; a single number counts as contiguous whatever its stride."""
    plain = tensor.contiguous()
    return plain.as_strided((plain.numel(),), (1,)).view(torch.uint8)


def state_fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """Return a short digest of a state's names, shapes, dtypes and values."""
    digest = hashlib.sha256()
    for (name, tensor), content in zip(state.items(), _bytes_of_all(state.values())):
        about = (name, tuple(tensor.shape), str(tensor.dtype), zlib.crc32(content))
        digest.update(repr(about).encode())
    return digest.hexdigest()[:32]


def _bytes_of_all(tensors: Iterable[torch.Tensor]) -> Iterator[memoryview]:
    """Yield the bytes of tensors; all that lie on one accelerator are fetched at once."""
    tensors = list(tensors)
    if any(t.device.type == "cpu" or t.device != tensors[0].device for t in tensors):
        yield from map(raw_bytes, tensors)
        return
    parts = [_as_bytes(t.detach()) for t in tensors]
    joined, start = torch.cat(parts).cpu().numpy().data if parts else memoryview(b""), 0
    for part in parts:
        yield joined[start : start + len(part)]
        start += len(part)


@dataclass(frozen=True)
class Record:
    """One finished piece: its tensors, and what else belongs to it as JSON."""

    tensors: dict[str, torch.Tensor]
    notes: dict


def versions(*packages: str) -> dict[str, str]:
    """Return the versions that a result may depend on: ours, torch's and those of `packages`."""
    return {
        "sklmc": sys.modules["sklmc"].__version__,
        "torch": torch.__version__,
        **{name: importlib.metadata.version(name) for name in packages},
        "format": str(FORMAT),
    }


def open_folder(path, caller: str) -> Path:
    """Return a folder that can be written into, made if it is not there."""
    folder = check_path(path, caller, "cache_dir")
    probe = folder / f".probe.{os.getpid()}-{threading.get_ident()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"{caller}: 'cache_dir' {str(folder)!r} cannot be written into ({error}); choose "
            "another folder, or None."
        ) from None
    return folder


@contextlib.contextmanager
def keeping(folder: Path, caller: str) -> Iterator[None]:
    """Say of whatever cannot be written that nothing is lost, and where it is."""
    try:
        yield
    except OSError as error:
        error.add_note(
            f"{caller}: {STAYS_GOOD} {str(folder)!r}; mend this, or choose another 'cache_dir', "
            "and start again."
        )
        raise


def locked(path: Path) -> FileLock:
    """Wait until no other process (or thread) holds a file, and hold it; a killed one lets go."""
    return FileLock(path)


def write_json(path: Path, value) -> None:
    """Write JSON under a temporary name first, unless the file is there."""
    if path.exists():
        return
    with _replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_record(
    path: Path, tensors: Mapping[str, torch.Tensor], notes: Mapping, caller: str = "write_state"
) -> None:
    """Write tensors and notes with a checksum over both."""
    notes = json.loads(json.dumps(notes))
    write_state(path, tensors, {**notes, "digest": content_digest(tensors, notes)}, caller)


def read_record(path: Path, expected: Mapping, caller: str) -> Record | None:
    """Return what a file holds; a damaged one is named, moved aside and counts as missing.

    Its notes must hold what is `expected`. The caller holds the lock, so that
    no other process writes: files that are half written are of one that was killed.
    """
    for left in path.parent.glob(f".{path.name}.*.part"):
        left.unlink(missing_ok=True)
    if not path.exists():
        return None
    try:
        tensors, notes = read_state(path, caller)
        digest = notes.pop("digest", None)
        if digest != content_digest(tensors, notes) or not expected.items() <= notes.items():
            raise ValueError("its content does not fit its checksum")
    except (ValueError, KeyError) as error:
        _move_aside(path, error, caller)
        return None
    return Record(tensors, notes)


def content_digest(tensors: Mapping[str, torch.Tensor], notes: Mapping) -> str:
    """Return a checksum over all that a file holds."""
    digest = hashlib.sha256(json.dumps(notes, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(raw_bytes(value))
    return digest.hexdigest()


def _move_aside(path: Path, error: Exception, caller: str) -> None:
    """Give a damaged file another name, and say so."""
    number = 0
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    os.replace(path, aside)
    warnings.warn(
        f"{caller}: {str(path)!r} is damaged ({error}). It was moved to {aside.name!r}, and what "
        "it held is computed again.",
        SklmcWarning,
        stacklevel=2,
    )
