"""States on disk: safetensors with JSON metadata, written whole or not at all; never pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sklmc._torch import torch_defaults

METADATA_KEY = "sklmc"


def write_state(path, state: Mapping[str, torch.Tensor], metadata: Mapping | None = None) -> None:
    """Write tensors and JSON-able metadata to one file, under a temporary name first.

    Raises
    ------
    OSError
        If the file cannot be written, whatever the reason; what was there before stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    # safetensors refuses tensors that share memory (tied weights), hence copies
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    text = json.dumps(dict(metadata or {}))
    try:
        save_file(tensors, temporary, metadata={METADATA_KEY: text})
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:  # safetensors says so of a full disk
        number = (error.errno,) if getattr(error, "errno", None) else ()
        raise OSError(
            *number,
            f"write_state: {str(path)!r} cannot be written ({error}); free some space there, or "
            "choose a folder that can be written into.",
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@torch_defaults(None)
def read_state(path) -> tuple[dict[str, torch.Tensor], dict]:
    """Read what `write_state` wrote; a damaged or foreign file is named in a ValueError."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"read_state: there is no file {str(path)!r}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})[METADATA_KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise ValueError(
            f"read_state: {str(path)!r} is damaged or was not written by sklmc ({error}); "
            "delete it or move it away."
        ) from None


def state_fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """Return a short digest of a state's names, shapes, dtypes and values."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        about = (name, tuple(tensor.shape), str(tensor.dtype), zlib.crc32(values))
        digest.update(repr(about).encode())
    return digest.hexdigest()[:32]
