"""load_model: a file into a model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from sklmc._persistence._known import name_of
from sklmc._persistence._reader import Reader
from sklmc._persistence._saving import CONTENT, FORMAT, VERSION, WITNESS
from sklmc._persistence._witness import disagree
from sklmc._persistence._writer import code_of
from sklmc._torch import torch_defaults, usable_device
from sklmc._validation import check_read_path
from sklmc.exceptions import ArchitectureMismatchError, SklmcWarning
from sklmc.models import content_digest, read_state


def load_model(path, module=None):
    """Read a model that `save_model` wrote.

    It predicts the same to the bit, has the same parameters, and can be cloned, fitted again or
    trained further. Nothing of the file is run: a class or function that it names is taken from a
    list of known ones (of sklmc, torch.nn and torch.optim, skorch, scikit-learn), or from
    `module`; there is no third way.

    Parameters
    ----------
    path : str or path-like
        The file.
    module : class, function, or list of them, default=None
        What the model holds that is your own: the class of its module first of all. Classes
        are known by their names. One whose code is not what it was must still compute what it
        computed then.

    Returns
    -------
    model : object of the class that was saved
        On the device that it was on, where this machine has it, else on the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ArchitectureMismatchError
        If `module` is not what the file needs, or computes something else than it did
        (a ValueError).
    ValueError
        If the file is damaged or cut off (its digest, over every tensor and all of the JSON, does
        not fit), was written by a newer version of the format, or holds no model of sklmc.
    TypeError
        If `module` is neither class nor function.

    Warns
    -----
    SklmcWarning
        If the code of a class in `module` is not what it was and nothing tells whether it still
        computes the same, or if the device is not there.

    See Also
    --------
    save_model : Writes the file.

    Notes
    -----
    The digest finds damage, not malice: whoever can write the file can write a digest. What a
    forged file can do is confined to the known classes, without a call of their methods.

    Examples
    --------
    >>> import os, tempfile
    >>> import torch
    >>> from sklmc import load_model, save_model
    >>> class Net(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.first, self.last = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)
    ...     def forward(self, x):
    ...         return self.last(self.first(x).relu())
    >>> path = os.path.join(tempfile.mkdtemp(), "net.safetensors")
    >>> net = Net()
    >>> save_model(net, path)
    >>> again = load_model(path, module=Net)
    >>> torch.equal(again.last.weight, net.last.weight)
    True
    """
    caller = "load_model"
    path = check_read_path(path, caller)
    return _load(path, _given(module, caller), caller)


@torch_defaults(None)
def _load(path: Path, given: list, caller: str):
    """Return the model in a file; `given` are classes and functions that the caller brings."""
    tensors, notes = _read(path, caller)
    brought = _match(notes, given, path, caller)

    before = {
        name.removeprefix(WITNESS): tensors.pop(name)
        for name in list(tensors)
        if name.startswith(WITNESS)
    }
    reader = Reader(tensors, brought)
    try:
        model = reader.read(json.loads(tensors[CONTENT].numpy().tobytes()))
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        libraries = _text(notes.get("versions"))
        raise ArchitectureMismatchError(
            f"{caller}: 'path' holds a model that cannot be made again here: "
            f"{type(error).__name__}: {error}; it was saved with {libraries}: use these versions, "
            "or the classes as they were."
        ) from None
    nets = reader.nets or ([model] if isinstance(model, nn.Module) else [])
    _check_code(notes, brought, before, nets, caller)
    _check_devices(reader.nets, caller)
    return model


def _read(path: Path, caller: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Return tensors and notes of a file whose digest fits."""
    try:
        tensors, notes = read_state(path, caller)
        if not isinstance(notes, dict) or notes.get("format") != FORMAT:
            raise ValueError("it holds no model of sklmc")
        version = notes.get("version")
        if isinstance(version, int) and version > VERSION:
            raise ValueError(
                f"its format is newer, version {version}, and sklmc here knows version {VERSION}: "
                f"update sklmc; written with {_text(notes.get('versions'))}"
            )
        if not isinstance(notes.get("foreign"), dict) or CONTENT not in tensors:
            raise ValueError("it holds no whole model")
        if notes.pop("digest", None) != content_digest(tensors, notes):
            raise ValueError("its content does not fit its digest")
    except ValueError as error:
        raise ValueError(
            f"{caller}: 'path' names no model that can be loaded, {str(path)!r}: {error}. It was "
            "damaged or cut off, or was not written by save_model of this version: take an intact "
            "copy, or save the model again."
        ) from None
    return tensors, notes


def _given(module, caller: str) -> list:
    """Return what the caller brings as a list of classes and functions."""
    given = [] if module is None else module
    given = list(given) if isinstance(given, Iterable) and not isinstance(given, type) else [given]
    for one in given:
        if not callable(one) or not hasattr(one, "__qualname__"):
            raise TypeError(
                f"{caller}: 'module' must be a class, a function, or a list of them, got {one!r}; "
                "pass the class, not an instance."
            )
    return given


def _match(notes: Mapping, given: list, path: Path, caller: str) -> dict:
    """Return what the caller brings under the names in the file: all of one and of the other.

    Known classes need not be brought, but may be, as a check.
    """
    foreign, known = notes["foreign"], notes.get("known", ())
    left = [one for one in given if name_of(one)[0] not in known]
    found = {}
    for whole in (True, False):  # the same place first, then a class that has moved
        for name in foreign:
            for one in left:
                own = f"{one.__module__}.{one.__qualname__}"
                last = name.rpartition(".")[2] == own.rpartition(".")[2]
                if name not in found and (own == name if whole else last):
                    found[name] = one
                    left.remove(one)
                    break
    missing = [name for name in foreign if name not in found]
    if missing or left:
        needs = ", ".join(map(repr, foreign)) or "no class of your own"
        got = ", ".join(repr(one.__qualname__) for one in given) or "nothing"
        raise ArchitectureMismatchError(
            f"{caller}: 'module' does not fit the model in {str(path)!r}, which needs {needs}; got "
            f"{got}. Pass these classes and functions and no others, several as a list."
        )
    return found


def _check_code(notes: Mapping, brought: Mapping, before: dict, nets, caller: str) -> None:
    """Let nets whose code has changed answer again, and refuse other answers."""
    changed = [name for name, one in brought.items() if code_of(one) != notes["foreign"][name]]
    if not changed:
        return
    other = disagree(before, nets)
    if other is not None:
        raise ArchitectureMismatchError(
            f"{caller}: 'module' is another architecture: {other!r} does not compute what the "
            "saved one computed; pass the class as it was when the model was saved."
        )
    if not before:
        warnings.warn(
            f"{caller}: the code of {', '.join(map(repr, changed))} is not what it was when the "
            "model was saved, and the shape of its input is not known, so that its outputs could "
            "not be compared; do so yourself.",
            SklmcWarning,
            stacklevel=5,
        )


def _check_devices(nets, caller: str) -> None:
    """Let nets whose device is not there predict on the CPU."""
    gone = set()
    for net in nets:
        device = net.device
        if device is not None and usable_device(device).type != torch.device(device).type:
            gone.add(str(device))
            net.device = "cpu"
    if gone:
        warnings.warn(
            f"{caller}: there is no device {', '.join(sorted(gone))} here; the model is on the "
            "CPU, and 'device' of its nets is 'cpu'.",
            SklmcWarning,
            stacklevel=5,
        )


def _text(libraries) -> str:
    """Return versions as a sentence part."""
    named = libraries if isinstance(libraries, Mapping) else {}
    return ", ".join(f"{name} {number}" for name, number in named.items()) or "unknown versions"
