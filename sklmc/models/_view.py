"""One look at whatever counts as a model: its module, its tensors, its task."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from skorch.classifier import NeuralNetBinaryClassifier
from torch import nn

from sklmc._sklearn import FrozenEstimator
from sklmc._torch import fixed_normal, module_device
from sklmc.models._copying import module_with_state, net_with_state, private_copy, read_tensors
from sklmc.models._inputs import (
    SAMPLE_ROWS,
    Inputs,
    check_input,
    check_target,
    floating_dtype,
    leading_width,
    module_input,
    module_target,
    several_arguments,
)


class ModelView:
    """What the other rooms may know of a model; the model itself is never changed.

    `module` is a private copy in eval mode that shares the model's parameters; `state` maps
    tensor names to detached tensors, to be read only.
    """

    def __init__(self, model, net, module: nn.Module, around: list, caller: str, name: str):
        self.model = model
        self.net = net  # the skorch net inside, or None
        self.original = module
        self.caller = caller
        self.name = name
        self._around = around  # estimators that hold the net, and as which attribute

    @functools.cached_property
    def module(self) -> nn.Module:
        return private_copy(self.original)

    @functools.cached_property
    def state(self) -> dict[str, torch.Tensor]:
        return read_tensors(self.original, self.caller, self.name)

    @property
    def device(self) -> torch.device:
        return module_device(self.original)

    @property
    def task(self) -> str | None:
        if isinstance(self.net, (NeuralNetClassifier, NeuralNetBinaryClassifier)):
            return "classifier"
        return "regressor" if isinstance(self.net, NeuralNetRegressor) else None

    @property
    def classes(self) -> np.ndarray | None:
        """Classes in the order of the outputs; None for a plain module or a foreign skorch net."""
        ours = hasattr(self.net, "_model_target") and self.task == "classifier"
        return self.net.classes_ if ours else None

    def to_input(self, X) -> Inputs:
        """Return forward's arguments on the CPU; a tuple of tensors holds several."""
        check_input(X, self.caller)
        if several_arguments(X):
            return Inputs(*(part.detach().cpu() for part in X))
        if hasattr(self.net, "_model_input"):
            return Inputs(torch.from_numpy(np.array(self.net._model_input(X))))
        return Inputs(module_input(X, self.original, self.caller))

    def to_target(self, y) -> torch.Tensor:
        """Return int64 class codes or float targets: the dtype decides on the loss."""
        check_target(y, self.caller)
        if hasattr(self.net, "_model_target"):
            target = torch.from_numpy(np.array(self.net._model_target(y)))
        else:
            target = module_target(y, self.caller)
            if self.task == "regressor":
                target = target.double()
            elif self.task == "classifier" and target.is_floating_point():
                target = target.long()
        return target.double() if target.is_floating_point() else target.long()

    def sample(self, X=None) -> tuple[torch.Tensor, ...]:
        """Return forward's arguments for a trace: a few samples, at least two.

        In a tuple, an argument of length one beside longer ones (a mask that all samples share)
        stays as it is.
        """
        if X is not None:
            check_input(X, self.caller)
            sized = hasattr(X, "__len__") and getattr(X, "ndim", 1) > 0 and not several_arguments(X)
            inputs = self.to_input(X[:SAMPLE_ROWS] if sized and len(X) > SAMPLE_ROWS else X)
            few = inputs.first(SAMPLE_ROWS)
            if len(inputs) > 1:
                return few
            return tuple(
                part.expand(2, *part.shape[1:]).clone() if part.ndim else part for part in few
            )
        if hasattr(self.net, "_model_sample"):
            sample = torch.from_numpy(np.array(self.net._model_sample()))
            if not sample.is_floating_point():
                return (sample,)
            return (fixed_normal((SAMPLE_ROWS, *sample.shape[1:]), sample.dtype),)
        width = leading_width(self.original)
        if width is None:
            raise ValueError(
                f"{self.caller}: the shape of {self.name}'s input is not known; pass 'X', a few "
                "samples as the net takes them."
            )
        return (fixed_normal((SAMPLE_ROWS, width), floating_dtype(self.original)),)

    def check_logits(self) -> None:
        """Refuse a skorch net whose module returns probabilities where logits are needed."""
        if self.task == "classifier" and isinstance(
            getattr(self.net, "criterion_", None), nn.NLLLoss
        ):
            raise ValueError(
                f"{self.caller}: {self.name} is trained with NLLLoss, so its module returns "
                "probabilities; sklmc scores logits: let the module return logits and use "
                "criterion=torch.nn.CrossEntropyLoss (as NetClassifier does)."
            )

    def rebuild(self, state: Mapping[str, torch.Tensor]):
        """Return a new model of the kind that went in, holding copies of `state`'s tensors."""
        if self.net is not None:
            new = net_with_state(self.net, state)
        else:
            new = module_with_state(self.original, state)
        for outer, attribute in reversed(self._around):
            inner, new = new, copy.copy(outer)
            setattr(new, attribute, inner)
        return new


def view(model, *, caller: str, name: str = "model") -> ModelView:
    """Return the view of a fitted skorch net, a fitted sklmc estimator or a plain module."""
    if isinstance(model, ModelView):
        return model
    inner, around = model, []
    while not isinstance(inner, (NeuralNet, nn.Module)):
        if isinstance(inner, FrozenEstimator):
            attribute = "estimator"
        elif hasattr(inner, "estimator_") and not _holds_many(inner):
            attribute = "estimator_"
        else:
            raise _no_model(inner, caller, name)
        around.append((inner, attribute))
        inner = getattr(inner, attribute)
    net = None if isinstance(inner, nn.Module) else inner
    module = inner if net is None else getattr(net, "module_", None)
    if not isinstance(module, nn.Module):
        raise NotFittedError(
            f"{caller}: '{name}' is a {type(inner).__name__} that is not fitted; call fit first."
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            f"{caller}: '{name}' is a TorchScript module, whose weights cannot be replaced; pass "
            "the module that it was compiled from."
        )
    return ModelView(model, net, module, around, caller, name)


def _holds_many(model) -> bool:
    """Say whether an estimator of another library is an ensemble: its estimator_ is a template."""
    ours = any(parent.__module__.startswith("sklmc.") for parent in type(model).__mro__)
    return hasattr(model, "estimators_") and not ours


# Attributes that tell what was handed in instead of a model, and what to hand in.
_NO_MODELS = {
    "estimators_": ", which holds many nets; pass one of its estimators_",
    "cells_": ", which holds many nets; pass one of its cells_",
    "best_estimator_": "; pass its best_estimator_",
    "steps": "; pass its last step, and X as the earlier steps leave it",
}


def _no_model(model, caller: str, name: str) -> Exception:
    """Say what was handed in instead of a model, and what to hand in."""
    kind = type(model).__name__
    if isinstance(model, type):
        return TypeError(
            f"{caller}: '{name}' is the class {model.__name__}; pass a fitted net or an instance."
        )
    for attribute, advice in _NO_MODELS.items():
        if hasattr(model, attribute):
            return TypeError(f"{caller}: '{name}' is a {kind}{advice}.")
    if isinstance(model, BaseEstimator) and hasattr(model, "estimator"):
        return NotFittedError(f"{caller}: '{name}' is a {kind} that is not fitted; call fit first.")
    return TypeError(
        f"{caller}: '{name}' must be a fitted skorch net, a fitted sklmc estimator or a "
        f"torch.nn.Module, got {kind}."
    )
