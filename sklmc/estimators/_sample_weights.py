"""Weights of samples on their way from fit into the loss of a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from skorch import NeuralNet
from torch import nn
from torch.utils.data import Dataset

from sklmc._sklearn import _routing_enabled, has_fit_parameter

_LABEL_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss)  # whose mean counts some targets more, or not


class WeightedData(Dataset):
    """A dataset whose items are a sample, its target and its weight."""

    def __init__(self, data, weights: np.ndarray):
        self.data, self.weights = data, weights
        for name in ("X", "y"):  # what skorch's callbacks look for
            if hasattr(data, name):
                setattr(self, name, getattr(data, name))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i):
        return (*self.data[i], self.weights[i])


@contextlib.contextmanager
def each_loss(criterion, caller: str) -> Iterator[None]:
    """Let a criterion return the loss of each sample, not their mean."""
    kept = getattr(criterion, "reduction", None)
    if kept != "mean":
        raise ValueError(
            f"{caller}: weights of samples need a 'criterion' that can give the loss of each "
            f"(reduction='none') and whose own reduction is 'mean', got "
            f"{type(criterion).__name__} with reduction={kept!r}; pass no weights, or another one."
        )
    criterion.reduction = "none"
    try:
        yield
    finally:
        criterion.reduction = kept


def shares(weights: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return weights (..., n_samples) over their largest: no scale can make them all vanish."""
    return (weights / weights.amax(dim=-1, keepdim=True)).to(like.device, like.dtype)


def weighted_mean(
    losses: torch.Tensor, weights: torch.Tensor, criterion, target, caller: str
) -> torch.Tensor:
    """Return the mean of the losses (n_samples, ...) of a batch, weighted by sample.

    With equal weights it is what the criterion itself calls the mean.
    """
    if losses.ndim == 0 or len(losses) != len(weights):
        raise ValueError(
            f"{caller}: weights of samples need a 'criterion' that gives the loss of each with "
            f"reduction='none', but {type(criterion).__name__} returns shape "
            f"{tuple(losses.shape)} for {len(weights)} samples; pass no weights, or another one."
        )
    weight = shares(weights, losses).view(-1, *(1,) * (losses.ndim - 1))
    return (weight * losses).sum() / (weight * _counts(losses, criterion, target)).sum()


def _counts(losses: torch.Tensor, criterion, target) -> torch.Tensor:
    """Return how much each loss counts in the mean of a criterion."""
    if not isinstance(criterion, _LABEL_LOSSES) or target.is_floating_point():
        return torch.ones_like(losses)
    target = target.to(losses.device)
    counts = (target != criterion.ignore_index).to(losses.dtype)
    if criterion.weight is None:
        return counts
    return counts * criterion.weight[target.clamp(min=0)].to(losses.dtype)


def weights_of_classes(
    class_weight, classes: np.ndarray, codes: np.ndarray, weights: np.ndarray | None, caller: str
) -> np.ndarray:
    """Return the weight of each sample's class; "balanced" gives all classes the same sum."""
    if isinstance(class_weight, str):
        totals = np.bincount(codes, weights, minlength=len(classes))
        total = totals.sum()
        by_class = np.zeros(len(classes))
        np.divide(total, np.count_nonzero(totals) * totals, out=by_class, where=totals > 0)
        return by_class[codes]
    places = {label: place for place, label in enumerate(classes.tolist())}
    by_class = np.ones(len(classes))
    for label, weight in class_weight.items():
        if label not in places:
            raise ValueError(
                f"{caller}: 'class_weight' names the class {label!r}, but the classes are "
                f"{classes.tolist()!r}."
            )
        number = isinstance(weight, (int, float, np.number)) and not isinstance(weight, bool)
        if not number or not 0 <= weight < np.inf:
            raise ValueError(
                f"{caller}: 'class_weight' must hold finite numbers that are not negative, got "
                f"{weight!r} for {label!r}."
            )
        by_class[places[label]] = weight
    return by_class[codes]


def weight_argument(estimator, weights, caller: str) -> dict:
    """Return what an estimator's fit is to be called with, so that it gets the weights."""
    if weights is None:
        return {}
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        inner = weight_argument(last, weights, caller)
        return inner if _routing_enabled() else {f"{name}__{key}": w for key, w in inner.items()}
    if not has_fit_parameter(estimator, "sample_weight"):
        kind = type(estimator).__name__
        hint = "; use a NetClassifier or a NetRegressor" if isinstance(estimator, NeuralNet) else ""
        raise ValueError(
            f"{caller}: 'sample_weight' was given, but the fit of {kind} takes none{hint}."
        )
    return {"sample_weight": weights}
