"""A population of nets for every point of a parameter grid."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.model_selection import ParameterGrid

from sklmc._sklearn import check_is_fitted
from sklmc._validation import ChecksParameters, check_integer, did_you_mean
from sklmc.estimators._cache_dir import PopulationFolders, check_cache_seed
from sklmc.estimators._cell import Cell, SpanTask, plan_population, score_members
from sklmc.estimators._members import Data, inner_net, is_finite, last_loss, run_parallel
from sklmc.estimators._net import ArrayNet
from sklmc.estimators._points import identity, label_points, list_points, with_params
from sklmc.estimators._seeds import cell_seeds, resolve_seed
from sklmc.estimators._wrapper import POPULATION_CONSTRAINTS, copy_features
from sklmc.exceptions import DivergedMemberWarning


class ModelGrid(ChecksParameters, MetaEstimatorMixin, BaseEstimator):
    """Train a population of nets for every point of a parameter grid, and lose none of them.

    Each point is a cell with `n_estimators` members that differ by seed only. The seed of a member
    depends on `random_state`, the cell's parameters and the member's index alone: more cells, or
    more members, leave those that were there as they are.

    Parameters
    ----------
    estimator : estimator
        What DeepEnsemble takes; a skorch net itself for `cache_dir`.
    param_grid : dict or list of dicts
        As for scikit-learn's ``ParameterGrid``: lists of values by name, all combinations of
        which are trained; a list of such dicts is trained dict by dict. A value that is not a
        list, tuple, range or array counts as a list of one.
    n_estimators : int, default=10
        Members of each cell.
    vectorize : {"auto", True, False}, default="auto"
        As for DeepEnsemble, cell by cell.
    cache_dir : str or path, default=None
        Folder where every finished net is stored at once, and from where a fit that was cut off,
        even killed, goes on: it ends with the same bytes as an undisturbed one. Files are kept
        apart by fingerprints of the data, the seed, the versions and all parameters; nets of
        anything else stay untouched. Several processes may fill one folder together. See Notes
        on modules and losses of your own.
    n_jobs : int, default=None
        Members (or chunks of them) trained at the same time. None means 1 unless in a joblib
        context, -1 all processors.
    random_state : int, RandomState instance or None, default=None
        Where the members' seeds come from. `cache_dir` needs an int.
    verbose : int, default=0
        1 shows a bar over the members, 2 also a line for each. The members are silent.

    Attributes
    ----------
    cells_ : list of cells
        The populations in ParameterGrid's order; each has ``params``, ``estimators``, ``seeds``,
        ``vectorized``, ``diverged``, ``train_loss`` and ``train_score``.
    n_features_in_ : int
        Number of features, where the members know it.

    See Also
    --------
    DeepEnsemble : One population that predicts.
    sklmc.LMCScorer : Measures what lies between the members.

    Notes
    -----
    A chunk whose training is vectorized is stored when it is finished: a run that is killed
    loses one net, or one chunk, per worker. A chunk of which a net is missing is trained again
    as a whole, since rounding depends on what a chunk holds. Files are safetensors with weights,
    optimizer state, history and a checksum; one whose checksum is wrong is named in a warning,
    moved aside and trained again. Beside them lies ``cell.json`` with the parameters and versions.

    Classes and functions of your own count with what they do: bytecode, bases, defaults, what they
    captured, and the globals that they name. What they read from files or from the environment
    does not count. A parameter that cannot be told from others in this way (it holds a lock, an
    open file, or calls ``eval``) is named in a warning, and the nets of its cell are not stored.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import ModelGrid, NetClassifier
    >>> X, y = make_moons(100, noise=0.1, random_state=0)
    >>> grid = ModelGrid(NetClassifier(max_epochs=5), {"module__width": [2, 8]},
    ...                  n_estimators=3, random_state=0).fit(X, y)
    >>> [cell.params for cell in grid.cells_]
    [{'module__width': 2}, {'module__width': 8}]
    >>> len(grid.cell(module__width=8).estimators)
    3
    >>> grid.summary(X, y).columns.tolist()[:3]
    ['module__width', 'n_estimators', 'n_diverged']
    """

    _parameter_constraints: dict = {
        **POPULATION_CONSTRAINTS,
        "param_grid": [dict, list, tuple, ParameterGrid],
    }

    _n_shared_epochs: int | None = None

    def __init__(
        self,
        estimator,
        param_grid,
        *,
        n_estimators=10,
        vectorize="auto",
        cache_dir=None,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.param_grid = param_grid
        self.n_estimators = n_estimators
        self.vectorize = vectorize
        self.cache_dir = cache_dir
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None, sample_weight=None):
        """Train every member of every cell on the same data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As `estimator` takes it.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, or target values; None where X is a Dataset that holds them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, which every member gets in its fit; the losses and scores
            on the training data are weighted as well.

        Returns
        -------
        self
            The fitted grid.
        """
        self._validate_params()
        points = list_points(self.param_grid)
        populations = [with_params(self.estimator, params) for params in points]
        if self.cache_dir is not None:
            check_cache_seed(self.random_state, "ModelGrid")
        root = resolve_seed(self.random_state)
        data = Data(X, y, sample_weight)
        folders: list = [None] * len(points)
        if self.cache_dir is not None:
            home = PopulationFolders(self.cache_dir, data, root, "ModelGrid")
            folders = [
                home.make(estimator, params, labels, self._n_shared_epochs)
                for estimator, params, labels in zip(populations, points, label_points(points))
            ]
            home.report_others(folders)
        plans = [
            self._plan(params, estimator, folder, data, root)
            for params, estimator, folder in zip(points, populations, folders)
        ]
        tasks = (functools.partial(task.run_and_score, data) for plan in plans for task in plan)
        n_members = len(points) * self.n_estimators
        done = run_parallel(
            tasks, n_members, self.n_jobs, self.verbose, "ModelGrid", lambda one: last_loss(one[0])
        )
        self.cells_ = []
        for number, (params, plan) in enumerate(zip(points, plans)):
            part = done[number * self.n_estimators : (number + 1) * self.n_estimators]
            members, losses, scores = zip(*part)
            self.cells_.append(
                Cell(
                    params,
                    list(members),
                    plan[0].seeds,
                    plan[0].vectorized,
                    [index for index, member in enumerate(members) if not is_finite(member)],
                    np.array(losses, dtype=float),
                    np.array(scores, dtype=float),
                )
            )
        _report_diverged(self.cells_)
        copy_features(self.cells_[0].estimators[0], self, ["n_features_in_"])
        return self

    def spawn(self, n_epochs):
        """Return an unfitted grid like this one whose members share their first epochs.

        The members of a cell have the same initial weights and see the same order of the samples
        for `n_epochs` epochs; only then each goes its own way [1]_ [2]_. On a device that
        computes the same twice they are equal to the bit up to there.

        Parameters
        ----------
        n_epochs : int
            Epochs shared; 0 shares the initial weights alone.

        Returns
        -------
        ModelGrid
            The grid, to be fitted.

        References
        ----------
        .. [1] Frankle, Dziugaite, Roy and Carbin, "Linear mode connectivity and the lottery
           ticket hypothesis", 2020.
        .. [2] Zhou, Yang, Yang, Yan and Hu, "Going beyond linear mode connectivity: the layerwise
           linear feature connectivity", 2023.
        """
        grid = clone(self)
        grid._n_shared_epochs = check_integer(n_epochs, "ModelGrid.spawn", "n_epochs", 0)
        return grid

    def cell(self, **params):
        """Return the one cell with these parameters.

        Parameters
        ----------
        **params : object
            Names and values, as many as tell the cell from the others.

        Returns
        -------
        cell
            With ``params``, ``estimators`` and so on, as in ``cells_``.
        """
        check_is_fitted(self)
        for name in params:
            known = sorted({key for cell in self.cells_ for key in cell.params})
            if name not in known:
                raise ValueError(
                    f"ModelGrid.cell: {name!r} is no parameter of the grid, which has "
                    f"{', '.join(map(repr, known)) or 'none'}.{did_you_mean(name, known)}"
                )
        wanted = {name: identity(value) for name, value in params.items()}
        found = [
            cell
            for cell in self.cells_
            if all(n in cell.params and identity(cell.params[n]) == w for n, w in wanted.items())
        ]
        if len(found) != 1:
            among = ", ".join(str(cell.params) for cell in (found or self.cells_)[:10])
            raise ValueError(
                f"ModelGrid.cell: {len(found)} cells have {params!r}; one must. "
                f"{'Name more parameters to tell apart' if found else 'There are'}: {among}."
            )
        return found[0]

    def __iter__(self) -> Iterator:
        """Iterate over the cells."""
        check_is_fitted(self)
        return iter(self.cells_)

    def summary(self, X, y) -> pd.DataFrame:
        """Return one row per cell: means and standard deviations over its members.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Test data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            True labels or values of the test data.

        Returns
        -------
        DataFrame
            The cell's parameters (see Notes), ``n_estimators``, ``n_diverged``, and ``mean`` and
            ``std`` of ``train_loss``, ``train_accuracy``, ``test_loss`` and ``test_accuracy``
            (``r2`` in place of accuracy for regressors). Losses are cross entropies in nats or
            mean squared errors; members that diverged are left out; the standard deviation
            divides by n.

        Notes
        -----
        Numbers, strings, None and tuples of them stand for themselves; classes and functions are
        shown by name, anything else by words that say how to make it, such as
        ``[LRScheduler(policy='StepLR', step_size=2)]``. Different values that read alike are
        numbered: ``Net``, ``Net (2)``. ``LMCScorer.grid`` uses the same labels, so that both
        tables can be grouped by, and merged on, the parameters.
        """
        check_is_fitted(self)
        rows = []
        for cell, labels in zip(self.cells_, self._labels()):
            good = [i for i in range(len(cell.estimators)) if i not in cell.diverged]
            row = {**labels, "n_estimators": len(cell.estimators), "n_diverged": len(cell.diverged)}
            measured: dict = {
                "train": (cell.train_loss[good], cell.train_score[good]),
                "test": score_members([cell.estimators[i] for i in good], Data(X, y)),
            }
            for part, columns in measured.items():
                for name, values in zip(("loss", self._score_name()), columns):
                    row[f"{part}_{name}_mean"] = values.mean() if good else np.nan
                    row[f"{part}_{name}_std"] = values.std() if good else np.nan
            rows.append(row)
        return pd.DataFrame(rows)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per member.

        Returns
        -------
        DataFrame
            The cell's parameters (as in `summary`), ``member``, ``seed``, ``n_epochs``,
            ``diverged``, ``train_loss`` and ``train_accuracy`` or ``train_r2``.
        """
        check_is_fitted(self)
        rows = [
            {
                **labels,
                "member": index,
                "seed": cell.seeds[index],
                "n_epochs": len(getattr(inner_net(member), "history_", None) or ()),
                "diverged": index in cell.diverged,
                "train_loss": cell.train_loss[index],
                f"train_{self._score_name()}": cell.train_score[index],
            }
            for cell, labels in zip(self.cells_, self._labels())
            for index, member in enumerate(cell.estimators)
        ]
        return pd.DataFrame(rows)

    def _labels(self) -> list[dict]:
        """Return the parameters of each cell as tables show them."""
        return label_points([cell.params for cell in self.cells_])

    def _score_name(self) -> str:
        """Return what the score of a member is called."""
        return "accuracy" if is_classifier(self.estimator) else "r2"

    def _plan(self, params, estimator, folder, data: Data, root: int) -> list[SpanTask]:
        """Return the tasks of one cell."""
        spawn = None
        if self._n_shared_epochs is not None:
            if not isinstance(inner_net(estimator), ArrayNet):
                raise ValueError(
                    "ModelGrid.spawn: 'estimator' must be (or end in) a NetClassifier or "
                    f"NetRegressor to share epochs, got {estimator!r}."
                )
            spawn = (cell_seeds(root, {**params, "spawn": True}, 1)[0], self._n_shared_epochs)
        seeds = cell_seeds(root, params, self.n_estimators)
        notes = {"params": label_points([params])[0]}
        shared = {"spawn": spawn, "folder": folder, "notes": notes}
        return plan_population(estimator, data, seeds, self.vectorize, "ModelGrid", **shared)


def _report_diverged(cells: list[Cell]) -> None:
    """Name the members whose weights are not finite; all others are kept."""
    found = [
        f"{cell.params}: {', '.join(map(str, cell.diverged))}" for cell in cells if cell.diverged
    ]
    if found:
        warnings.warn(
            f"ModelGrid: training diverged in members of {len(found)} of {len(cells)} cells "
            f"({'; '.join(found)}): their weights are not finite. Lower 'lr' or scale X.",
            DivergedMemberWarning,
            stacklevel=3,
        )
