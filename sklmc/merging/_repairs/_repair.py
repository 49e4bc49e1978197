"""What a merged net needs besides the mean of the weights, and which repair serves it best."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sklmc._torch import are_equal
from sklmc._validation import check_option, check_weights
from sklmc.exceptions import SklmcWarning
from sklmc.merging._repairs._batch_norm import reestimate_statistics, tracked_norms
from sklmc.merging._repairs._refit import refit_state
from sklmc.merging._repairs._renormalize import renormalize_state
from sklmc.models import (
    Inputs,
    ModelView,
    State,
    as_logits,
    fit_inverse_temperature,
    is_classification,
    list_models,
    mean_over_samples,
    per_sample_loss,
    predict_outputs,
    read_data,
    view_compatible,
)

MOST_SAMPLES = 10_000  # of refit and renormalize; more gain next to nothing
LEAST_FOR_CHOICE = 50  # samples; with fewer, "auto" does what needs no choice
JUDGED = 5  # every fifth sample is kept to judge by


@dataclass(frozen=True)
class Repair:
    """One way to mend a weighted mean of end points.

    `run(look, state, endpoints, inputs, weights)` returns the mended copy of `state`, and the names
    of the weights that it left averaged.
    """

    name: str
    run: Callable[..., tuple[State, list[str]]]
    needs_batch_norm: bool = False  # mends nothing else
    least: int = 1  # samples; fewer are refused
    few: int = 0  # samples; below, a repair that was asked for warns
    least_for_auto: int = 0  # samples; with fewer, "auto" does not try it
    most: int | None = MOST_SAMPLES  # samples that it uses; None is all


def _reestimate(look, state, endpoints, inputs, weights) -> tuple[State, list[str]]:
    """Give the mean statistics of its own: the end points do not matter."""
    return reestimate_statistics(look, state, inputs), []


# in the order in which "auto" tries them: the first wins ties
REPAIRS = {
    repair.name: repair
    for repair in (
        Repair("batch_norm", _reestimate, needs_batch_norm=True, most=None),
        Repair("renormalize", renormalize_state, least=2),
        Repair("refit", refit_state, least=2, few=500, least_for_auto=100),
    )
}
METHODS = ("auto", *sorted(REPAIRS))


def repair(model, models, X, *, y=None, weights=None, method="auto"):
    """Repair a merged model so that its hidden units respond as those of its end points did.

    The mean of weights is not the net whose activations are the mean: activations shrink from
    layer to layer, and batch-norm statistics belong to no net. The end points must be *aligned*
    with each other, as :func:`merge_models` leaves them. No method needs labels.

    Parameters
    ----------
    model : skorch net, fitted sklmc estimator or torch.nn.Module
        The weighted mean of `models`. It is not changed.
    models : list of skorch nets, fitted sklmc estimators or torch.nn.Modules
        The aligned models that `model` was averaged from. They are not changed.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        Samples like those that the models were trained on; two thousand serve well. Samples of
        another kind (noise) can harm.
    y : array-like of shape (n_samples,), default=None
        Labels of X; only "auto" reads them.
    weights : array-like of shape (n_models,), default=None
        The weights of the mean; None means equal weights. Where all weight lies on one end
        point, or on equal ones, the model is that end point and comes back as it is.
    method : {"auto", "batch_norm", "refit", "renormalize"}, default="auto"
        "batch_norm": every batch-norm layer gets the mean and the unbiased variance of what
        reaches it from X, in data-flow order [1]_. A model without batch norm comes back as it
        is.

        "renormalize": the weights and bias of every hidden unit are scaled and shifted until
        its pre-activation has the weighted mean of the end points' means and standard
        deviations (REPAIR [2]_), in data-flow order; batch norm included. Constant units stay.

        "refit": every linear and convolution layer is fitted again, in data-flow order, by ridge
        regression from what reaches it in the merged model to the mean of what it gives in the
        end points, the ridge pulling towards the mean of the weights. Batch norm behind a layer
        is part of it; a layer that ends a residual branch answers for the whole stream. Relatives
        of this are [3]_, [4]_ and [5]_.

        "auto": whichever of these, or none, does best on a fifth of X that is kept from the fit:
        by loss where `y` is given (of classifiers after one inverse temperature), else by how
        near it comes to the end points' mean prediction. With fewer than 100 samples "refit" is
        not tried; with fewer than 50 nothing is chosen, and "batch_norm" is done where there is
        batch norm.

    Returns
    -------
    model : same kind as `model`
        A new model.

    Raises
    ------
    ValueError
        If the models differ in architecture, X is missing, empty, of a single sample, a list of
        batches or unfit for the net, or y does not fit its outputs (length, shape, range of the
        labels).

    Warns
    -----
    SklmcWarning
        If "refit" was asked for on fewer than 500 samples; if "refit" or "renormalize" was asked
        for and leaves weights as the average has them (recurrent layers, packed attention, tied
        or re-parametrised weights), which it names.

    See Also
    --------
    merge_models : Aligns, averages and repairs in one call.
    average_models : The plain mean.

    Notes
    -----
    The architecture does not change, nor the cost of a prediction. Statistics of "batch_norm"
    are exact means over all of X, whatever the batch size. "refit" and "renormalize" use at most
    10,000 samples, evenly spaced, and at most 64,000 positions of images; each layer costs a
    part of a forward pass, and "refit" a linear system of the size of the layer's inputs.

    "refit" brings back the confidence of the end points, over-confidence included: calibrate
    after it. It hides a bad alignment from view; judge aligners without it.

    References
    ----------
    .. [1] Izmailov et al., "Averaging weights leads to wider optima and better generalization",
       UAI 2018.
    .. [2] Jordan et al., "REPAIR: REnormalizing permuted activations for interpolation repair",
       ICLR 2023.
    .. [3] Jin et al., "Dataless knowledge fusion by merging weights of language models" (RegMean),
       ICLR 2023.
    .. [4] Nasery et al., "PLeaS: merging models with permutations and least squares", CVPR 2025.
    .. [5] Luenam et al., "Model fusion via neuron transplantation and Hungarian matching",
       arXiv:2507.00037, 2025.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklmc import average_models, repair
    >>> from sklmc.nets import MLP
    >>> nets = [MLP(n_features=2, n_outputs=2, width=4, norm="batch") for _ in range(2)]
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> repaired = repair(average_models(nets), nets, X, method="batch_norm")
    >>> hidden = repaired.layers[0](torch.tensor(X, dtype=torch.float32))
    >>> torch.allclose(repaired.layers[1].running_mean, hidden.mean(dim=0), atol=1e-6)
    True
    """
    caller = "repair"
    check_option(method, METHODS, caller, "method")
    models = list_models(models, caller)
    weights = check_weights(weights, len(models), caller)
    names = ["model", *(f"models[{i}]" for i in range(len(models)))]
    merged, *ends = view_compatible([model, *models], caller, names)
    if X is None:
        raise ValueError(f"{caller}: 'X' is None; pass samples of the data (labels not needed).")
    inputs, target = read_data(merged, X, y)
    states = [end.state for end in ends]
    state, _ = repair_state(merged, merged.state, states, inputs, target, weights, method)
    return merged.rebuild(state)


def repair_state(
    look: ModelView,
    state: State,
    endpoints: Sequence[State],
    inputs: Inputs,
    target: torch.Tensor | None,
    weights: np.ndarray,
    method: str | None,
) -> tuple[State, str | None]:
    """Return a repaired copy of a weighted mean of states, and the method that made it."""
    if not needs_repair(look, endpoints, weights, method):
        return state, None
    run = functools.partial(_run, look, state, endpoints, weights)
    if method != "auto":
        return run(method, inputs, explicit=True), method
    normed = bool(tracked_norms(look.module))
    if len(inputs) < LEAST_FOR_CHOICE:
        return (run("batch_norm", inputs), "batch_norm") if normed else (state, None)
    candidates = {"": lambda _: state}
    for one in REPAIRS.values():
        if len(inputs) >= one.least_for_auto and (normed or not one.needs_batch_norm):
            candidates[one.name] = functools.partial(run, one.name)
    kept = inputs.spread(MOST_SAMPLES)
    target = None if target is None else target[kept]
    chosen, name = choose_state(look, candidates, endpoints, inputs[kept], target, weights)
    return chosen, name or None


def needs_repair(
    look: ModelView, endpoints: Sequence[State], weights: np.ndarray, method: str | None
) -> bool:
    """Say whether a mean with these weights differs from its end points in what `method` mends."""
    first, *others = (end for end, weight in zip(endpoints, weights, strict=True) if weight > 0)
    pairs = [(tensor, other[name]) for other in others for name, tensor in first.items()]
    if method is None or all(are_equal(pairs)):
        return False
    needs_batch_norm = method != "auto" and REPAIRS[method].needs_batch_norm
    return not needs_batch_norm or bool(tracked_norms(look.module))


def _run(
    look: ModelView,
    state: State,
    endpoints: Sequence[State],
    weights: np.ndarray,
    method: str,
    inputs: Inputs,
    explicit: bool = False,
) -> State:
    """Run one method; say what it left averaged where the user asked for it by name."""
    repair = REPAIRS[method]
    n_samples = len(inputs)
    if n_samples < repair.least:
        raise ValueError(
            f"{look.caller}: 'X' holds {n_samples} sample, too few for a variance; pass at least "
            f"two (and for 'refit' {REPAIRS['refit'].few} or more)."
        )
    if explicit and n_samples < repair.few:
        warnings.warn(
            f"{look.caller}: {method!r} on {n_samples} samples may harm; pass {repair.few} or more "
            "(labels are not needed), or use repair='auto', which checks.",
            SklmcWarning,
            stacklevel=4,
        )
    if repair.most is not None:
        inputs = inputs[inputs.spread(repair.most)]
    repaired, left = repair.run(look, state, endpoints, inputs, weights)
    if explicit and left:
        text = ", ".join(repr(name) for name in left[:5]) + (", ..." if len(left) > 5 else "")
        warnings.warn(
            f"{look.caller}: {method!r} repairs linear and convolution layers that are called once "
            f"with a weight of their own; {len(left)} weights were left averaged: {text}.",
            SklmcWarning,
            stacklevel=4,
        )
    return repaired


def choose_state(
    look: ModelView,
    candidates: Mapping[str, Callable[[Inputs], State]],
    endpoints: Sequence[State],
    inputs: Inputs,
    target: torch.Tensor | None,
    weights: np.ndarray,
) -> tuple[State, str]:
    """Return the candidate that does best on samples kept from its fit; the first among equals.

    With a target, by its loss (of classifiers after one inverse temperature, so that a mere
    change of scale decides nothing); without, by how near it comes to the end points' mean.
    """
    rows = torch.arange(len(inputs))
    judged = rows % JUDGED == JUDGED - 1
    fitted, kept = inputs[rows[~judged]], inputs[rows[judged]]
    if target is not None:
        wanted = target[rows[judged]]
    else:
        wanted = _mean_prediction(look, endpoints, kept, weights)
    best, chosen, least = None, "", np.inf
    for name, make in candidates.items():
        state = make(fitted)
        outputs = predict_outputs(look, kept, state)
        badness = misfit(look, outputs, wanted, known=target is not None)
        if best is None or badness < least:
            best, chosen, least = state, name, badness
    return best, chosen


def misfit(
    look: ModelView,
    outputs: torch.Tensor,
    wanted: torch.Tensor,
    known: bool,
    sample_weight: np.ndarray | None = None,
) -> float:
    """Return how badly outputs fit labels or values (weighted), or the end points' mean."""
    if not torch.isfinite(outputs).all():
        return np.inf
    if not known and look.task == "classifier":
        logs = torch.log_softmax(_double_logits(outputs), dim=-1)
        return -float((wanted * logs).sum(dim=-1).mean())
    if not known:
        return float((outputs.double() - wanted).square().mean())
    if is_classification(wanted) and wanted.ndim == 1:
        outputs = as_logits(outputs).double()
        shares = None if sample_weight is None else torch.from_numpy(sample_weight)
        beta = fit_inverse_temperature(outputs, wanted, held_out=True, weights=shares)
        outputs = outputs * beta
    return mean_over_samples(per_sample_loss(outputs, wanted, look.caller), sample_weight)


def _mean_prediction(
    look: ModelView, endpoints: Sequence[State], inputs: Inputs, weights: np.ndarray
) -> torch.Tensor:
    """Return the end points' mean probabilities, or their mean outputs where there are none."""
    total = 0.0
    for state, weight in zip(endpoints, weights, strict=True):
        if weight == 0:
            continue
        outputs = predict_outputs(look, inputs, state)
        if look.task == "classifier":
            outputs = torch.softmax(_double_logits(outputs), dim=-1)
        total = total + weight * outputs.double()
    return total


def _double_logits(outputs: torch.Tensor) -> torch.Tensor:
    """Return logits in float64, two of them where the net has one."""
    single = outputs.ndim == 1 or outputs.shape[-1] == 1
    return (as_logits(outputs) if single else outputs).double()
