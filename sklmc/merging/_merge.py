"""Models in hand, aligned and averaged into one."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from sklearn.base import clone
from tqdm.auto import tqdm

from sklmc._validation import check_option, check_weights
from sklmc.alignment import check_aligner, make_aligner
from sklmc.exceptions import StaleStatisticsWarning
from sklmc.merging._repairs._batch_norm import tracked_norms
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._parts import split_by_part
from sklmc.merging._repairs._repair import METHODS, TARGETS, needs_repair, repair_state
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.models import (
    ModelView,
    describe,
    list_models,
    read_data,
    view,
    view_compatible,
    with_provenance,
)


class Merged(NamedTuple):
    """A merged model, and the repair and its target that made it (None for the plain mean)."""

    model: object
    repair: str | None
    target: str | None


def merge_models(
    models, X=None, y=None, *, aligner="weight", target="auto", repair="auto", weights=None
):
    """Merge trained models into one: align, average, repair.

    Nets that were trained independently order their hidden units differently. Every model is
    first aligned with ``models[0]``, the reference, by permutations of hidden units that leave
    its function unchanged; then weights are averaged, and what the mean breaks is repaired.

    Parameters
    ----------
    models : list of skorch nets, fitted sklmc estimators or torch.nn.Modules
        At least one model; all of one architecture and with the same classes. None is changed.
        Also fitted MLPClassifiers and MLPRegressors of scikit-learn, Pipelines (scalers that
        differ are folded into the first linear layer), an ensemble in place of its members, or a
        pair of a model and a list of states (state dicts, paths of safetensors files).
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset, DataLoader or list, default=None
        Samples for the aligner (where it needs any) and for the repair; unlabelled data serve.
        Without X, "auto" averages and no more.
    y : array-like of shape (n_samples,), default=None
        Labels of X, for aligners that learn from them and for the choice of the repair.
    aligner : str, aligner object or None, default="weight"
        How models are aligned with ``models[0]``: a method of
        :class:`~sklmc.PermutationAligner` ("weight", "activation", "straight_through", "auto"),
        "merge_many" (:class:`~sklmc.MultiAligner`), an aligner with its own settings
        (it is cloned), or None to average the models as they are.
    target : {"auto", "labels", "logit", "mean", "own", "probability"}, default="auto"
        What "refit" fits the layers to; see :func:`sklmc.repair`. For "own" and "labels" X is a
        list, the samples of each model's owner (and y a list like it, or None).
    repair : {"auto", "batch_norm", "refit", "renormalize"} or None, default="auto"
        What follows the average; see :func:`sklmc.repair`. "auto" chooses on a fifth of X
        and never takes what does worse there than the plain mean. None leaves the plain mean.
    weights : array-like of shape (n_models,), default=None
        Weights of the mean, not negative; scaled to sum to one. None means equal weights.

    Returns
    -------
    model : same kind as ``models[0]``
        A new model; a net's history and optimizer state are empty. A fitted estimator enters a
        Pipeline as ``FrozenEstimator(model)``.

    Raises
    ------
    ArchitectureMismatchError
        If the tensors, tasks or classes of the models differ (a ValueError).
    NonFiniteError
        If a weight is NaN or infinite (a ValueError).
    ValueError
        If `weights` has the wrong length, a negative entry or sums to zero, if a method is
        unknown, if X is missing where the repair needs it or does not fit the net, or if y
        does not fit its outputs (length, shape, range of the labels).

    Warns
    -----
    StaleStatisticsWarning
        If batch-norm statistics are averaged because there is no X.

    See Also
    --------
    EnsembleMerger : The same as an estimator that compares the result with its parts.
    WeightAverager : Trains the nets as well.
    average_models : The plain mean.
    sklmc.repair : The repairs.

    Notes
    -----
    The result depends on which model comes first, since that one stays where it is. Equal models
    merge into that model, to the bit, under every aligner and repair. An aligner
    named by its method runs with ``random_state=0``: equal input gives equal output.

    References
    ----------
    .. [1] Ainsworth, Hayase, Srinivasa, "Git Re-Basin: merging models modulo permutation
       symmetries", ICLR 2023.
    .. [2] Jordan et al., "REPAIR: REnormalizing permuted activations for interpolation repair",
       ICLR 2023.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import NetClassifier, merge_models
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> nets = [NetClassifier(random_state=i, max_epochs=20).fit(X, y) for i in range(2)]
    >>> merged = merge_models(nets, X)
    >>> bool(merged.score(X, y) > 0.8)
    True
    """
    caller = "merge_models"
    models = list_models(models, caller)
    weights = check_weights(weights, len(models), caller)
    check_aligner(aligner, caller)
    check_option(repair, [*METHODS, None], caller, "repair")
    check_option(target, TARGETS, caller, "target")
    looks = view_compatible(models, caller)
    if y is not None and X is None:
        raise ValueError(f"{caller}: 'y' was given without 'X'; pass the samples as well.")
    samples = None
    if X is not None:
        X, y, part = split_by_part(X, y, target, len(looks), caller)
        samples = SampleSet(*read_data(looks[0], X, y), part)
    aligned = align_models([look.model for look in looks], aligner, X, y)
    parents = looks
    looks = [view(model, caller=caller, name=f"models[{i}]") for i, model in enumerate(aligned)]
    ends = EndPoints([look.state for look in looks], weights)
    merged = merge_views(looks, ends, samples, repair, target)
    how = {"aligner": describe(aligner), "repair": merged.repair, "target": merged.target}
    return with_provenance(merged.model, parents, caller, **how, weights=weights.tolist())


def align_models(models: Sequence, aligner, X=None, y=None, verbose: int = 0) -> list:
    """Return the models re-based onto the first, which stays as it is."""
    if aligner is None or len(models) == 1:
        return list(models)
    if isinstance(aligner, str):
        aligner = make_aligner(aligner)
    if "models" in inspect.signature(aligner.fit).parameters:  # one fit for all of them
        return list(clone(aligner).fit(models, X, y).transform(models))
    reference, *others = models
    bar = tqdm(others, desc="align", disable=not verbose)
    return [
        reference,
        *(clone(aligner).fit(reference, model, X, y).transform(model) for model in bar),
    ]


def merge_views(
    looks: Sequence[ModelView],
    ends: EndPoints,
    samples: SampleSet | None,
    repair: str | None,
    target: str = "auto",
) -> Merged:
    """Return the mean of aligned models, repaired, and how."""
    first = looks[0]
    mean = ends.mean()
    if samples is not None:
        repaired = repair_state(first, mean, ends, samples, repair, target)
        return Merged(first.rebuild(repaired.state), repaired.method, repaired.target)
    if repair not in ("auto", None):
        raise ValueError(f"{first.caller}: repair={repair!r} needs samples; pass 'X'.")
    if repair == "auto" and needs_repair(first, ends, "batch_norm"):
        warnings.warn(
            f"{first.caller}: batch-norm statistics were averaged, but they do not belong to the "
            f"averaged weights ({len(tracked_norms(first.module))} layers); pass 'X' to estimate "
            "them again, or repair=None to keep the plain mean.",
            StaleStatisticsWarning,
            stacklevel=3,
        )
    return Merged(first.rebuild(mean), None, None)
