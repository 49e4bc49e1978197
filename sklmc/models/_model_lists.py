"""What stands for several models: a list, an ensemble, or one module with many states."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from torch.nn.modules.module import _EXTRA_STATE_KEY_SUFFIX

from sklmc._sklearn import check_is_fitted
from sklmc._validation import check_models
from sklmc.exceptions import ArchitectureMismatchError
from sklmc.models._copying import named_tensors
from sklmc.models._view import ModelView, view


def list_models(models, caller: str, minimum: int = 1, name: str = "models") -> list:
    """Return at least `minimum` models, whatever stands for them.

    A list of them; an ensemble (its ``estimators_``), also at the end of a Pipeline; or a pair of
    one model and a list of states of its architecture: state dicts, paths of safetensors files.
    """
    if _is_with_states(models):
        model, states = models
        look = view(model, caller=caller, name=f"{name}[0]")
        names = [f"{name}[1][{k}]" for k in range(len(states))]
        models = [_with_state(look, state, one) for state, one in zip(states, names)]
    elif members := ensemble_members(models, caller, name):
        models = members
    elif isinstance(models, BaseEstimator) and hasattr(models, "estimator"):
        check_is_fitted(models, msg=f"{caller}: '{name}' is a %(name)s that is not fitted; fit it.")
    return check_models(models, caller, minimum, name)


def ensemble_members(model, caller: str, given: str = "models") -> list | None:
    """Return the models that an ensemble holds, each as it is used there; None for no ensemble."""
    if isinstance(model, Pipeline):
        name, last = model.steps[-1]
        members = ensemble_members(last, caller, given)
        return members and [Pipeline([*model.steps[:-1], (name, one)]) for one in members]
    members = getattr(model, "estimators_", None)
    if members is None:
        return None
    for features in getattr(model, "estimators_features_", []):
        if not np.array_equal(features, np.arange(model.n_features_in_)):
            raise ValueError(
                f"{caller}: '{given}' is a {type(model).__name__} whose members see different "
                "features, so that no net between them has an input; fit it with max_features=1.0 "
                "and bootstrap_features=False."
            )
    labels = getattr(model, "classes_", None)
    return [_with_labels(one, labels, caller, f"{given}[{k}]") for k, one in enumerate(members)]


def _with_labels(member, labels, caller: str, name: str):
    """Give a member of an ensemble that was trained on codes the labels that they stand for."""
    look = view(member, caller=caller, name=name)
    own = look.classes
    if labels is None or own is None or np.isin(own, labels).all():
        return member
    return look.relabelled(np.asarray(labels)[own.astype(np.int64)])


def _is_with_states(models) -> bool:
    """Say whether this is a pair of one model and its states."""
    if not isinstance(models, (tuple, list)) or len(models) != 2:
        return False
    states = models[1]
    return (
        isinstance(states, Sequence)
        and not isinstance(states, str)
        and len(states) > 0
        and all(isinstance(one, (Mapping, str, os.PathLike)) for one in states)
    )


def _with_state(look: ModelView, given, name: str):
    """Return a model with the tensors of one state dict or file, as load_state_dict would."""
    in_memory = isinstance(given, Mapping)
    state = dict(given if in_memory else _read_tensors(Path(given), look.caller, name))
    first: dict[int, str] = {}
    loaded = {}
    for key, tensor in named_tensors(look.original):
        tied = first.setdefault(id(tensor), key)
        found = state.pop(key, loaded.get(tied))  # files hold tied tensors once
        if not isinstance(found, torch.Tensor) or found.shape != tensor.shape:
            seen = "missing" if found is None else f"of shape {tuple(np.shape(found))}"
            raise ArchitectureMismatchError(
                f"{look.caller}: tensor {key!r} of '{name}' is {seen}, but the module's is of "
                f"shape {tuple(tensor.shape)}; pass states of the module's own architecture."
            )
        loaded[key] = found.detach().to(tensor.device, tensor.dtype)
    foreign = [key for key in state if not key.endswith(_EXTRA_STATE_KEY_SUFFIX)]
    if foreign:
        raise ArchitectureMismatchError(
            f"{look.caller}: '{name}' holds the tensor {foreign[0]!r}, which the module has not; "
            "pass states of the module's own architecture."
        )
    return look.rebuild(loaded)


def _read_tensors(path: Path, caller: str, name: str) -> dict[str, torch.Tensor]:
    """Read a file of tensors and of nothing else."""
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{caller}: '{name}' is the path {str(path)!r}, and only .safetensors files are read "
            "(others may run code); pass what torch.load(path, weights_only=True) returns."
        )
    if not path.is_file():
        raise FileNotFoundError(f"{caller}: there is no file {str(path)!r} ('{name}').")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{caller}: {str(path)!r} ('{name}') cannot be read ({error}); write it again."
        ) from None
