"""What a value is, in a few characters that are the same in every process."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import logging
import pickle
import types
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch

from sklmc.models._code import (
    SKIPPED_IN_CLASSES,
    imported_modules,
    is_library,
    is_library_module,
    library_code,
    library_version,
    loaded_names,
    used_names,
)
from sklmc.models._storage import raw_bytes

_BUILTIN = (
    types.BuiltinFunctionType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
_EXACT: tuple[type, ...] = (
    *(bool, int, float, str, bytes, complex),
    *(list, tuple, set, frozenset, dict, types.MappingProxyType),
)


class Unreadable(TypeError):
    """A value holds something that two processes cannot be sure to find equal."""


def fingerprint(*values) -> str:
    """Return 40 hexadecimal digits that differ when the values do.

    Classes and functions count with what they do: their bytecode, their bases, defaults, what
    they captured, and the globals that they name, all the way down. What comes from an installed
    library counts with its name, its source and the library's version. What code reads from
    files, from the environment or by names that it makes up is not seen.

    Raises
    ------
    Unreadable
        If a value holds something without such a description: a lock, an open file, ``eval``.
    """
    try:
        return _digest([_Contents().read(value) for value in values])
    except RecursionError:
        raise Unreadable("it is nested too deeply to be read") from None


def name_fingerprint(*values) -> str:
    """Return 40 hexadecimal digits like `fingerprint`, but know code by its name alone.

    They outlive a new version of the code, and seeds are made of them.
    """
    return _digest([_Names().read(value) for value in values])


def _digest(described: list) -> str:
    """Return 40 hexadecimal digits of what JSON can hold."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:40]


class _Names:
    """Turns values into what JSON can hold, tagged by their kind; code is its name."""

    def read(self, value):
        """Return what JSON can hold."""
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.generic):
            return self.read(value.item())
        if isinstance(value, torch.dtype | torch.device | bytes | complex | slice | range):
            return [type(value).__name__, str(value)]
        if isinstance(value, pd.DataFrame):
            return self.frame(value)
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        if isinstance(value, np.ndarray | pd.Series):
            return self.array(np.asarray(value))
        if isinstance(value, Mapping):
            pairs = [[self.read(key), self.read(part)] for key, part in self.items(value)]
            return ["mapping", sorted(pairs, key=repr)]
        if isinstance(value, set | frozenset):
            return ["set", self.members(value)]
        if isinstance(value, list | tuple):
            return [type(value).__name__, [self.read(part) for part in value]]
        if isinstance(value, functools.partial):
            parts = (value.func, value.args, value.keywords)
            return ["partial", [self.read(part) for part in parts]]
        if isinstance(value, type) or inspect.isroutine(value):
            return self.code(value)
        return self.object(value)

    def items(self, mapping: Mapping):
        """Return keys and values in any order."""
        return mapping.items()

    def members(self, values) -> list:
        """Return the members of a set in an order of their own."""
        return sorted((self.read(part) for part in values), key=repr)

    def frame(self, frame: pd.DataFrame):
        """Return names and content of a DataFrame."""
        return ["frame", [str(name) for name in frame.columns], self.array(frame.to_numpy())]

    def tensor(self, tensor: torch.Tensor):
        """Return the content of a tensor."""
        return ["tensor", self.array(tensor.detach().cpu().numpy())]

    def array(self, array: np.ndarray):
        """Return shape, dtype and digest of an array."""
        if array.dtype.hasobject:
            content = pickle.dumps(array.tolist(), protocol=4)
        else:
            content = np.ascontiguousarray(array).tobytes()
        return ["array", array.dtype.str, list(array.shape), hashlib.sha256(content).hexdigest()]

    def code(self, value):
        """Return the name of a class or a function."""
        return _name(value)

    def object(self, value):
        """Return the class and the settings of an object: its attributes, but for fitted ones."""
        try:
            settings = vars(value)
        except TypeError:  # no attributes: what it pickles to must do
            with contextlib.suppress(pickle.PicklingError, TypeError, AttributeError):
                return ["object", _name(type(value)), pickle.dumps(value, protocol=4).hex()]
            return ["object", _name(type(value))]
        return ["object", _name(type(value)), self.read(_unfitted(settings))]


class _Contents(_Names):
    """Reads code for what it does.

    Functions and classes are numbered when first met, and known by their number from then on, so
    that code may name itself. All orders are made from content: none depends on hashes or ids.
    """

    def __init__(self):
        self._numbers = {}  # of functions and classes, by id
        self._open = {}  # containers and objects that are being read, by id
        self._alive = []  # ids are unique among the living

    def read(self, value):
        if isinstance(value, np.generic):
            return self.read(value.item())
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, types.ModuleType):
            return self._module(value, None)
        if isinstance(value, torch.Tensor | np.ndarray | pd.DataFrame | pd.Series | type):
            return super().read(value)
        if inspect.isroutine(value) or isinstance(value, staticmethod | classmethod | property):
            return self.code(value)
        foreign = isinstance(value, (Mapping, *_EXACT)) and type(value) not in _EXACT
        return self._read_once(value, self.object if foreign else super().read, value)

    def _read_once(self, value, read: Callable, *arguments):
        """Read a value, or say that it is being read already."""
        if id(value) in self._open:
            return ["again", self._open[id(value)]]
        self._alive.append(value)
        self._open[id(value)] = len(self._open)
        try:
            return read(*arguments)
        finally:
            del self._open[id(value)]

    def items(self, mapping: Mapping):
        """Return keys and values in the order of the keys' content."""
        return sorted(mapping.items(), key=lambda pair: _order(pair[0]))

    def members(self, values) -> list:
        """Return the members of a set, each read by itself."""
        return sorted(map(fingerprint, values))

    def frame(self, frame: pd.DataFrame):
        """Return names and content of a DataFrame, column by column."""
        columns = [frame.iloc[:, place].to_numpy() for place in range(frame.shape[1])]
        return ["frame", [str(name) for name in frame.columns], list(map(self.array, columns))]

    def tensor(self, tensor: torch.Tensor):
        """Return dtype, shape and digest of a tensor."""
        if tensor.is_meta or tensor.layout is not torch.strided or tensor.is_quantized:
            raise Unreadable(f"a tensor on {tensor.device} of layout {tensor.layout} has no bytes")
        digest = hashlib.sha256(raw_bytes(tensor)).hexdigest()
        return ["tensor", str(tensor.dtype), list(tensor.shape), digest]

    def array(self, array: np.ndarray):
        """Return shape, dtype and digest of an array; objects one by one."""
        if not array.dtype.hasobject:
            return super().array(array)
        return ["array", array.dtype.str, list(array.shape), self.read(array.tolist())]

    def code(self, value):
        """Return what a class, a function, a method or a descriptor does."""
        if isinstance(value, staticmethod | classmethod):
            return [type(value).__name__, self.read(value.__func__)]
        if isinstance(value, property):
            return ["property", [self.read(part) for part in (value.fget, value.fset, value.fdel)]]
        if isinstance(value, types.MethodType):
            return ["method", self.read(value.__func__), self.read(value.__self__)]
        if isinstance(value, _BUILTIN):
            owner = getattr(value, "__self__", None)
            plain = owner is None or isinstance(owner, types.ModuleType | type)
            return [*_name(value), None if plain else self.read(owner)]
        if is_library(value):
            return library_code(value)
        if id(value) in self._numbers:
            return ["code", self._numbers[id(value)]]
        self._alive.append(value)
        number = self._numbers[id(value)] = len(self._numbers)
        if isinstance(value, type):
            return ["class", number, *_name(value), *self._class(value)]
        if isinstance(value, types.FunctionType):
            return ["function", number, *_name(value), *self._function(value)]
        if hasattr(value, "__wrapped__"):  # functools.cache and its kin
            return ["wrapper", number, *_name(type(value)), self.read(value.__wrapped__)]
        return self.object(value)

    def _class(self, kind: type) -> list:
        """Return bases, metaclass and members of a class."""
        members = {
            name: part for name, part in vars(kind).items() if name not in SKIPPED_IN_CLASSES
        }
        return [
            [self.read(base) for base in kind.__bases__],
            self.read(type(kind)),
            [[name, self.read(part)] for name, part in sorted(members.items())],
        ]

    def _function(self, function: types.FunctionType) -> list:
        """Return bytecode, defaults, attributes, what is captured and the globals named."""
        code, names = function.__code__, used_names(function.__code__)
        captured = [self._captured(cell, names) for cell in function.__closure__ or ()]
        return [
            self._bytecode(code),
            self.read(function.__defaults__),
            self.read(function.__kwdefaults__),
            self.read({k: v for k, v in vars(function).items() if k != "__wrapped__"}),
            captured,
            self._globals(function, names),
        ]

    def _bytecode(self, code: types.CodeType) -> list:
        """Return what a code object holds, without where it was written."""
        return [
            (code.co_code + code.co_exceptiontable).hex(),
            [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags],
            [list(part) for part in (code.co_names, code.co_varnames, code.co_freevars)],
            list(code.co_cellvars),
            [
                self._bytecode(part) if isinstance(part, types.CodeType) else self.read(part)
                for part in code.co_consts
            ],
        ]

    def _captured(self, cell, names: set[str]):
        """Return what a closure holds in one of its cells."""
        try:
            value = cell.cell_contents
        except ValueError:
            return ["empty"]
        return self._reach(value, names)

    def _globals(self, function: types.FunctionType, names: set[str]) -> list:
        """Return the globals that a function of the user's names, and the modules it imports."""
        around = function.__globals__
        if is_library_module(around.get("__name__", "")):
            return []
        found = []
        for name in sorted(loaded_names(function.__code__)):
            if name in around:
                found.append([name, self._reach(around[name], names)])
            elif name in ("eval", "exec", "globals", "__import__"):
                raise Unreadable(f"{function.__qualname__} calls {name}, which can read anything")
        imported = imported_modules(function)
        return [*found, *([module.__name__, self._module(module, names)] for module in imported)]

    def _reach(self, value, names: set[str]):
        """Return what code that uses these names can see of a value."""
        is_module = isinstance(value, types.ModuleType)
        return self._module(value, names) if is_module else self.read(value)

    def _module(self, module: types.ModuleType, names: set[str] | None):
        """Return the name of a library's module; of the user's, the attributes that are used."""
        if is_library_module(module.__name__):
            return ["module", module.__name__, library_version(module.__name__)]
        if names is None:
            raise Unreadable(f"what is used of the module {module.__name__!r} is not known")
        return self._read_once(module, self._members, module, names)

    def _members(self, module: types.ModuleType, names: set[str]) -> list:
        """Return the attributes of a module that are used."""
        used = sorted(names & vars(module).keys())
        found = [[name, self._reach(vars(module)[name], names)] for name in used]
        return ["module", module.__name__, found]

    def object(self, value):
        """Return the class and the state of an object; of an estimator, what it was set to."""
        kind = type(value)
        if isinstance(value, logging.Logger):
            return ["logger", value.name]
        if hasattr(value, "get_params"):
            return ["object", self.read(kind), self.read(_unfitted(vars(value)))]
        try:
            parts = value.__reduce_ex__(4)
        except (TypeError, pickle.PicklingError, AttributeError, RuntimeError) as error:
            raise Unreadable(f"a {kind.__qualname__} cannot be read ({error})") from None
        if isinstance(parts, str):  # the name of a global
            return ["global", getattr(value, "__module__", None), parts]
        maker, arguments, *state = parts
        state = [
            part if part is None or place == 0 else list(part) for place, part in enumerate(state)
        ]
        return ["object", self.read(kind), *map(self.read, (maker, tuple(arguments), *state[:3]))]


def _name(value) -> list:
    """Return the name of a class or a function."""
    return ["code", getattr(value, "__module__", None), getattr(value, "__qualname__", repr(value))]


def _order(key) -> str:
    """Return what keys are sorted by."""
    return repr(key) if isinstance(key, str | int | float | None) else fingerprint(key)


def _unfitted(settings: Mapping) -> dict:
    """Return attributes without those that a fit made."""
    return {name: part for name, part in settings.items() if not name.endswith("_")}
