"""Loss on the plane through three models."""

from __future__ import annotations

import dataclasses

import joblib
import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from sklmc._sklearn import Parallel, delayed
from sklmc._torch import single_thread
from sklmc._validation import (
    check_integer,
    check_jobs,
    check_number,
    check_option,
    check_verbose,
)
from sklmc.alignment import check_aligner
from sklmc.connectivity._pair_scoring import check_samples
from sklmc.connectivity._path_losses import Samples
from sklmc.connectivity._population import Population
from sklmc.connectivity._state_score import score_state
from sklmc.merging import reestimate_statistics
from sklmc.merging._merge import align_models
from sklmc.models import average_states, list_models, view, view_compatible

LARGEST_MARGIN = 1e6  # beyond, float32 weights hold nothing of the models


@dataclasses.dataclass(frozen=True, eq=False)
class LossPlane:
    """Loss on the plane through three models, as :func:`sklmc.loss_plane` finds it.

    Distances are Euclidean in weight space: A lies at the origin, B on the first axis.

    Parameters
    ----------
    x : ndarray of shape (n_points,)
        Positions along the direction from A to B.
    y : ndarray of shape (n_points,)
        Positions across it, towards C.
    loss, error : ndarray of shape (n_points, n_points)
        Values at ``(x[j], y[i])``.
    positions : ndarray of shape (3, 2)
        Where A, B and C lie.
    model_loss, model_error : ndarray of shape (3,)
        Values at the models themselves.

    See Also
    --------
    sklmc.LossPlaneDisplay : Draws it.

    References
    ----------
    .. [1] Garipov, Izmailov, Podoprikhin, Vetrov, Wilson, "Loss surfaces, mode connectivity, and
       fast ensembling of DNNs", NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklmc.connectivity import LossPlane
    >>> plane = LossPlane(
    ...     x=np.array([0.0, 1.0]), y=np.array([0.0, 2.0]),
    ...     loss=np.array([[0.1, 0.2], [0.3, 0.9]]), error=np.zeros((2, 2)),
    ...     positions=np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]),
    ...     model_loss=np.array([0.1, 0.2, 0.3]), model_error=np.zeros(3),
    ... )
    >>> plane.to_frame()["loss"].tolist()
    [0.1, 0.2, 0.3, 0.9]
    """

    x: np.ndarray
    y: np.ndarray
    loss: np.ndarray
    error: np.ndarray
    positions: np.ndarray
    model_loss: np.ndarray
    model_error: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """Return a tidy table.

        Returns
        -------
        frame : DataFrame
            One row for each point: x, y, loss, error.
        """
        across, along = np.meshgrid(self.y, self.x, indexing="ij")
        columns = {"x": along, "y": across, "loss": self.loss, "error": self.error}
        return pd.DataFrame({name: values.ravel() for name, values in columns.items()})


def loss_plane(
    models, X, y=None, *, n_points=25, margin=0.3, aligner=None, repair=None, n_jobs=None, verbose=0
) -> LossPlane:
    """Score a grid of points on the plane through three models.

    Every point is ``a * A + b * B + c * C`` with weights that sum to one; outside the triangle some
    are negative.

    Parameters
    ----------
    models : list of three skorch nets, fitted sklmc estimators, Pipelines or torch.nn.Modules
        A, B and C, of one architecture and not on one line. None is changed.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        Samples, as the models take them.
    y : array-like of shape (n_samples,), default=None
        Labels the models know, or targets. None where X holds them (Dataset, DataLoader).
    n_points : int, default=25
        Number of points along each axis.
    margin : float, default=0.3
        How far the grid reaches beyond the models, as a share of their extent.
    aligner : str, aligner object or None, default=None
        How B and C are moved onto A first.
    repair : {"batch_norm"} or None, default=None
        "batch_norm" estimates running statistics again at every point but the models.
    n_jobs : int or None, default=None
        Number of rows of the grid that are scored at the same time. The result does not depend
        on it.
    verbose : int, default=0
        1 shows a progress bar over rows.

    Returns
    -------
    plane : LossPlane
        Losses, and where the models lie.

    Raises
    ------
    ValueError
        If there are not three models, two are of different architecture, or they lie on one line.

    See Also
    --------
    sklmc.LossPlaneDisplay : Draws it.
    sklmc.LMCScorer : Lines instead of planes.

    References
    ----------
    .. [1] Garipov, Izmailov, Podoprikhin, Vetrov, Wilson, "Loss surfaces, mode connectivity, and
       fast ensembling of DNNs", NeurIPS 2018.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import NetClassifier
    >>> from sklmc import loss_plane
    >>> X, y = make_moons(60, noise=0.1, random_state=0)
    >>> nets = [NetClassifier(max_epochs=5, random_state=i).fit(X, y) for i in range(3)]
    >>> loss_plane(nets, X, y, n_points=5).loss.shape
    (5, 5)
    """
    caller = "loss_plane"
    models = list_models(models, caller, minimum=3)
    if len(models) != 3:
        raise ValueError(f"{caller}: 'models' must hold 3 models, got {len(models)}.")
    check_integer(n_points, caller, "n_points", 2)
    check_option(repair, ["batch_norm", None], caller, "repair")
    check_number(margin, caller, "margin", 0, LARGEST_MARGIN)
    check_aligner(aligner, caller)
    check_jobs(n_jobs, caller)
    check_verbose(verbose, caller)
    names = [f"models[{k}]" for k in range(3)]
    inner = view_compatible(models, caller, names)
    samples, classify = check_samples(inner[0], X, y)
    aligned = align_models([one.model for one in inner], aligner, X, y)
    looks = [view(model, caller=caller, name=name) for model, name in zip(aligned, names)]
    positions, axes = _frame(looks, caller)
    x, across = (
        np.linspace(low - margin * (high - low), high + margin * (high - low), n_points)
        for low, high in zip(positions.min(axis=0), positions.max(axis=0))
    )
    work = _PlaneWork(Population(looks), samples, classify, repair)
    rows = [[_weights(u, v, axes) for u in x] for v in across]
    rows.append([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
    if joblib.effective_n_jobs(n_jobs) > 1:
        work = dataclasses.replace(work, population=work.population.pack())
    # a generator: the bar moves as rows come in
    found = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(work.run)(row) for row in rows)
    bar = tqdm(found, total=len(rows), desc="plane", unit="row", disable=verbose < 1)
    *grid, ends = list(bar)
    loss, error = np.moveaxis(np.array(grid), -1, 0)  # (n_points, n_points) each
    model_loss, model_error = np.array(ends).T
    return LossPlane(x, across, loss, error, positions, model_loss, model_error)


@dataclasses.dataclass
class _PlaneWork:
    """What all tasks of a plane share."""

    population: Population
    samples: Samples
    classify: bool
    repair: str | None

    def run(self, row) -> list[tuple[float, float]]:
        """Return loss and error of nets given by their weights."""
        skeleton = self.population.skeleton()
        states = [self.population.state(k) for k in range(3)]
        with single_thread():
            return [self._score(skeleton, states, weights) for weights in row]

    def _score(self, skeleton, states, weights) -> tuple[float, float]:
        """Return loss and error of one net."""
        state = average_states(states, weights)
        if self.repair is not None and max(weights) != 1.0:
            state = reestimate_statistics(skeleton, state, self.samples.inputs)
        return score_state(skeleton, state, self.samples, self.classify)


def _frame(looks, caller: str) -> tuple[np.ndarray, np.ndarray]:
    """Return positions (3, 2) in an orthonormal frame, and the 2 x 2 matrix of B - A and C - A."""
    base = looks[0].state
    products = np.zeros((2, 2))
    for name, tensor in base.items():
        if not tensor.is_floating_point():
            continue
        steps = torch.stack(
            [(look.state[name].double() - tensor.double()).flatten() for look in looks[1:]]
        )
        products += (steps @ steps.T).cpu().numpy()
    length = np.sqrt(products[0, 0])
    along = products[0, 1] / length if length > 0 else 0.0
    height = np.sqrt(max(products[1, 1] - along**2, 0.0))
    if not height > 1e-6 * np.sqrt(products[1, 1] + products[0, 0]):
        raise ValueError(
            f"{caller}: the three models lie on one line in weight space and span no plane; two of "
            "them may be the same."
        )
    positions = np.array([[0.0, 0.0], [length, 0.0], [along, height]])
    return positions, positions[1:].T


def _weights(u: float, v: float, axes: np.ndarray) -> tuple[float, float, float]:
    """Return the weights of A, B and C at a point of the plane."""
    b, c = np.linalg.solve(axes, [u, v]).tolist()
    return 1.0 - b - c, b, c
