"""Finished nets in a folder: written whole, checked when read, shared between processes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sklmc.estimators._stacked import adopt
from sklmc.exceptions import SklmcWarning
from sklmc.models import read_state, write_state

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

FORMAT = 1


def versions() -> dict[str, str]:
    """Return the versions that trained weights may depend on."""
    return {
        "sklmc": sys.modules["sklmc"].__version__,
        "torch": torch.__version__,
        "skorch": importlib.metadata.version("skorch"),
        "format": str(FORMAT),
    }


def open_folder(path, caller: str) -> Path:
    """Return a folder that can be written into, made if it is not there."""
    folder = Path(path)
    probe = folder / f".probe.{os.getpid()}"
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
def keeping(folder: Path | None) -> Iterator[None]:
    """Say of whatever cannot be written that nothing is lost, and where it is."""
    try:
        yield
    except OSError as error:
        if folder is not None:
            error.add_note(
                f"ModelGrid: what is finished stays good in {str(folder)!r}; mend this, or choose "
                "another 'cache_dir', and fit again."
            )
        raise


def write_json(path: Path, value) -> None:
    """Write JSON under a temporary name first, unless the file is there."""
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process (or thread) holds a file, and hold it; a killed one lets go."""
    with open(path, "a+b") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            _lock_on_windows(file)
        yield


def _lock_on_windows(file) -> None:
    """Lock the first byte of a file; the call gives up after ten seconds, and is repeated."""
    while True:
        file.seek(0)
        try:
            return msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        except OSError:
            continue


@dataclass(frozen=True)
class Record:
    """One stored net: its tensors, and what else makes it a fitted net."""

    tensors: dict[str, torch.Tensor]
    notes: dict


def member_path(folder: Path, index: int) -> Path:
    """Return where a member of a cell is stored."""
    return folder / f"{index:05d}.safetensors"


def store_net(folder: Path, index: int, net, span: range, notes: Mapping) -> None:
    """Write a fitted net with its optimizer, its history and notes on where it comes from."""
    tensors = {f"module.{name}": value for name, value in net.module_.state_dict().items()}
    state = net.optimizer_.state_dict()
    plain: dict = {}
    for number, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{number}.{name}"] = value
            else:
                plain.setdefault(str(number), {})[name] = value
    content = {
        **notes,
        "index": index,
        "span": [span.start, span.stop],
        "history": _jsonable(net.history_.to_list()),
        "param_groups": _jsonable(state["param_groups"]),
        "optimizer_state": plain,
        "output_ndim": getattr(net, "_output_ndim", None),
    }
    content = json.loads(json.dumps(content))
    write_state(
        member_path(folder, index), tensors, {**content, "digest": _digest(tensors, content)}
    )


def read_records(folder: Path, span: range, seeds: list[int]) -> dict[int, Record]:
    """Return the good records of a span; a damaged file is named and moved aside."""
    records = {}
    for index in span:
        path = member_path(folder, index)
        for left in folder.glob(f".{path.name}.*.part"):  # of a process that was killed
            left.unlink(missing_ok=True)
        if not path.exists():
            continue
        try:
            tensors, notes = read_state(path)
            digest = notes.pop("digest", None)
            if digest != _digest(tensors, notes) or notes["seed"] != seeds[index]:
                raise ValueError("its content does not fit its checksum")
        except (ValueError, KeyError) as error:
            _move_aside(path, error)
            continue
        records[index] = Record(tensors, notes)
    return records


def restore_net(net, lead, record: Record) -> None:
    """Make an unfitted net the one that was stored; `lead` has seen the data."""
    adopt(net, lead)
    net.initialize()
    module = {
        name.removeprefix("module."): value
        for name, value in record.tensors.items()
        if name.startswith("module.")
    }
    net.module_.load_state_dict(module)
    state: dict = {
        int(number): dict(entries) for number, entries in record.notes["optimizer_state"].items()
    }
    for name, value in record.tensors.items():
        if name.startswith("optimizer."):
            _, number, entry = name.split(".", 2)
            state.setdefault(int(number), {})[entry] = value
    groups = [
        {key: tuple(value) if key == "betas" else value for key, value in group.items()}
        for group in record.notes["param_groups"]
    ]
    net.optimizer_.load_state_dict({"state": state, "param_groups": groups})
    net.history_.extend(record.notes["history"])
    if record.notes["output_ndim"] is not None:
        net._output_ndim = record.notes["output_ndim"]
    net._set_training(False)


def _digest(tensors: Mapping[str, torch.Tensor], notes: Mapping) -> str:
    """Return a checksum over all that a file holds."""
    digest = hashlib.sha256(json.dumps(notes, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _move_aside(path: Path, error: Exception) -> None:
    """Give a damaged file another name, and say so."""
    number = 0
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    os.replace(path, aside)
    warnings.warn(
        f"ModelGrid: {str(path)!r} is damaged ({error}). It was moved to {aside.name!r}, and the "
        "net is trained again.",
        SklmcWarning,
        stacklevel=2,
    )


def _jsonable(value):
    """Return histories and settings as plain lists, dicts and numbers; NaN stays a number."""
    if isinstance(value, Mapping):
        return {key: _jsonable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(part) for part in value]
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return value.tolist()
    return value
