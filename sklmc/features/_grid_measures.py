"""A measure of two nets, taken of the pairs of every cell of a grid of populations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import pandas as pd
from tqdm.auto import tqdm

from sklmc._sklearn import Parallel, delayed
from sklmc._validation import check_integer, check_jobs, check_verbose
from sklmc.alignment import check_aligner
from sklmc.estimators._points import label_points
from sklmc.merging._merge import align_models

NAME = "measure_grid"


def measure_grid(
    measure,
    model_grid,
    X,
    y=None,
    *,
    aligner=None,
    max_pairs=None,
    n_jobs=None,
    verbose=0,
    **options,
) -> pd.DataFrame:
    """Take a measure of the pairs of every cell of a grid of populations.

    Parameters
    ----------
    measure : callable
        A measure of two models, ``measure(model_a, model_b, X, **options)``, which returns a
        DataFrame: :func:`layerwise_linear_connectivity`, for example. With `y` it is called with
        ``(model_a, model_b, X, y, **options)``.
    model_grid : fitted ModelGrid, or anything with ``cells_``
        Each cell has `params` (a dict) and `estimators` (at least two models).
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        Samples, as the models take them.
    y : array-like of shape (n_samples,), default=None
        Labels, for measures that take them.
    aligner : str, aligner object or None, default=None
        How the second model of a pair is moved onto the first; see :func:`sklmc.merge_models`. With
        one, every pair is measured as trained ("naive") and moved ("aligned").
    max_pairs : int, default=None
        At most so many pairs of each cell, in the order (0, 1), (0, 2), ...; None takes all.
    n_jobs : int, default=None
        Pairs that are measured at the same time. The result does not depend on it.
    verbose : int, default=0
        1 shows a bar over the pairs.
    **options : object
        Options of the measure.

    Returns
    -------
    frame : DataFrame
        A column for each parameter (labelled as in ``ModelGrid.summary``), `condition`, `model_a`
        and `model_b` (the places of the pair in its cell), and the columns of the measure.

    Raises
    ------
    TypeError
        If `model_grid` has no cells or `measure` returns no DataFrame.
    ValueError
        If no cell holds two models.

    See Also
    --------
    sklmc.LMCScorer.grid : Barriers of the same pairs.

    References
    ----------
    .. [1] Ito, Yamada, Chijiwa, Kumagai, "Do we really need permutations? Impact of width
       expansion on linear mode connectivity", 2025.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import ModelGrid, NetClassifier
    >>> from sklmc.features import layerwise_exponential_connectivity, measure_grid
    >>> X, y = make_moons(100, noise=0.1, random_state=0)
    >>> net = NetClassifier(max_epochs=5)
    >>> grid = ModelGrid(net, {"module__width": [4, 8]}, n_estimators=3, random_state=0).fit(X, y)
    >>> frame = measure_grid(layerwise_exponential_connectivity, grid, X, alphas=0.5)
    >>> frame.groupby("module__width").cosine.size().tolist()
    [6, 6]
    """
    if not callable(measure):
        raise TypeError(
            f"{NAME}: 'measure' must be a function of two models and X, got {measure!r}."
        )
    check_aligner(aligner, NAME)
    check_jobs(n_jobs, NAME)
    check_verbose(verbose, NAME)
    if max_pairs is not None:
        check_integer(max_pairs, NAME, "max_pairs", 1)
    cells = getattr(model_grid, "cells_", None)
    if cells is None:
        raise TypeError(
            f"{NAME}: 'model_grid' must have 'cells_' (a fitted ModelGrid, for example), got "
            f"{type(model_grid).__name__}."
        )
    labels = label_points([cell.params for cell in cells])
    given = (X,) if y is None else (X, y)
    work = []
    for cell, point in zip(cells, labels):
        pairs = itertools.combinations(range(len(cell.estimators)), 2)
        for i, j in itertools.islice(pairs, max_pairs):
            for condition in ("naive",) if aligner is None else ("naive", "aligned"):
                about = {**point, "condition": condition, "model_a": i, "model_b": j}
                work.append((about, cell.estimators[i], cell.estimators[j]))
    if not work:
        raise ValueError(f"{NAME}: no cell of 'model_grid' holds two models; train at least two.")
    run = delayed(_measure)
    found = Parallel(n_jobs=n_jobs, return_as="generator")(
        run(measure, about, a, b, given, aligner, options) for about, a, b in work
    )
    bar = tqdm(found, total=len(work), desc="pairs", disable=not verbose)
    return pd.concat(list(bar), ignore_index=True)


def _measure(
    measure: Callable, about: Mapping, model_a, model_b, given: tuple, aligner, options: Mapping
) -> pd.DataFrame:
    """Return the rows of one pair."""
    if about["condition"] == "aligned":
        model_a, model_b = align_models([model_a, model_b], aligner, *given)
    frame = measure(model_a, model_b, *given, **options)
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"{NAME}: 'measure' must return a DataFrame, got {type(frame).__name__} from "
            f"{getattr(measure, '__name__', measure)!r}."
        )
    for place, (name, value) in enumerate(about.items()):
        frame.insert(place, name, [value] * len(frame))
    return frame
