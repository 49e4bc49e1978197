"""save_model: a model into one file."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from skorch import NeuralNet
from torch import nn

from sklmc._persistence._witness import witnesses
from sklmc._persistence._writer import Unsaveable, Writer
from sklmc._sklearn import check_is_fitted
from sklmc._torch import torch_defaults
from sklmc._validation import check_written_path
from sklmc.models import provenance_of, versions, write_record

FORMAT = "sklmc.model"
VERSION = 1
CONTENT = "model.json"  # the tensor that holds all but the tensors, as text
WITNESS = "witness/"  # begins the names of outputs on fixed samples


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
    path = check_written_path(path, caller)
    _check_model(model, caller)
    _write(model, path, caller)


@torch_defaults(None)
def _write(model, path: Path, caller: str) -> None:
    """Write a model that was checked to a path that was checked."""
    writer = Writer()
    try:
        content = writer.write(model)
        tensors = writer.shelf.lay_out()  # which completes the content
        text = json.dumps(content)
    except Unsaveable as error:
        raise TypeError(f"{caller}: 'model' cannot be saved: {error}.") from None
    except RecursionError:
        raise TypeError(f"{caller}: 'model' is nested too deeply to be saved.") from None
    tensors[CONTENT] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    if writer.foreign:
        nets = writer.nets or ([model] if isinstance(model, nn.Module) else [])
        tensors |= {WITNESS + name: outputs for name, outputs in witnesses(nets).items()}
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
        "known": sorted(writer.known),
        "foreign": writer.foreign,
    }
    write_record(path, tensors, notes, caller)


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
