"""save_model and load_model."""

from __future__ import annotations

import json
import platform
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from skorch import NeuralNet
from torch import nn

from sklmc._persistence._known import find_known, may_be_called
from sklmc._persistence._reader import Reader
from sklmc._persistence._witness import disagree, witnesses
from sklmc._persistence._writer import Unsaveable, Writer, code_of
from sklmc._sklearn import check_is_fitted
from sklmc._torch import torch_defaults, usable_device
from sklmc._validation import check_path
from sklmc.exceptions import ArchitectureMismatchError, SklmcWarning
from sklmc.models import content_digest, provenance_of, read_state, versions, write_record

FORMAT = "sklmc.model"
VERSION = 1
_JSON = "model.json"  # the tensor that holds all but the tensors, as text
_WITNESS = "witness/"  # begins the names of outputs on fixed samples


@torch_defaults(None)
def save_model(model, path) -> None:
    """Write a fitted model to one file: tensors and JSON, no pickle.

    The file holds everything: weights in their dtypes, tied weights as one, parameters, labels,
    names of features, history and optimizer of each net, versions of the libraries, and where a
    merged model came from. It is written whole or not at all.

    Parameters
    ----------
    model : fitted estimator of sklmc, skorch net, Pipeline of these, or torch.nn.Module
        Aligners too. It may hold classes and functions of your own, as long as they have a name:
        the file keeps the name, and `load_model` must be given the thing itself.
    path : str or path-like
        The file, in a folder that exists; a file that is there is replaced.

    Raises
    ------
    TypeError
        If `model` is nothing of that, or holds something that has no place in a file (a
        lambda, a lock, a hook); where it is, is said.
    NotFittedError
        If it is not fitted (a ValueError).
    FileNotFoundError
        If `path` is a folder, or its folder does not exist.
    OSError
        If the disk is full or refuses; what was there before stays as it was.

    See Also
    --------
    load_model : Reads what this writes.

    Notes
    -----
    The file is in the safetensors format; ``safetensors.safe_open(path, "np").metadata()`` shows
    versions, classes, names of features and provenance without loading anything.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import NetClassifier, load_model, save_model
    >>> X, y = make_moons(100, noise=0.1, random_state=0)
    >>> net = NetClassifier(module__width=8, max_epochs=5, random_state=0).fit(X, y)
    >>> path = os.path.join(tempfile.mkdtemp(), "net.safetensors")
    >>> save_model(net, path)
    >>> again = load_model(path)
    >>> bool((again.predict_proba(X) == net.predict_proba(X)).all())
    True
    """
    caller = "save_model"
    path = check_path(path, caller)
    if path.is_dir() or not path.parent.is_dir():
        raise FileNotFoundError(
            f"{caller}: 'path' must name a file in a folder that exists, got {str(path)!r}."
        )
    _check_model(model, caller)
    writer = Writer()
    try:
        content = writer.write(model)
        tensors = writer.shelf.lay_out()  # which completes the content
        text = json.dumps(content)
    except Unsaveable as error:
        raise TypeError(f"{caller}: 'model' cannot be saved: {error}.") from None
    except RecursionError:
        raise TypeError(f"{caller}: 'model' is nested too deeply to be saved.") from None
    tensors[_JSON] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    if writer.foreign:
        nets = writer.nets or ([model] if isinstance(model, nn.Module) else [])
        tensors |= {_WITNESS + name: outputs for name, outputs in witnesses(nets).items()}
    libraries = versions("skorch", "scikit-learn", "numpy", "safetensors")
    del libraries["format"]
    notes = {
        "format": FORMAT,
        "version": VERSION,
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "versions": {**libraries, "python": platform.python_version()},
        "classes": _listed(model, "classes_"),
        "feature_names": _listed(model, "feature_names_in_"),
        "provenance": provenance_of(model),
        "foreign": writer.foreign,
    }
    write_record(path, tensors, notes, caller)


@torch_defaults(None)
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
    path = check_path(path, caller)
    if not path.is_file():
        raise FileNotFoundError(
            f"{caller}: 'path' must name a file that exists, got {str(path)!r}."
        )
    given = _given(module, caller)
    tensors, notes = _read(path, caller)
    brought = _match(notes["foreign"], given, path, caller)

    def find(name: str):
        if name in brought:
            return brought[name]
        known = find_known(name)
        if known is None:
            raise TypeError(f"{name} is on no list of known classes")
        return known

    before = {
        name.removeprefix(_WITNESS): tensors.pop(name)
        for name in list(tensors)
        if name.startswith(_WITNESS)
    }
    reader = Reader(tensors, find, lambda name: name in brought or may_be_called(name))
    try:
        model = reader.read(json.loads(tensors[_JSON].numpy().tobytes()))
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise ArchitectureMismatchError(
            f"{caller}: 'path' holds a model that cannot be made again here: "
            f"{type(error).__name__}: {error} (saved with {_text(notes['versions'])}); use these "
            "versions, or the classes as they were."
        ) from None
    nets = reader.nets or ([model] if isinstance(model, nn.Module) else [])
    _check_code(notes, brought, before, nets, caller)
    _check_devices(reader.nets, caller)
    return model


def _check_model(model, caller: str) -> None:
    """Refuse what is no model, or not fitted."""
    if isinstance(model, type) or not isinstance(model, BaseEstimator | NeuralNet | nn.Module):
        raise TypeError(
            f"{caller}: 'model' must be a fitted estimator, a skorch net or a torch.nn.Module, got "
            f"{model!r}."
        )
    if isinstance(model, nn.Module):
        return
    try:
        check_is_fitted(model, "module_" if isinstance(model, NeuralNet) else None)
    except NotFittedError:
        raise NotFittedError(
            f"{caller}: 'model' is a {type(model).__name__} that is not fitted; call fit first."
        ) from None


def _listed(model, name: str) -> list | None:
    """Return an array among a model's attributes as a list of plain values, for human readers."""
    found = getattr(model, name, None)
    if found is None:
        return None
    return json.loads(json.dumps(np.asarray(found).tolist(), default=str))


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


def _match(foreign: Mapping, given: list, path: Path, caller: str) -> dict:
    """Return what the caller brings under the names in the file: all of one and of the other."""
    left = list(given)
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
        needs = ", ".join(map(repr, foreign)) or "nothing but known classes"
        got = ", ".join(repr(one.__qualname__) for one in given) or "nothing"
        raise ArchitectureMismatchError(
            f"{caller}: 'module' does not fit the model in {str(path)!r}, which needs {needs}; got "
            f"{got}. Pass exactly these classes and functions, several as a list."
        )
    return found


def _check_code(notes: Mapping, brought: Mapping, before: Mapping, nets, caller: str) -> None:
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
            stacklevel=4,
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
            stacklevel=4,
        )


def _text(libraries) -> str:
    """Return versions as a sentence part."""
    named = libraries if isinstance(libraries, Mapping) else {}
    return ", ".join(f"{name} {number}" for name, number in named.items()) or "unknown versions"
