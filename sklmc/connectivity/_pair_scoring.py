"""From models, X and y to the curves of pairs, and to the table of the pairs of a grid's cells."""

from __future__ import annotations

import copy
import hashlib
import inspect
import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from tqdm.auto import tqdm

from sklmc._sklearn import Parallel, delayed
from sklmc._validation import check_same_length, check_sample_weight
from sklmc.alignment import check_aligner, make_aligner
from sklmc.connectivity._path_job import Curves, PathJob, cut_into_tasks, make_plan
from sklmc.connectivity._path_losses import Samples
from sklmc.connectivity._path_score import alpha_grid
from sklmc.connectivity._population import Population
from sklmc.connectivity._score_cache import check_aligner_seed, keep_curves, score_key
from sklmc.estimators._points import label_points
from sklmc.exceptions import NonFiniteLossWarning, PairFailedWarning, StaleStatisticsWarning
from sklmc.merging import tracked_norms
from sklmc.models import (
    ModelView,
    check_compatible,
    is_classification,
    open_folder,
    read_labelled_data,
    view,
    view_together,
)

GRID = "LMCScorer.grid"  # the caller that messages about cells name
TASKS_PER_JOB = 3  # so that workers end at about the same time


def score_pairs(
    models: Sequence,
    pairs: Sequence[tuple[int, int]],
    X,
    y,
    names: Sequence[str],
    caller: str,
    scorer,
    folder: Path | None = None,
    sample_weight=None,
) -> tuple[Curves, bool, float]:
    """Score some pairs of models with the settings of an LMCScorer.

    Returns their curves in the order of `pairs`, whether they classify, and the variance of y. All
    means over samples, the variance too, are weighted where there are weights. The curves are kept
    in `folder`; None keeps nothing.
    """
    aligner = check_aligner(scorer.aligner, caller)
    aligner = make_aligner(aligner) if isinstance(aligner, str) else aligner
    looks = view_together(models, caller, names)
    bad = _unfit_models(looks, names, caller, scorer)
    good = [index for index in range(len(looks)) if index not in bad]
    look = looks[good[0]]
    samples, classify, kind = _samples(look, X, y, caller, scorer, sample_weight)
    _warn_of_batch_norm(look, caller, scorer)
    shared = {
        "alphas": alpha_grid(scorer.n_alphas),
        "classify": classify,
        "calibration": kind,
        "aligner": aligner,
        "repair": scorer.repair,
    }
    failures = {k: bad.get(b, bad.get(a)) for k, (a, b) in enumerate(pairs) if a in bad or b in bad}
    curves = Curves(np.full((4, len(pairs), len(shared["alphas"])), np.nan), failures)
    todo = [k for k in range(len(pairs)) if k not in curves.failures]

    def compute() -> Curves:
        wanted = [pairs[k] for k in todo]
        return _compute(looks, good, wanted, X, y, names, caller, scorer, samples=samples, **shared)

    key = None
    if folder is not None:
        everything = (pairs, todo, samples.digest(), shared)
        key = score_key(looks, *everything, caller=caller)
    found = compute() if key is None else keep_curves(folder, key, compute, caller)
    curves.values[:, todo] = found.values
    curves.failures.update({todo[k]: reason for k, reason in found.failures.items()})
    _report(curves, pairs, names, shared["alphas"], caller, scorer)
    return curves, classify, _variance(samples)


def _variance(samples: Samples) -> float:
    """Return the variance of the targets that are scored, averaged over outputs."""
    target = np.asarray(samples.target[: samples.n_scored], dtype=np.float64)
    target = target.reshape(len(target), -1)
    if samples.weights is None:
        return float(target.var(axis=0).mean())
    mean = np.average(target, axis=0, weights=samples.weights)
    return float(np.average((target - mean) ** 2, axis=0, weights=samples.weights).mean())


def _compute(looks, good, pairs, X, y, names, caller: str, scorer, *, aligner, **shared) -> Curves:
    """Return the curves of pairs of good models, all moved at once where the aligner does so."""
    if aligner is not None and "models" in inspect.signature(aligner.fit).parameters:
        if shared["samples"].weights is not None:
            X, y = shared["samples"].side()  # without those of weight zero
        moved = clone(aligner).fit([looks[k].model for k in good], X, y)
        moved = moved.transform([looks[k].model for k in good])
        looks = list(looks)
        for k, model in zip(good, moved):
            looks[k] = view(model, caller=caller, name=names[k])
        aligner = None
    place, kept = _distinct(looks, good)
    job = PathJob(
        population=Population([looks[k] for k in kept]),
        aligner=aligner,
        catch=scorer.error_score != "raise",
        **shared,
    )
    job.plan = make_plan(job)
    return _run(job, [(place[a], place[b]) for a, b in pairs], caller, scorer)


def _samples(
    look: ModelView, X, y, caller: str, scorer, sample_weight
) -> tuple[Samples, bool, str | None]:
    """Return inputs and targets, the calibration samples behind those that count."""
    samples, classify = check_samples(look, X, y, sample_weight)
    kind = scorer.calibration
    if kind is not None and not classify:
        raise ValueError(
            f"{caller}: 'calibration' fits an inverse temperature, which regression has not; "
            f"got {kind if isinstance(kind, str) else '(X_cal, y_cal)'!r} with float targets: set "
            "calibration=None."
        )
    if kind == "crossfit" and samples.n_scored < 2:
        raise ValueError(
            f"{caller}: calibration='crossfit' needs at least 2 samples, got {samples.n_scored}."
        )
    if kind is None or isinstance(kind, str):
        return samples, classify, kind
    X_cal, y_cal = tuple(kind)
    check_same_length(X_cal, y_cal, f"{caller}, 'calibration'")
    more, _ = check_samples(look, X_cal, y_cal)
    target = np.concatenate([samples.target, more.target])
    return Samples(samples.inputs, target, more.inputs, samples.weights), classify, "given"


def check_samples(look: ModelView, X, y, sample_weight=None) -> tuple[Samples, bool]:
    """Return inputs and targets, and whether they classify; clear errors otherwise.

    Samples of weight zero are left out.
    """
    inputs, target = read_labelled_data(look, X, y)
    weights = check_sample_weight(sample_weight, len(target), look.caller)
    if weights is not None:
        rows = np.flatnonzero(weights)
        weights = weights[rows] / weights.max()  # first, so that sums of huge ones are finite
        if len(rows) < len(target):
            inputs, target = inputs[torch.from_numpy(rows)], target[rows]
    samples = Samples(inputs, target.contiguous().numpy(), weights=weights)
    return samples, is_classification(target)


def _unfit_models(looks, names, caller: str, scorer) -> dict[int, str]:
    """Return the models that cannot be scored with the others, or raise."""
    if scorer.error_score == "raise":
        check_compatible(looks, caller, list(names))
        return {}
    bad: dict[int, str] = {}
    for k in range(len(looks)):
        first = next((i for i in range(k) if i not in bad), None)
        chosen = [k] if first is None else [first, k]
        try:
            check_compatible([looks[i] for i in chosen], caller, [names[i] for i in chosen])
        except ValueError as error:
            bad[k] = str(error)
    if len(bad) == len(looks):
        raise ValueError(f"{caller}: no model can be scored. {bad[0]}")
    return bad


def _distinct(looks, good) -> tuple[dict[int, int], list[int]]:
    """Map each model to one place for its weights: equal nets share a place."""
    place: dict[int, int] = {}
    kept: list[int] = []
    by_content: dict[bytes, int] = {}
    for k in good:
        digest = hashlib.blake2b(digest_size=16)
        for tensor in looks[k].state.values():
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        place[k] = by_content.setdefault(digest.digest(), len(kept))
        if place[k] == len(kept):
            kept.append(k)
    return place, kept


def _run(job: PathJob, pairs, caller: str, scorer) -> Curves:
    """Run a job's tasks and put what they find into rows, one for each pair."""
    distinct = list(dict.fromkeys(pairs))
    n_jobs = joblib.effective_n_jobs(scorer.n_jobs)
    tasks = cut_into_tasks(distinct, job.plan, 1 if n_jobs == 1 else TASKS_PER_JOB * n_jobs)
    found = []
    with tqdm(total=len(distinct), desc="paths", unit="pair", disable=scorer.verbose < 1) as bar:
        if n_jobs == 1 or len(tasks) == 1:
            found += [job.run(task, bar.update) for task in tasks]
        else:
            packed = job.pack()
            parallel = Parallel(n_jobs=scorer.n_jobs, return_as="generator")
            for task, done in zip(tasks, parallel(delayed(packed.run)(task) for task in tasks)):
                found.append(done)
                bar.update(len(task))
        bar.n = bar.total
    values, reasons = {}, {}
    for task, done in zip(tasks, found):
        values.update(zip(task, done.values.swapaxes(0, 1)))
        reasons.update({task[k]: reason for k, reason in done.failures.items()})
    nothing = np.empty((0, 4, len(job.alphas)))
    stacked = np.array([values[pair] for pair in pairs]) if pairs else nothing
    failures = {row: reasons[pair] for row, pair in enumerate(pairs) if pair in reasons}
    return Curves(stacked.swapaxes(0, 1), failures)


def _report(curves: Curves, pairs, names, alphas, caller: str, scorer) -> None:
    """Warn of pairs that failed and of losses that are not finite, by name."""
    failed = sorted(curves.failures)
    curves.values[:, failed] = np.nan
    if pairs and len(failed) == len(pairs):
        raise ValueError(f"{caller}: no pair could be scored. {curves.failures[0]}")
    if failed:
        warnings.warn(
            f"{caller}: {_some(pairs, failed, names)} could not be scored and gets "
            f"error_score={scorer.error_score!r}. {curves.failures[failed[0]]}",
            PairFailedWarning,
            stacklevel=5,
        )
    broken = [
        row
        for row in range(len(pairs))
        if row not in curves.failures and not np.isfinite(curves.values[0, row]).all()
    ]
    if broken:
        first = alphas[~np.isfinite(curves.values[0, broken[0]])][0]
        warnings.warn(
            f"{caller}: the loss is not finite on the path of {_some(pairs, broken, names)} "
            f"(first at alpha={first:g}); its barriers are NaN or infinite. Look at the nets' "
            "weights or use float64.",
            NonFiniteLossWarning,
            stacklevel=5,
        )


def _some(pairs, rows: Sequence[int], names) -> str:
    """Name the first pairs of a list, and how many more there are."""
    shown = ", ".join(f"('{names[pairs[r][0]]}', '{names[pairs[r][1]]}')" for r in rows[:5])
    return shown + (f" and {len(rows) - 5} more pairs" if len(rows) > 5 else "")


def _warn_of_batch_norm(look: ModelView, caller: str, scorer) -> None:
    """Say that interpolated running statistics do not belong to interpolated weights."""
    norms = tracked_norms(look.module)
    if norms and scorer.repair is None:
        warnings.warn(
            f"{caller}: {len(norms)} batch-norm layers keep running statistics, which are "
            "interpolated here although they do not belong to the interpolated weights. How much "
            "of a barrier is theirs was not measured: set repair='batch_norm' to estimate them "
            "again, and compare.",
            StaleStatisticsWarning,
            stacklevel=5,
        )


def score_grid(scorer, model_grid, X, y, sample_weight=None) -> pd.DataFrame:
    """Score the cells of a grid with an LMCScorer, without and (if it has one) with its aligner."""
    cells = getattr(model_grid, "cells_", None)
    if cells is None:
        raise TypeError(
            f"{GRID}: 'model_grid' must have 'cells_' (a fitted ModelGrid, for example), got "
            f"{type(model_grid).__name__}."
        )
    conditions = {"naive": None}
    if scorer.aligner is not None:
        conditions["aligned"] = scorer.aligner
    scorer._validate_params()
    folder = None
    if scorer.cache_dir is not None:
        check_aligner_seed(scorer.aligner, GRID)
        folder = open_folder(scorer.cache_dir, GRID)
    frames = []
    total = len(cells) * len(conditions)
    with tqdm(total=total, desc="cells", disable=scorer.verbose < 1) as bar:
        for cell, labels in zip(cells, label_points([cell.params for cell in cells])):
            for condition, aligner in conditions.items():
                own = copy.copy(scorer)
                own.aligner, own.verbose = aligner, 0
                frame = _cell_frame(own, cell, X, y, sample_weight, folder)
                for at, (name, value) in enumerate(labels.items()):
                    frame.insert(at, name, [value] * len(frame))
                frame.insert(len(labels), "condition", condition)
                frames.append(frame)
                bar.set_postfix(labels)
                bar.update()
    return pd.concat(frames, ignore_index=True)


def _cell_frame(scorer, cell, X, y, sample_weight, folder) -> pd.DataFrame:
    """Score one cell; a cell that fails is raised or kept as rows, as error_score says."""
    caller = f"{GRID}, cell {cell.params!r}"
    try:
        return scorer._pairwise(caller, cell.estimators, X, y, sample_weight, folder)[0].to_frame()
    except (NotFittedError, RuntimeError, TypeError, ValueError) as error:
        if scorer.error_score == "raise":
            raise
        warnings.warn(
            f"{caller}: no pair could be scored; all get error_score={scorer.error_score!r}. "
            f"{error}",
            PairFailedWarning,
            stacklevel=4,
        )
        n_models = len(cell.estimators)
        failures = dict.fromkeys(itertools.combinations(range(n_models), 2), str(error))
        nothing = np.full((4, len(failures), len(alpha_grid(scorer.n_alphas))), np.nan)
        return scorer._to_score(n_models, nothing, failures).to_frame()
