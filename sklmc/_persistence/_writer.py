"""From a model to plain values and tensors."""

from __future__ import annotations

import copyreg
import pickle
import types
from pathlib import PurePath

import numpy as np
import pandas as pd
import torch
from skorch import NeuralNet

from sklmc._persistence._known import may_be_bound, may_be_called, name_of
from sklmc._persistence._tensors import TensorShelf
from sklmc.models import Unreadable, fingerprint

_SHORT = 64  # entries of an array that a reader of the JSON may want to see
_INSIDE_MODULES = ("_modules", "_parameters", "_buffers")  # left out of the names of tensors


class Unsaveable(TypeError):
    """Something in a model has no place in a file."""


class Writer:
    """Turns values into what JSON can hold; tensors go to a shelf.

    Every value but None, numbers and text becomes a dict of one kind (``{"list": [...]}``). What
    is met a second time becomes ``{"again": number}``, so that it is one thing again when read.
    """

    def __init__(self) -> None:
        self.shelf = TensorShelf()
        self.foreign: dict[str, str | None] = {}  # names that the reader must bring: their code
        self.known: set[str] = set()
        self.nets: list[NeuralNet] = []
        self._n_shared = 0
        self._nodes: dict[int, dict] = {}
        self._alive: list = []  # ids are unique among the living

    def write(self, value, path: str = ""):
        """Return the node of a value that stands at `path` in the model."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if id(value) in self._nodes:
            met = self._nodes[id(value)]
            if "number" not in met:
                self._n_shared += 1
                met["number"] = self._n_shared
            return {"again": met["number"]}
        node = self._nodes[id(value)] = {}
        self._alive.append(value)
        try:
            node.update(self._node(value, path))
        except (TypeError, ValueError, pickle.PicklingError, RuntimeError) as error:
            if isinstance(error, Unsaveable):
                raise
            raise Unsaveable(
                f"{self._place(path)} is a {type(value).__module__}.{type(value).__qualname__}, "
                f"which has no place in a file ({str(error).splitlines()[0]}); take it out"
            ) from None
        if node.keys() <= {"name", "dtype", "device"}:  # written out wherever it is met
            del self._nodes[id(value)]
        return node

    def _node(self, value, path: str) -> dict:
        """Return what describes a value that is met for the first time."""
        kind = type(value)
        if kind in (list, tuple, set, frozenset):
            values = sorted(value, key=repr) if kind in (set, frozenset) else value
            return {kind.__name__: [self.write(v, f"{path}.{i}") for i, v in enumerate(values)]}
        if kind in (dict, types.MappingProxyType):
            return {"dict": self._pairs(value.items(), path)}
        if isinstance(value, torch.Tensor):
            return {"tensor": self.shelf.put(value, self._place(path))}
        if isinstance(value, torch.dtype):
            return {"dtype": f"torch.{str(value).removeprefix('torch.')}"}
        if isinstance(value, np.dtype):
            return {"dtype": _array_dtype(value)}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, np.ma.MaskedArray):
            parts = (np.asarray(value.data), np.ma.getmaskarray(value), value.fill_value)
            return {"masked": [self.write(part, f"{path}.{i}") for i, part in enumerate(parts)]}
        if kind is np.ndarray:
            return {"array": self._array(value, path)}
        if isinstance(value, np.generic):
            return {"scalar": self._array(np.asarray(value), path)}
        if kind is pd.DataFrame:
            return {"frame": self._frame(value, path)}
        if isinstance(value, np.random.RandomState):
            return {"random": self.write(value.get_state(legacy=False), path)}
        if isinstance(value, bytes):
            return {"bytes": value.hex()}
        if isinstance(value, PurePath):
            return {"path": str(value)}
        if kind in (slice, range):
            return {kind.__name__: [value.start, value.stop, value.step]}
        if isinstance(value, types.MethodType):
            return {"method": self._method(value, path)}
        if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            return {"name": self._name(value, path)}
        return self._object(value, path)

    def _object(self, value, path: str) -> dict:
        """Return the class of an object, and what it is made of."""
        kind = type(value)
        name = self._name(kind, path)
        if isinstance(value, NeuralNet):  # skorch's own road is torch.save, a pickle
            self.nets.append(value)
            return {"object": name, "state": self.write(dict(vars(value)), path)}
        maker, arguments, state, items, pairs = (*value.__reduce_ex__(4), None, None, None)[:5]
        node: dict = {"object": name}
        if maker is copyreg.__newobj__ and arguments[0] is kind:
            arguments = arguments[1:]
        elif maker is kind and (name in self.foreign or may_be_called(name)):
            node["called"] = True
        else:
            raise TypeError(f"it is made by {maker!r}")
        if arguments:
            node["arguments"] = [self.write(v, f"{path}.{i}") for i, v in enumerate(arguments)]
        if items is not None:
            node["items"] = [self.write(v, f"{path}.{i}") for i, v in enumerate(items)]
        if pairs is not None:
            node["pairs"] = self._pairs(pairs, path)
        if state is not None:
            node["state"] = self.write(state, path)
        return node

    def _name(self, value, path: str) -> str:
        """Return the name of a class or function; the reader must bring those not known."""
        name, known = name_of(value)
        if "<lambda>" in name or getattr(value, "__closure__", None):
            raise Unsaveable(
                f"{self._place(path)} is the function {name!r}, which cannot be found by its name; "
                "write it as a function of a module, or as a class"
            )
        if known:
            self.known.add(name)
        elif name not in self.foreign:
            self.foreign[name] = code_of(value)
        return name

    def _method(self, value: types.MethodType, path: str) -> list:
        """Return the object of a bound method, and the method's name."""
        owner, name = value.__self__, value.__name__
        if not (self._name(type(owner), path) in self.foreign or may_be_bound(owner, name)):
            raise TypeError("a bound method; call it where it is needed instead of keeping it")
        return [self.write(owner, path), name]

    def _pairs(self, pairs, path: str) -> list:
        """Return keys and values as pairs, in their order."""
        return [
            [self.write(key, f"{path}.key"), self.write(part, f"{path}.{_text(key)}")]
            for key, part in pairs
        ]

    def _array(self, array: np.ndarray, path: str) -> dict:
        """Return a short array as a list, a long one as a tensor of its bytes."""
        node: dict = {"dtype": _array_dtype(array.dtype), "shape": list(array.shape)}
        fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        flat = array.ravel(order="F" if fortran else "C")
        node["order"] = "F" if fortran else "C"
        plain = array.dtype.kind in "biufU" and array.dtype.itemsize <= 8 and array.size <= _SHORT
        if array.dtype.kind in "OU" or plain:
            node["values"] = [self.write(v, f"{path}.{i}") for i, v in enumerate(flat.tolist())]
        else:
            content = flat.view(np.uint8).copy()
            node["bytes"] = self.shelf.put(torch.from_numpy(content), self._place(path))
        return node

    def _frame(self, frame: pd.DataFrame, path: str) -> dict:
        """Return a DataFrame column by column."""
        if not isinstance(frame.index, pd.RangeIndex):
            raise TypeError("it has an index of its own")
        columns = [[self.write(c, path), self.write(frame[c].to_numpy(), path)] for c in frame]
        return {"length": len(frame), "columns": columns}

    def _place(self, path: str) -> str:
        """Return where in the model something is; tensors are named by it."""
        parts = [part for part in path.split(".") if part and part not in _INSIDE_MODULES]
        return ".".join(parts) or "the model"


def code_of(value) -> str | None:
    """Return a digest of what a class or function does; None where its code cannot be read."""
    try:
        return fingerprint(value)
    except Unreadable:
        return None


def _array_dtype(dtype: np.dtype) -> str:
    """Return the name of a dtype that the name says all of."""
    if dtype.kind == "O" or np.dtype(dtype.str) != dtype:
        if dtype.kind != "O":
            raise TypeError(f"an array of dtype {dtype}")
        return "object"
    return dtype.str


def _text(key) -> str:
    """Return a key of a dict as part of a path."""
    return key if isinstance(key, str) else repr(key) if isinstance(key, int | float) else "item"
