"""A Pipeline counts as its last step, seen through the earlier ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.pipeline import Pipeline

from sklmc._sklearn import FrozenEstimator
from sklmc.models._view import ModelView, view


def see_through(model) -> tuple[tuple[Pipeline, ...], object]:
    """Return the fitted transformers in front of a model, and the model itself."""
    earlier: list[Pipeline] = []
    while True:
        if isinstance(model, FrozenEstimator) and isinstance(model.estimator, Pipeline):
            model = model.estimator
        elif isinstance(model, Pipeline):
            if len(model.steps) > 1:
                earlier.append(model[:-1])
            model = model.steps[-1][1]
        else:
            return tuple(earlier), model


def transform(earlier: Sequence[Pipeline], X):
    """Send X through the transformers in front of a model."""
    for steps in earlier:
        X = steps.transform(X)
    return X


def view_through(
    models: Sequence, X, caller: str, names: Sequence[str]
) -> tuple[list[ModelView], list[tuple[Pipeline, ...]], object]:
    """Return views of models, the transformers in front of each, and what all of them see of X."""
    seen = [see_through(model) for model in models]
    looks = [view(model, caller=caller, name=name) for (_, model), name in zip(seen, names)]
    earlier = [steps for steps, _ in seen]
    return looks, earlier, None if X is None else _common_input(earlier, X, caller, names)


def _common_input(all_earlier: Sequence[tuple[Pipeline, ...]], X, caller: str, names):
    """Return what all models see of X; refuse models whose transformers disagree.

    A net between two nets has an input of its own only if both get the same.
    """
    first = transform(all_earlier[0], X)
    for earlier, name in zip(all_earlier[1:], names[1:]):
        if not earlier and not all_earlier[0]:
            continue
        seen = transform(earlier, X)
        if not np.array_equal(first, seen):
            raise ValueError(
                f"{caller}: the earlier steps of the Pipelines '{names[0]}' and '{name}' turn 'X' "
                "into different inputs, so that no net between them has an input; fit the "
                "transformers on the same data, or pass transformed X and the last steps."
            )
    return first
