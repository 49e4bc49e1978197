"""What code reads when it runs: names, imports, and whether a library or the user wrote it."""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path

_STDLIB = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))

# Of a class: what only describes it, or is made anew in every process.
SKIPPED_IN_CLASSES = {
    *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__"),
    *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
    *("__static_attributes__", "__dataclass_fields__", "__dataclass_params__", "__match_args__"),
    *("__abstractmethods__", "_abc_impl", "_backward_cls"),
    "__slotnames__",  # what pickle and copy leave behind
}


@functools.cache
def is_library_module(name: str) -> bool:
    """Say whether a module is part of Python, of an installed library or of sklmc."""
    if name in ("", "__main__"):
        return False
    top = name.partition(".")[0]
    if top == __name__.partition(".")[0] or top in sys.builtin_module_names:
        return True
    for module in (sys.modules.get(name), sys.modules.get(top)):
        file = getattr(module, "__file__", None)
        if file is not None:
            path = Path(file)
            installed = {"site-packages", "dist-packages"} & set(path.parts)
            return bool(installed) or any(path.is_relative_to(home) for home in _STDLIB)
    return top in sys.stdlib_module_names


def is_library(value) -> bool:
    """Say whether a class or function is found under its name in a library.

    What a library's function returned (a wrapper, a class made on the fly) is not.
    """
    if isinstance(value, types.FunctionType):
        home = value.__globals__.get("__name__", "")
    else:
        home = getattr(value, "__module__", None) or ""
    if not is_library_module(home):
        return False
    found = sys.modules.get(home)
    for name in getattr(value, "__qualname__", "").split("."):
        found = inspect.getattr_static(found, name, None)
        if isinstance(found, staticmethod | classmethod):
            found = found.__func__
    return found is value


@functools.cache
def library_code(value) -> list:
    """Return name, version and digest of the source of a library's class or function."""
    text = ""
    with contextlib.suppress(OSError, TypeError):  # built in
        text = inspect.getsource(value)
    digest, home = hashlib.sha256(text.encode()).hexdigest(), value.__module__
    return ["library", home, value.__qualname__, library_version(home), digest]


def library_version(module: str) -> str | None:
    """Return the version that a library states."""
    return str(getattr(sys.modules.get(module.partition(".")[0]), "__version__", None))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code object and all that are defined inside of it."""
    yield code
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _codes(part)


def used_names(code: types.CodeType) -> set[str]:
    """Return all names of globals and attributes in a code object."""
    return {name for part in _codes(code) for name in part.co_names}


def loaded_names(code: types.CodeType) -> set[str]:
    """Return the names of the globals that a code object reads."""
    return {
        step.argval
        for part in _codes(code)
        for step in dis.get_instructions(part)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    }


def imported_modules(function: types.FunctionType) -> list[types.ModuleType]:
    """Return the modules that a function imports when it runs; those that fail are left out."""
    package = function.__globals__.get("__package__") or ""
    found = {}
    for part in _codes(function.__code__):
        level = 0
        for step in dis.get_instructions(part):
            if step.opname == "LOAD_CONST" and isinstance(step.argval, int):
                level = step.argval
            if step.opname != "IMPORT_NAME":
                continue
            with contextlib.suppress(ImportError, ValueError):
                name = importlib.util.resolve_name("." * level + step.argval, package)
                found[name] = importlib.import_module(name)
            level = 0
    return [found[name] for name in sorted(found)]
