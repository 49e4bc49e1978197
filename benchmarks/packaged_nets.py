"""Weights that come in packages, read without running what lies in their pickles."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import serialization


class Inert:
    """What stands in a checkpoint for an object of its package: nothing of that runs here."""

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


def read_checkpoint(path: Path) -> dict:
    """Return a checkpoint's tensors, numbers and texts; all else in it becomes Inert.

    torch's reader runs no code but that of the classes that it is allowed: here, stand-ins.
    """
    names = serialization.get_unsafe_globals_in_checkpoint(path)
    kinds = [(OrderedDict if name.endswith(".AttributeDict") else Inert, name) for name in names]
    with serialization.safe_globals(kinds):
        return torch.load(path, map_location="cpu", weights_only=True)
