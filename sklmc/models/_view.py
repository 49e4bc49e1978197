"""One look at whatever counts as a model: its module, its tensors, its task."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from skorch.classifier import NeuralNetBinaryClassifier
from torch import nn
from torch.utils.data import DataLoader, Dataset

from sklmc._sklearn import FrozenEstimator
from sklmc._torch import fixed_normal, module_device
from sklmc.models._arrays import (
    check_target,
    check_tensor,
    floating_dtype,
    leading_width,
    module_input,
    module_target,
)
from sklmc.models._copying import (
    module_with_state,
    net_with_state,
    private_copy,
    read_tensors,
    shallow_copy,
)
from sklmc.models._inputs import Inputs
from sklmc.models._perceptron import PERCEPTRONS, perceptron_module, perceptron_with_state
from sklmc.models._reading import SAMPLE_ROWS, few_samples, head, read_inputs


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
        self.settled = False  # whether a pass has shown what the module keeps between calls
        self.keeps_state = False
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
    def carrier(self):
        """What users hold: the skorch net, or the module itself."""
        return self.original if self.net is None else self.net

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

    def to_tensor(self, X) -> torch.Tensor:
        """Return one array-like as the module takes it, on the CPU."""
        if isinstance(X, torch.Tensor):
            check_tensor(X, self.caller, "X")
        if hasattr(self.net, "_model_input"):
            return torch.from_numpy(np.array(self.net._model_input(X)))
        return module_input(X, self.original, self.caller)

    @property
    def earlier(self) -> tuple[Pipeline, ...]:
        """The fitted transformers in front of the net, where Pipelines hold it."""
        pipelines = (outer for outer, attribute in self._around if attribute == "steps")
        return tuple(pipeline[:-1] for pipeline in pipelines if len(pipeline.steps) > 1)

    def to_input(self, X) -> Inputs:
        """Return the samples of X, whatever kind it is of, as the net takes them."""
        return read_inputs(self, self._transformed(X))

    def _transformed(self, X):
        """Send X through the transformers in front of the net."""
        if self.earlier and isinstance(X, (Dataset, DataLoader)):
            raise TypeError(
                f"{self.caller}: {self.name} is a Pipeline, whose earlier steps take arrays; 'X' "
                f"is a {type(X).__name__}."
            )
        if not isinstance(X, Inputs):
            for steps in self.earlier:
                X = steps.transform(X)
        return X

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
        """Return forward's arguments for a trace: a few samples, at least two."""
        if X is not None:
            return few_samples(self, self._transformed(head(X, self.caller)))
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

    def rebuild(self, state: Mapping[str, torch.Tensor], behind: ModelView | None = None):
        """Return a new model of the kind that went in, holding copies of `state`'s tensors.

        With `behind`, the Pipelines of another model take the place of its own.
        """
        around = self._around
        if behind is not None:
            around = behind._around[: _pipeline_depth(behind._around)]
            around += self._around[_pipeline_depth(self._around) :]
        return _wrapped(self._core(state), around)

    def around_module(self, module: nn.Module):
        """Return the model around another module of the same architecture."""
        if self.net is None:
            return _wrapped(module, self._around)
        new = shallow_copy(self.net)
        vars(new)["module_"] = module
        return _wrapped(new, self._around)

    def relabelled(self, classes: np.ndarray):
        """Return the model, its weights shared, with other names for its classes."""
        new = shallow_copy(self.net)
        new.classes_inferred_ = classes
        return _wrapped(new, self._around)

    def _core(self, state: Mapping[str, torch.Tensor]):
        """Return a new net or module, bare of what holds it."""
        if self.net is not None:
            return net_with_state(self.net, state)
        return module_with_state(self.original, state)


class PerceptronView(ModelView):
    """The view of a fitted perceptron of scikit-learn."""

    def __init__(self, model, perceptron, around: list, caller: str, name: str):
        module = perceptron_module(perceptron, caller, name)
        super().__init__(model, None, module, around, caller, name)
        self.perceptron = perceptron

    @property
    def carrier(self):
        """The perceptron."""
        return self.perceptron

    @property
    def task(self) -> str:
        return "classifier" if isinstance(self.perceptron, MLPClassifier) else "regressor"

    @property
    def classes(self) -> np.ndarray | None:
        return getattr(self.perceptron, "classes_", None)

    def to_target(self, y) -> torch.Tensor:
        check_target(y, self.caller)
        if self.classes is None:
            return module_target(y, self.caller).double()
        labels = np.asarray(y).ravel()
        codes = pd.Index(self.classes).get_indexer(labels)
        if (codes < 0).any():
            raise ValueError(
                f"{self.caller}: 'y' holds the label {labels[codes < 0].tolist()[0]!r}, which "
                f"{self.name} does not know; it knows {self.classes.tolist()!r}."
            )
        return torch.from_numpy(codes.astype(np.int64))

    def around_module(self, module: nn.Module):
        raise TypeError(
            f"{self.caller}: {self.name} is a {type(self.perceptron).__name__}, which has one "
            "output; use it as it is."
        )

    def relabelled(self, classes: np.ndarray):
        new = copy.copy(self.perceptron)
        new._label_binarizer = copy.copy(new._label_binarizer)
        new.classes_ = new._label_binarizer.classes_ = classes
        return _wrapped(new, self._around)

    def _core(self, state: Mapping[str, torch.Tensor]):
        return perceptron_with_state(self.perceptron, state)


def view(model, *, caller: str, name: str = "model") -> ModelView:
    """Return the view of a fitted skorch net, a fitted sklmc estimator or a plain module."""
    if isinstance(model, ModelView):
        return model
    inner, around = model, []
    while not isinstance(inner, (NeuralNet, nn.Module, *PERCEPTRONS)):
        if isinstance(inner, FrozenEstimator):
            attribute = "estimator"
        elif hasattr(inner, "estimator_") and not _holds_many(inner):
            attribute = "estimator_"
        elif isinstance(inner, Pipeline):
            attribute = "steps"
        else:
            raise _no_model(inner, caller, name)
        around.append((inner, attribute))
        inner = getattr(inner, attribute)
        inner = inner[-1][1] if attribute == "steps" else inner
    if isinstance(inner, PERCEPTRONS):
        return PerceptronView(model, inner, around, caller, name)
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


def _wrapped(new, around: list):
    """Return a net or module held by copies of estimators."""
    for outer, attribute in reversed(around):
        inner, new = new, copy.copy(outer)
        if attribute == "steps":
            inner = [*outer.steps[:-1], (outer.steps[-1][0], inner)]
        setattr(new, attribute, inner)
    return new


def _pipeline_depth(around: list) -> int:
    """Return how many estimators lie around what the innermost Pipeline holds."""
    return max((k for k, (_, attribute) in enumerate(around, 1) if attribute == "steps"), default=0)


def _holds_many(model) -> bool:
    """Say whether an estimator of another library is an ensemble: its estimator_ is a template."""
    ours = any(parent.__module__.startswith("sklmc.") for parent in type(model).__mro__)
    return hasattr(model, "estimators_") and not ours


# Attributes that tell what was handed in instead of a model, and what to hand in.
_NO_MODELS = {
    "estimators_": ", which holds many nets; pass one of its estimators_",
    "cells_": ", which holds many nets; pass one of its cells_",
    "best_estimator_": "; pass its best_estimator_",
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
