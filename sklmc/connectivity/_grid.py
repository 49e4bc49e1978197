"""Pairs of every cell of a grid of populations, in one tidy table."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError
from tqdm.auto import tqdm

from sklmc.connectivity._barriers import alpha_grid
from sklmc.connectivity._pairwise_score import PairwiseScore
from sklmc.connectivity._score_cache import check_aligner_seed
from sklmc.estimators._labels import label_points
from sklmc.exceptions import PairFailedWarning
from sklmc.models import open_folder

CALLER = "LMCScorer.grid"


def score_grid(scorer, model_grid, X, y) -> pd.DataFrame:
    """Score the cells of a grid with an LMCScorer, without and (if it has one) with its aligner."""
    cells = getattr(model_grid, "cells_", None)
    if cells is None:
        raise TypeError(
            f"{CALLER}: 'model_grid' must have 'cells_' (a fitted ModelGrid, for example), got "
            f"{type(model_grid).__name__}."
        )
    conditions = {"naive": None}
    if scorer.aligner is not None:
        conditions["aligned"] = scorer.aligner
    scorer._validate_params()
    folder = None
    if scorer.cache_dir is not None:
        check_aligner_seed(scorer.aligner, CALLER)
        folder = open_folder(scorer.cache_dir, CALLER)
    frames = []
    total = len(cells) * len(conditions)
    with tqdm(total=total, desc="cells", disable=scorer.verbose < 1) as bar:
        for cell, labels in zip(cells, label_points([cell.params for cell in cells])):
            for condition, aligner in conditions.items():
                own = copy.copy(scorer)
                own.aligner, own.verbose = aligner, 0
                frame = _cell_frame(own, cell, X, y, folder)
                for at, (name, value) in enumerate(labels.items()):
                    frame.insert(at, name, [value] * len(frame))
                frame.insert(len(labels), "condition", condition)
                frames.append(frame)
                bar.set_postfix(labels)
                bar.update()
    return pd.concat(frames, ignore_index=True)


def _cell_frame(scorer, cell, X, y, folder) -> pd.DataFrame:
    """Score one cell; a cell that fails is raised or kept as rows, as error_score says."""
    caller = f"{CALLER}, cell {cell.params!r}"
    try:
        return scorer._pairwise(caller, cell.estimators, X, y, folder)[0].to_frame()
    except (NotFittedError, RuntimeError, TypeError, ValueError) as error:
        if scorer.error_score == "raise":
            raise
        warnings.warn(
            f"{caller}: no pair could be scored; all get error_score={scorer.error_score!r}. "
            f"{error}",
            PairFailedWarning,
            stacklevel=4,
        )
        return _lost_cell(scorer, len(cell.estimators), str(error))


def _lost_cell(scorer, n_models: int, reason: str) -> pd.DataFrame:
    """Return the frame of a cell of which nothing is known."""
    alphas = alpha_grid(scorer.n_alphas)
    first, second = np.triu_indices(n_models, 1)
    nothing = np.full((len(first), len(alphas)), np.nan)
    extra = nothing if scorer.calibration is not None else None
    return PairwiseScore(
        n_models=n_models,
        alphas=alphas,
        loss=nothing,
        error=nothing,
        calibrated_loss=extra,
        inverse_temperature=extra,
        metric=scorer.metric,
        baseline=scorer.baseline,
        failures=dict.fromkeys(zip(first.tolist(), second.tolist()), reason),
        error_score=float(scorer.error_score),
    ).to_frame()
