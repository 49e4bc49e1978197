"""Symmetries that this process has found already: one trace per architecture, not one per net."""

from __future__ import annotations

import hashlib
import io
import pickle
import threading
import types

import torch

from sklmc.models import ModelView, fingerprint
from sklmc.symmetry._discovery import discover_symmetry
from sklmc.symmetry._symmetry import PermutationSymmetry
from sklmc.symmetry._tracing._tensors import constant_digests

_LARGEST = 128  # architectures kept; the oldest goes first
# the module classes stay alive with their symmetry: their ids are part of the key
_found: dict[str, tuple[PermutationSymmetry, set[type]]] = {}
_lock = threading.Lock()


def cached_symmetry(model: ModelView, X=None) -> PermutationSymmetry:
    """Return the proved symmetry of a model, discovered at most once per architecture.

    What counts as one architecture is everything that the forward pass can read: the module's
    whole Python state, what its classes and functions do, the shapes of its tensors, the values of
    its constants, and the shape of the input without its first axis. A module of which this cannot
    be read is discovered afresh.
    """
    key = architecture_key(model, model.sample(X))
    if key is None:
        return discover_symmetry(model, X)
    with _lock:
        if key in _found:
            return _found[key][0]
    symmetry = discover_symmetry(model, X)
    with _lock:
        while len(_found) >= _LARGEST:
            del _found[next(iter(_found))]
        _found[key] = symmetry, {type(part) for part in model.module.modules()}
    return symmetry


def architecture_key(model: ModelView, sample: tuple[torch.Tensor, ...]) -> str | None:
    """Return a digest of a module's structure and input, None where it cannot be read."""
    buffer = io.BytesIO()
    pickler = _StructurePickler(buffer, model)
    kinds = {type(part) for part in model.module.modules()}
    try:
        pickler.dump(model.module)
        # a class that was defined anew in a notebook keeps its name: its id tells, and what it
        # does tells whether a function or a constant that it reads was defined anew
        classes = sorted((id(kind), fingerprint(kind)) for kind in kinds)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError):
        return None
    constants = sorted(constant_digests(model.original).items())
    shapes = [(tuple(part.shape[1:]), str(part.dtype)) for part in sample]
    parts = (buffer.getvalue(), repr(constants).encode(), repr((shapes, classes)).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


class _StructurePickler(pickle.Pickler):
    """Pickles a module with the shapes of its state's tensors in place of their values.

    Which names share a tensor is part of the structure: each tensor is numbered when first met.
    Tensors that are neither parameters nor buffers are constants of the forward pass: their
    values count. So does what functions do.
    """

    def __init__(self, file, model: ModelView):
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        module = model.module
        self._named = {id(t) for t in (*module.parameters(), *module.buffers())}
        self._numbers: dict[int, int] = {}

    def persistent_id(self, obj):
        if isinstance(obj, types.FunctionType):  # pickle would take its name alone
            return "function", fingerprint(obj)
        if not isinstance(obj, torch.Tensor):
            return None
        number = self._numbers.setdefault(id(obj), len(self._numbers))
        about = (number, tuple(obj.shape), str(obj.dtype), type(obj).__name__)
        return about if id(obj) in self._named else (*about, obj.detach().cpu().tolist())
