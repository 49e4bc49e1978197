"""Arithmetic on states: comparison, interpolation, averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sklmc._torch import all_finite, are_equal
from sklmc._validation import check_alpha, check_mapping, check_models, check_weights
from sklmc.exceptions import ArchitectureMismatchError, NonFiniteError
from sklmc.models._view import ModelView, view

State = Mapping[str, torch.Tensor]
COUNTER = "num_batches_tracked"


def check_state(state: State, caller: str) -> None:
    """Refuse what is no mapping of names to tensors."""
    for name, tensor in check_mapping(state, caller, "state").items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(
                f"{caller}: 'state' must hold tensors, got {type(tensor).__name__} at {name!r}."
            )


def check_finite(state: State, caller: str, name: str) -> None:
    """Refuse weights that are NaN or infinite, naming the first such tensor."""
    if all_finite(state.values()):
        return
    for tensor_name, tensor in state.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise NonFiniteError(
                f"{caller}: tensor {tensor_name!r} of '{name}' holds {bad} values that are NaN or "
                "infinite; the net has diverged: train it again with a lower learning rate."
            )


def check_same_tensors(a: State, b: State, caller: str, name_a: str, name_b: str) -> None:
    """Refuse states whose tensors differ in name, shape, dtype, device or integer content."""
    for first, second, has, lacks in ((a, b, name_a, name_b), (b, a, name_b, name_a)):
        for tensor_name in first:
            if tensor_name not in second:
                raise ArchitectureMismatchError(
                    f"{caller}: '{name_a}' and '{name_b}' are of different architecture: tensor "
                    f"{tensor_name!r} is in '{has}' and not in '{lacks}'."
                )
    for tensor_name, left in a.items():
        right = b[tensor_name]
        for what in ("shape", "dtype", "device"):
            seen_a, seen_b = getattr(left, what), getattr(right, what)
            if seen_a != seen_b:
                show = tuple if what == "shape" else str
                raise ArchitectureMismatchError(
                    f"{caller}: '{name_a}' and '{name_b}' are of different architecture: the "
                    f"{what} of tensor {tensor_name!r} is {show(seen_a)} and {show(seen_b)}."
                )
        averaged = _is_continuous(left) or tensor_name.endswith(COUNTER)
        if not averaged and not torch.equal(left, right):
            raise ArchitectureMismatchError(
                f"{caller}: the integer buffer {tensor_name!r} of '{name_a}' and '{name_b}' "
                "differs; it cannot be averaged, so both nets must share it."
            )


def view_compatible(models: Sequence, caller: str, names=None) -> list[ModelView]:
    """Return the views of models that can be combined; refuse others."""
    names = names or [f"models[{i}]" for i in range(len(models))]
    views = [view(model, caller=caller, name=name) for model, name in zip(models, names)]
    check_compatible(views, caller, names)
    return views


def check_compatible(views: Sequence[ModelView], caller: str, names=None) -> None:
    """Refuse models that cannot be combined, naming the first difference."""
    names = names or [f"models[{i}]" for i in range(len(views))]
    for one, name in zip(views, names, strict=True):
        check_finite(one.state, caller, name)
    reference = views[0]
    for other, name in zip(views[1:], names[1:], strict=True):
        check_same_tensors(reference.state, other.state, caller, names[0], name)
        if None not in (reference.task, other.task) and reference.task != other.task:
            raise ArchitectureMismatchError(
                f"{caller}: '{names[0]}' is a {reference.task} and '{name}' is a {other.task}."
            )
        if reference.classes is None or other.classes is None:
            continue
        if not np.array_equal(reference.classes, other.classes):
            raise ArchitectureMismatchError(
                f"{caller}: '{names[0]}' and '{name}' have different classes_: "
                f"{reference.classes.tolist()!r} and {other.classes.tolist()!r}."
            )


def average_states(
    states: Sequence[State], weights: Sequence[float] | np.ndarray
) -> dict[str, torch.Tensor]:
    """Return the weighted mean of states, summed in float64; integers come from the first.

    The weights sum to one; what is equal in all states stays as it is, to the bit.
    """
    used = [(s, float(w)) for s, w in zip(states, weights, strict=True) if w != 0]
    if len(used) == 1:
        return {name: tensor.clone() for name, tensor in used[0][0].items()}
    mean, shared = {}, _shared([state for state, _ in used])
    for name, first in used[0][0].items():
        if name in shared:
            mean[name] = first.clone()
            continue
        wide = torch.complex128 if first.is_complex() else torch.float64
        total = first.to(wide) * used[0][1]
        for state, weight in used[1:]:
            total.add_(state[name].to(wide), alpha=weight)
        mean[name] = total.to(first.dtype)
    return mean


def _shared(states: Sequence[State]) -> set[str]:
    """Name the tensors that are no numbers to average, or hold the same in all states."""
    first, *others = states
    same = set(first)
    for other in others:
        names = [name for name in first if name in same and _is_continuous(first[name])]
        equal = are_equal((first[name], other[name]) for name in names)
        same -= {name for name, is_equal in zip(names, equal) if not is_equal}
    return same


def _is_continuous(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def interpolate_states(a: State, b: State, alpha: float) -> dict[str, torch.Tensor]:
    """Return (1 - alpha) * a + alpha * b; alpha 0 and 1 give exact copies."""
    return average_states((a, b), (1.0 - alpha, alpha))


def interpolate_models(model_a, model_b, alpha):
    """Return the model at a point of the straight line from A to B in weight space.

    Every parameter and floating buffer becomes ``(1 - alpha) * A + alpha * B``; nothing is
    aligned and no statistics are re-estimated: see :func:`sklmc.merge_models` for that.

    Parameters
    ----------
    model_a, model_b : skorch net, fitted sklmc estimator or torch.nn.Module
        Two models of one architecture. A is the reference. Neither is changed.
    alpha : float
        Position in [0, 1]: 0 gives a copy of A, 1 a copy of B.

    Returns
    -------
    model : same kind as `model_a`
        A new model; a net's history and optimizer state are empty.

    Raises
    ------
    ArchitectureMismatchError
        If the tensors, tasks or classes of A and B differ (a ValueError).
    NonFiniteError
        If a weight is NaN or infinite (a ValueError).

    See Also
    --------
    average_models : The mean of any number of models.

    References
    ----------
    .. [1] Goodfellow, Vinyals, Saxe, "Qualitatively characterizing neural network optimization
       problems", ICLR 2015.

    Examples
    --------
    >>> import torch
    >>> from sklmc import interpolate_models
    >>> a, b = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    >>> quarter = interpolate_models(a, b, 0.25)
    >>> torch.allclose(quarter.bias, 0.75 * a.bias + 0.25 * b.bias)
    True
    """
    caller = "interpolate_models"
    alpha = check_alpha(alpha, caller)
    a, b = view_compatible([model_a, model_b], caller, ["model_a", "model_b"])
    return a.rebuild(interpolate_states(a.state, b.state, alpha))


def average_models(models, *, weights=None):
    """Return the mean of models in weight space, as they are: no alignment, no repair.

    Sums run in float64, so that the order of the models matters to the last bit at most.
    Integer buffers (batch-norm counters) are those of the first model with positive weight.

    Parameters
    ----------
    models : list of skorch nets, fitted sklmc estimators or torch.nn.Modules
        At least one model; all of one architecture. None is changed.
    weights : array-like of shape (n_models,), default=None
        Not negative; scaled to sum to one. None means equal weights.

    Returns
    -------
    model : same kind as ``models[0]``
        A new model; a net's history and optimizer state are empty.

    Raises
    ------
    ArchitectureMismatchError
        If the tensors, tasks or classes of the models differ (a ValueError).
    NonFiniteError
        If a weight is NaN or infinite (a ValueError).
    ValueError
        If `weights` has the wrong length, a negative entry, or sums to zero.

    See Also
    --------
    merge_models : Align the models first, and repair the mean.

    References
    ----------
    .. [1] Wortsman et al., "Model soups", ICML 2022 (the uniform soup).

    Examples
    --------
    >>> import torch
    >>> from sklmc import average_models
    >>> nets = [torch.nn.Linear(2, 1) for _ in range(3)]
    >>> mean = average_models(nets)
    >>> torch.allclose(mean.weight, sum(net.weight for net in nets) / 3)
    True
    """
    caller = "average_models"
    models = check_models(models, caller)
    weights = check_weights(weights, len(models), caller)
    views = view_compatible(models, caller)
    return views[0].rebuild(average_states([one.state for one in views], weights))
