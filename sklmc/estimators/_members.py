"""The members of a population: made, trained, looked through."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from sklearn.base import clone, is_classifier, is_regressor
from sklearn.pipeline import Pipeline
from skorch import NeuralNet
from torch import nn

from sklmc._torch import all_finite, seeded, single_thread, torch_defaults
from sklmc.estimators._arguments import check_module
from sklmc.estimators._vectorized import VectorizeError, fit_vectorized
from sklmc.exceptions import DivergedMemberWarning, NonFiniteError


def member_settings(estimator, caller: str) -> list[str]:
    """Name the parameters that a member gets: seeds of all its parts, silence of its nets."""
    if not (is_classifier(estimator) or is_regressor(estimator)):
        raise TypeError(
            f"{caller}: 'estimator' must be a classifier or a regressor, got {estimator!r}."
        )
    params = estimator.get_params(deep=True)
    settings = [name for name in params if f"__{name}".endswith("__random_state")]
    for name, part in {"": estimator, **params}.items():
        if isinstance(part, NeuralNet):
            check_module(part.module, caller)
            settings.append(f"{name}__verbose".removeprefix("__"))
    if not any(name.endswith("random_state") for name in settings):
        if not needs_seeding(estimator):
            raise ValueError(
                f"{caller}: 'estimator' has no random_state, so that all members would be "
                f"equal, got {estimator!r}; use a NetClassifier or a NetRegressor."
            )
    return settings


def needs_seeding(estimator) -> bool:
    """Say whether the net is a plain skorch net, whose only seeds are torch's global ones."""
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    return isinstance(estimator, NeuralNet) and "random_state" not in estimator.get_params(
        deep=False
    )


def make_member(estimator, settings: list[str], seed: int):
    """Return an unfitted member with its seed."""
    return clone(estimator).set_params(
        **{name: seed if name.endswith("random_state") else 0 for name in settings}
    )


@torch_defaults(None)
def fit_members(
    members: list, X, y, span: Sequence[int], vectorized: bool, must: bool, seed: int | None
) -> list:
    """Train members together or one by one; `span` holds their positions.

    With a seed, all global generators are seeded around a single member. Members that turn out
    to differ by more than weights are trained one by one, unless that is a must.
    """
    if vectorized:
        try:
            return fit_vectorized(members, X, y)
        except VectorizeError:
            if must:
                raise
            spawned = members[0]._spawned_from
            members = [clone(member) for member in members]
            for member in members:
                member._spawned_from = spawned
        except Exception as error:
            error.add_note(f"This happened in members {span[0]} to {span[-1]}, trained together.")
            raise
    return [_fit_member(member, X, y, index, seed) for member, index in zip(members, span)]


def _fit_member(member, X, y, index: int, seed: int | None):
    """Train one member; with a seed, all global generators are seeded around it."""
    try:
        if seed is None:
            member.fit(X, y)
        else:
            with seeded(seed), single_thread():
                member.fit(X, y)
    except Exception as error:
        error.add_note(f"This happened in member {index}.")
        raise
    if getattr(inner_net(member), "_interrupted", False):
        raise KeyboardInterrupt(f"interrupted in member {index}")
    return member


def inner_net(member):
    """Return the net at the end of a member, or the member itself."""
    while isinstance(member, Pipeline):
        member = member.steps[-1][1]
    return member


def last_loss(member) -> str:
    """Say what was measured last in training."""
    history = getattr(inner_net(member), "history_", None)
    if not history or "train_loss" not in history[-1]:
        return ""
    return f"train_loss {history[-1, 'train_loss']:.4f}"


def report_diverged(members: list, caller: str) -> list[int]:
    """Return the members whose weights are not finite, with a warning; refuse if all are."""
    diverged = [index for index, member in enumerate(members) if not is_finite(member)]
    if len(diverged) == len(members):
        raise NonFiniteError(
            f"{caller}: training diverged in all {len(members)} members: their weights are "
            "not finite. Lower 'lr' or scale X."
        )
    if diverged:
        warnings.warn(
            f"{caller}: training diverged in member{'s' * (len(diverged) > 1)} "
            f"{', '.join(map(str, diverged))} of {len(members)}: the weights are not finite. "
            "Predictions leave these members out; lower 'lr' or scale X to keep them.",
            DivergedMemberWarning,
            stacklevel=3,
        )
    return diverged


def is_finite(member) -> bool:
    """Say whether all weights of a net are finite; what is no net passes."""
    module = getattr(inner_net(member), "module_", None)
    if not isinstance(module, nn.Module):
        return True
    return all_finite(module.state_dict().values())
