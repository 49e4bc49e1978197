"""What a merged net needs besides the mean of the weights, and which repair serves it best."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch

from sklmc._torch import are_equal
from sklmc._validation import check_option, check_weights
from sklmc.exceptions import SklmcWarning
from sklmc.merging._repairs._batch_norm import reestimate_statistics, tracked_norms
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._parts import split_by_part
from sklmc.merging._repairs._refit import classifies, fitting_targets, refit_state
from sklmc.merging._repairs._renormalize import renormalize_state
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.models import (
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
Option = tuple[str | None, str | None]  # a repair and its target; None is the plain mean
Candidates = Mapping[Option, Callable[[SampleSet], State]]
TARGETS = ("auto", "labels", "logit", "mean", "own", "probability")  # of a refit


@dataclasses.dataclass(frozen=True)
class Repair:
    """One way to mend a weighted mean of end points.

    `run(look, state, ends, samples)` returns the mended copy of `state`, and the names of the
    weights that it left averaged; one with targets also takes the `target`.
    """

    name: str
    run: Callable[..., tuple[State, list[str]]]
    has_targets: bool = False
    needs_batch_norm: bool = False  # mends nothing else
    least: int = 1  # samples; fewer are refused
    few: int = 0  # samples; below, a repair that was asked for warns
    least_for_auto: int = 0  # samples; with fewer, "auto" does not try it
    most: int | None = MOST_SAMPLES  # samples that it uses, of each end point's own; None is all


def _reestimate(look, state, ends, samples) -> tuple[State, list[str]]:
    """Give the mean statistics of its own: the end points do not matter."""
    return reestimate_statistics(look, state, samples.inputs), []


# in the order in which "auto" tries them: the first wins ties
REPAIRS = {
    repair.name: repair
    for repair in (
        Repair("batch_norm", _reestimate, needs_batch_norm=True, most=None),
        Repair("renormalize", renormalize_state, least=2),
        Repair("refit", refit_state, has_targets=True, least=2, few=500, least_for_auto=100),
    )
}
METHODS = ("auto", *sorted(REPAIRS))


@dataclasses.dataclass(frozen=True)
class Repaired:
    """A repaired state, and what made it (None for the plain mean)."""

    state: State
    method: str | None = None
    target: str | None = None


def repair(model, models, X, *, y=None, weights=None, method="auto", target="auto"):
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
        Labels of X; only "auto" and the target "labels" read them.
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

        "refit": every linear and convolution layer (grouped, depthwise and transposed ones too)
        and every projection of torch's attention is fitted again, in data-flow order, by ridge
        regression from what reaches it in the merged model to the mean of what it gives in the
        end points, the ridge pulling towards the mean of the weights. Batch norm behind a layer
        is part of it; a layer that ends a residual branch answers for the whole stream. Relatives
        of this are [3]_, [4]_ and [5]_.

        "auto": whichever of these, or none, does best on a fifth of X that is kept from the fit:
        by loss where `y` is given (of classifiers after one inverse temperature), else by how
        near it comes to the end points' mean prediction. What was chosen is then done with all of
        X. With fewer than 100 samples "refit" is not tried; with fewer than 50 nothing is chosen,
        and "batch_norm" is done where there is batch norm.

    target : {"auto", "labels", "logit", "mean", "own", "probability"}, default="auto"
        What "refit" fits the layers to. "mean" (of classifiers also called "logit"): what the end
        points give in the mean.

        "probability": the same, but the last layer is fitted to the end points' mean
        probabilities, which an ensemble of classifiers averages: the Kullback-Leibler divergence,
        which is convex, with the same ridge.

        "own": what each end point gives on samples of its own, where it is an expert; X is a list
        with the samples of each end point. Of layer l that reads h in the merged model, W
        minimises ``sum_i w_i / n_i sum_(x of i) |W h(x) + b - t_i(x)|^2`` and the ridge.

        "labels": "own", but the last layer is fitted to y (a list like X): to 9 for the label and
        -1 for all others. Most labels are right then, but confidence is not: scale the logits.

        "auto": "mean" or "probability", which does better on a fifth of X, as for `method`. (An
        :class:`EnsembleMerger` that is given samples by part chooses among "own", "labels" and
        "mean".)

    Returns
    -------
    model : same kind as `model`
        A new model.

    Raises
    ------
    ValueError
        If the models differ in architecture, X is missing, empty, of a single sample or unfit for
        the net, if a target does not suit X, y or the model, or if y does not fit its outputs
        (length, shape, range of the labels).

    Warns
    -----
    SklmcWarning
        If "refit" was asked for on fewer than 500 samples; if "refit" or "renormalize" was asked
        for and leaves weights as the average has them (recurrent layers, tied or re-parametrised
        weights), which it names.

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
    What a layer that is called once is fitted on depends on the layers before it alone: a second
    sweep of "refit" would find nothing to do. Recurrent layers are left: what reaches their
    weights depends on these weights themselves, which is no least squares.

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
    check_option(target, TARGETS, caller, "target")
    models = list_models(models, caller)
    weights = check_weights(weights, len(models), caller)
    names = ["model", *(f"models[{i}]" for i in range(len(models)))]
    merged, *ends = view_compatible([model, *models], caller, names)
    if X is None:
        raise ValueError(f"{caller}: 'X' is None; pass samples of the data (labels not needed).")
    X, y, part = split_by_part(X, y, target, len(models), caller)
    samples = SampleSet(*read_data(merged, X, y), part)
    ends = EndPoints([end.state for end in ends], weights)
    return merged.rebuild(repair_state(merged, merged.state, ends, samples, method, target).state)


def repair_state(
    look: ModelView,
    state: State,
    ends: EndPoints,
    samples: SampleSet,
    method: str | None,
    target: str = "auto",
) -> Repaired:
    """Return a repaired copy of a weighted mean of states, and what made it."""
    if not needs_repair(look, ends, method):
        return Repaired(state)
    samples = samples.weighted(ends.weights)
    run = functools.partial(_run, look, state, ends)
    normed = bool(tracked_norms(look.module))
    targets: tuple[str, ...] = ()
    if method == "auto" or REPAIRS[method].has_targets:
        targets = fitting_targets(look, state, samples, target)
    if method != "auto":
        options = _with_targets(REPAIRS[method], targets)
        if len(options) > 1 and len(samples) >= LEAST_FOR_CHOICE:
            candidates: Candidates = {one: functools.partial(run, *one) for one in options}
            options = [choose_option(look, candidates, ends, samples.spread(MOST_SAMPLES))]
        return Repaired(run(*options[0], samples, explicit=True), *options[0])
    if len(samples) < LEAST_FOR_CHOICE:
        if not normed:
            return Repaired(state)
        return Repaired(run("batch_norm", None, samples), "batch_norm")
    candidates = {(None, None): lambda _: state}
    for one in REPAIRS.values():
        if len(samples) >= one.least_for_auto and (normed or not one.needs_batch_norm):
            for option in _with_targets(one, targets):
                candidates[option] = functools.partial(run, *option)
    best = choose_option(look, candidates, ends, samples.spread(MOST_SAMPLES))
    return Repaired(candidates[best](samples), *best)


def _with_targets(repair: Repair, targets: tuple[str, ...]) -> list[tuple[str, str | None]]:
    """Return a repair with each target that it may have."""
    return [(repair.name, one) for one in (targets if repair.has_targets else (None,))]


def needs_repair(look: ModelView, ends: EndPoints, method: str | None) -> bool:
    """Say whether a mean with these weights differs from its end points in what `method` mends."""
    first, *others = (state for _, state, _ in ends.used())
    pairs = [(tensor, other[name]) for other in others for name, tensor in first.items()]
    if method is None or all(are_equal(pairs)):
        return False
    needs_batch_norm = method != "auto" and REPAIRS[method].needs_batch_norm
    return not needs_batch_norm or bool(tracked_norms(look.module))


def _run(
    look: ModelView,
    state: State,
    ends: EndPoints,
    method: str,
    target: str | None,
    samples: SampleSet,
    explicit: bool = False,
) -> State:
    """Run one method; say what it left averaged where the user asked for it by name."""
    repair = REPAIRS[method]
    n_samples = len(samples)
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
        samples = samples.spread(repair.most)
    with_target = {"target": target} if repair.has_targets else {}
    repaired, left = repair.run(look, state, ends, samples, **with_target)
    if explicit and left:
        text = ", ".join(repr(name) for name in left[:5]) + (", ..." if len(left) > 5 else "")
        warnings.warn(
            f"{look.caller}: {method!r} repairs linear, convolution and attention layers with a "
            f"weight of their own; {len(left)} weights were left averaged: {text}.",
            SklmcWarning,
            stacklevel=4,
        )
    return repaired


def choose_option(
    look: ModelView, candidates: Candidates, ends: EndPoints, samples: SampleSet
) -> Option:
    """Return which candidate does best on samples kept from its fit; the first among equals.

    With labels, by its loss (of classifiers after one inverse temperature, so that a mere
    change of scale decides nothing); without, by how near it comes to what the end points
    predict: all of them in the mean, or each on its own samples.
    """
    fitted, kept = samples.split()
    wanted = own_predictions(look, ends, kept) if kept.labels is None else None

    def badness(option: Option) -> float:
        outputs = predict_outputs(look, kept.inputs, candidates[option](fitted))
        if wanted is None:
            return misfit(look, outputs, kept.labels)
        return distance(outputs, wanted, classifies(look, kept.labels))

    return min(candidates, key=badness)


def misfit(
    look: ModelView,
    outputs: torch.Tensor,
    labels: torch.Tensor,
    sample_weight: np.ndarray | None = None,
) -> float:
    """Return how badly outputs fit labels or values (weighted)."""
    if not torch.isfinite(outputs).all():
        return np.inf
    if is_classification(labels) and labels.ndim == 1:
        outputs = as_logits(outputs).double()
        shares = None if sample_weight is None else torch.from_numpy(sample_weight)
        beta = fit_inverse_temperature(outputs, labels, held_out=True, weights=shares)
        outputs = outputs * beta
    return mean_over_samples(per_sample_loss(outputs, labels, look.caller), sample_weight)


def distance(outputs: torch.Tensor, wanted: torch.Tensor, classifier: bool) -> float:
    """Return how far outputs are from predictions: from probabilities, of a classifier."""
    if not torch.isfinite(outputs).all():
        return np.inf
    if not classifier:
        return float((outputs.double() - wanted).square().mean())
    logs = torch.log_softmax(as_logits(outputs).double(), dim=-1)
    return -float((wanted * logs).sum(dim=-1).mean())


def own_predictions(look: ModelView, ends: EndPoints, samples: SampleSet) -> torch.Tensor:
    """Return probabilities, or outputs where there are none: everyone's mean, or each's own."""
    classifier = classifies(look, samples.labels)
    if samples.part is None:
        found = [predict_outputs(look, samples.inputs, state) for _, state, _ in ends.used()]
        if classifier:
            return ends.mean_probability([as_logits(one) for one in found])
        return ends.mean_output(found, by_class=False)
    rows, parts = [], []
    for index, state, _ in ends.used():
        own = torch.nonzero(samples.part == index)[:, 0]
        if len(own):
            found = predict_outputs(look, samples.inputs[own], state).double()
            parts.append(torch.softmax(as_logits(found), dim=-1) if classifier else found)
            rows.append(own)
    joined = torch.cat(parts)
    ordered = torch.zeros(len(samples), *joined.shape[1:], dtype=torch.float64)
    ordered[torch.cat(rows)] = joined
    return ordered
