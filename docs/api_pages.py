"""Find the public names of sklmc and write one reference page for each."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import sklmc


def public_rooms():
    """Return the modules whose ``__all__`` users import from: sklmc, then its rooms by name.

    A room without one, sklmc.models, is machinery: sklmc re-exports what users need of it.
    """
    rooms = [
        importlib.import_module(f"sklmc.{info.name}")
        for info in pkgutil.iter_modules(sklmc.__path__)
        if info.ispkg and not info.name.startswith("_")
    ]
    return [sklmc, *(room for room in rooms if hasattr(room, "__all__"))]


def public_names():
    """Return room name -> names, each object once: in sklmc where it is there, else in its room."""
    names, seen = {}, set()
    for room in public_rooms():
        names[room.__name__] = []
        for name in getattr(room, "__all__", ()):
            item = getattr(room, name)
            if id(item) not in seen:
                seen.add(id(item))
                names[room.__name__].append(name)
    return {room: found for room, found in names.items() if found}


def _summary(item):
    """Return the first paragraph of a docstring on one line, without marks of references."""
    first = (inspect.getdoc(item) or "").split("\n\n")[0]
    return " ".join(re.sub(r"\[\d+\]_", "", first).split())


def _object_page(path, item):
    """Return the page of one public name."""
    lines = [f":orphan:\n\n{path}", "=" * len(path), ""]
    if inspect.isclass(item):
        lines += [f".. autoclass:: {path}", "   :members:"]
    elif inspect.ismodule(item):
        lines += [f".. automodule:: {path}", "   :members:", "   :show-inheritance:"]
    elif callable(item):
        lines += [f".. autofunction:: {path}"]
    else:
        lines += [f".. autodata:: {path}"]
    return "\n".join(lines) + "\n"


def pages():
    """Return file name -> text of all reference pages, ``index.rst`` among them."""
    found = {}
    index = ["API reference", "=============", ""]
    for room, names in public_names().items():
        module = importlib.import_module(room)
        index += [room, "-" * len(room), "", _summary(module), "", ".. list-table::", ""]
        for name in names:
            item, path = getattr(module, name), f"{room}.{name}"
            found[f"{path}.rst"] = _object_page(path, item)
            index += [f"   * - :doc:`{name} <{path}>`", f"     - {_summary(item)}"]
        index += [""]
    title = "sklmc.exceptions"
    found[f"{title}.rst"] = _object_page(title, importlib.import_module(title))
    index += ["Errors and warnings", "-------------------", ""]
    index += [f"They are in :doc:`{title} <{title}>`; each also inherits a builtin one.", ""]
    found["index.rst"] = "\n".join(index)
    return found


def write_pages(folder):
    """Write the pages into a folder, leave equal files alone and remove those of names now gone."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for old in folder.glob("*.rst"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
