"""scikit-learn's own multilayer perceptrons as modules, and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch import nn

PERCEPTRONS = (MLPClassifier, MLPRegressor)


class _Exp(nn.Module):
    """The output of a regressor whose loss is Poisson's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.exp()


_ACTIVATIONS = {"identity": nn.Identity, "logistic": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}


def perceptron_module(model, caller: str, name: str) -> nn.Module:
    """Return a fitted perceptron as a net in float64 that gives logits, not probabilities."""
    kind = type(model).__name__
    if not hasattr(model, "coefs_"):
        raise NotFittedError(f"{caller}: '{name}' is a {kind} that is not fitted; call fit first.")
    if model.out_activation_ == "logistic" and model.n_outputs_ > 1:
        raise ValueError(
            f"{caller}: '{name}' is a {kind} with {model.n_outputs_} labels for each sample "
            "(multilabel), and only one class for each sample is known here; fit one "
            f"{kind} for each label."
        )
    layers: list[nn.Module] = []
    for coef, intercept in zip(model.coefs_, model.intercepts_):
        linear = nn.Linear(*coef.shape, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(coef).T)  # (n_out, n_in)
            linear.bias.copy_(torch.from_numpy(intercept))
        layers += [linear, _ACTIVATIONS[model.activation]()]
    layers[-1] = _Exp() if model.out_activation_ == "exp" else nn.Identity()
    return nn.Sequential(*layers).eval()


def perceptron_with_state(model, state: Mapping[str, torch.Tensor]):
    """Copy a fitted perceptron around new weights; its training starts empty."""
    memo = {id(model.coefs_): None, id(model.intercepts_): None}
    memo[id(getattr(model, "_optimizer", None))] = None
    new = copy.deepcopy(model, memo)
    vars(new).pop("_optimizer", None)
    if hasattr(new, "loss_curve_"):
        new.loss_curve_ = []
    tensors = [tensor.cpu().numpy() for tensor in state.values()]
    dtype = model.coefs_[0].dtype
    new.coefs_ = [np.ascontiguousarray(weight.T, dtype=dtype) for weight in tensors[::2]]
    new.intercepts_ = [np.array(bias, dtype=dtype) for bias in tensors[1::2]]
    return new
