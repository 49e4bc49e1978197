"""Nets with fewer hidden units and (nearly) the same function."""

from __future__ import annotations

import warnings
from numbers import Real

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import UNUSED
from torch import nn

from sklmc._sklearn import Interval, check_is_fitted
from sklmc._torch import fixed_normal
from sklmc._validation import TakesModels
from sklmc.exceptions import ArchitectureMismatchError, SklmcWarning
from sklmc.features._redundancy._plain_units import plain_units
from sklmc.features._redundancy._unit_merger import UnitMerger
from sklmc.models import Arrays, Inputs, ModelView, check_finite, predict_outputs, view
from sklmc.symmetry import PermutationSymmetry, cached_symmetry

PROBE_ROWS = 256  # random samples on which the change of function is measured without X


class RedundancyReducer(TakesModels, BaseEstimator):
    """Merge hidden units that compute the same feature, and drop those that are dead.

    Two ReLU units whose incoming weights (with bias) are parallel compute the same feature up to
    a positive factor: one of them can do for both if the other's outgoing weights, times the
    ratio of the incoming norms, are added to its own. Exact duplicates change nothing.

    Parameters
    ----------
    tol : float, default=0.01
        Units merge when the cosine of their incoming weights exceeds ``1 - tol``; between 0
        (only exact multiples) and 1.
    shrink : bool, default=True
        Whether units that are not needed are removed. False keeps the architecture: they come
        last in their layer, with zero weights, so that reduced nets can be averaged.
    balance : bool, default=False
        Whether every unit that stays is scaled so that its incoming and outgoing weights have
        the same norm. The function is the same; averages with other nets are not.

    Attributes
    ----------
    n_units_ : dict of str to int
        Units left in every group that was looked at.
    units_ : DataFrame
        One row per unit of these groups: `group`, `unit`, `fate` ("kept", "merged", "dead",
        "dead on X"), `into` (the unit that it was merged into, -1 otherwise), `ratio` (of its
        incoming norm to that unit's, NaN otherwise).
    skipped_ : dict of str to str
        Groups that were left alone, and why: their units are not plain (residual streams, heads,
        layer norm, activations that are not positively homogeneous).
    function_change_ : float
        Largest change of an output, relative to the largest output, on X (without X: on 256
        random samples).
    symmetry_ : PermutationSymmetry
        The groups of the net.

    Warns
    -----
    SklmcWarning
        If no group of units is plain, so that the net comes back as it is; it names the reasons.

    See Also
    --------
    feature_similarity : The cosines that decide.
    linear_regions : The pieces that a reduced net still has.

    Notes
    -----
    Units are looked at from the largest product of incoming and outgoing norm downwards; each
    joins the kept unit that is nearest, or is kept. Kept units stay in order, layers are reduced
    in the order in which data meets them. "dead" units change no output: nothing enters them,
    nothing leaves them, or they are constant and off. "dead on X" units are zero on every sample
    of X, which says nothing about other data; there are none without X.

    What makes a unit plain is read off the net's symmetry and then tested on random weights in
    float64. Batch norm between a layer and its activation counts as part of the layer, in eval
    mode.

    References
    ----------
    .. [1] Simsek et al., "Geometry of the loss landscape in overparameterized neural networks:
       symmetries and invariances", ICML 2021.

    Examples
    --------
    >>> import torch
    >>> from sklmc.features import RedundancyReducer
    >>> from sklmc.nets import MLP
    >>> net = MLP(2, 1, width=4)
    >>> with torch.no_grad():  # units 2 and 3 point where 0 and 1 do
    ...     net.layers[0].weight[2:] = 3 * net.layers[0].weight[:2]
    ...     net.layers[0].bias[2:] = 3 * net.layers[0].bias[:2]
    >>> reducer = RedundancyReducer()
    >>> small = reducer.fit_transform(net)
    >>> reducer.n_units_, small.layers[0].weight.shape
    ({'layers.0': 2}, torch.Size([2, 2]))
    >>> reducer.function_change_ < 1e-6
    True
    """

    _parameter_constraints: dict = {
        "tol": [Interval(Real, 0, 1, closed="both")],
        "shrink": ["boolean"],
        "balance": ["boolean"],
    }
    __metadata_request__fit = {"model": UNUSED}
    __metadata_request__transform = {"model": UNUSED}

    def __init__(self, tol=0.01, *, shrink=True, balance=False):
        self.tol = tol
        self.shrink = shrink
        self.balance = balance

    def fit(self, model, X=None):
        """Find the units to merge and to drop.

        Parameters
        ----------
        model : skorch net, fitted sklmc estimator or torch.nn.Module
            The net; it is not changed.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader, default=None
            Samples. With them units that are zero on all of X are dropped as well, and the
            change of function is measured on them.

        Returns
        -------
        self : RedundancyReducer
            The fitted reducer.
        """
        self._validate_params()
        caller = type(self).__name__
        look = view(model, caller=caller, name="model")
        check_finite(look.state, caller, "model")
        symmetry = cached_symmetry(look, X)
        inputs = _probe_inputs(look, X)
        groups, skipped = plain_units(look, symmetry, Arrays(*look.sample(X)))
        if not groups and skipped:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
            warnings.warn(
                f"{caller}: no group of this net's units can be reduced, and it comes back as it "
                f"is ({reasons}).",
                SklmcWarning,
                stacklevel=2,
            )
        merger = UnitMerger(look, inputs, self.tol, self.balance, X is not None)
        for units in groups:
            merger.reduce(units)
        self.symmetry_ = symmetry
        self.skipped_ = skipped
        self.units_ = merger.to_frame()
        self.n_units_ = {name: len(kept) for name, kept in merger.kept.items()}
        order = {
            name: np.r_[kept, np.setdiff1d(np.arange(symmetry.group(name).size), kept)]
            for name, kept in merger.kept.items()
        }
        state = symmetry.apply_state(merger.state, order)
        if self.shrink:
            state = _without_spares(state, symmetry, self.n_units_)
        self._fitted_state = look.state
        self._reduced_state = state
        self.function_change_ = _function_change(look, self._rebuild(look), inputs)
        return self

    def transform(self, model):
        """Return the reduced net.

        Parameters
        ----------
        model : same kind as in `fit`
            The net that was fitted; it is not changed.

        Returns
        -------
        model : same kind as `model`
            A new net, with fewer units if `shrink` is True.
        """
        check_is_fitted(self)
        look = view(model, caller=type(self).__name__, name="model")
        same = look.state.keys() == self._fitted_state.keys() and all(
            torch.equal(tensor, self._fitted_state[name]) for name, tensor in look.state.items()
        )
        if not same:
            raise ArchitectureMismatchError(
                f"{type(self).__name__}: 'model' is not the net that was fitted, whose units were "
                "compared; call fit_transform with it."
            )
        return self._rebuild(look)

    def fit_transform(self, model, X=None):
        """Find the units to merge and to drop, and return the reduced net.

        Parameters
        ----------
        model : skorch net, fitted sklmc estimator or torch.nn.Module
            The net; it is not changed.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader, default=None
            Samples, as in `fit`.

        Returns
        -------
        model : same kind as `model`
            A new net, with fewer units if `shrink` is True.
        """
        return self.fit(model, X).transform(model)

    def _rebuild(self, look: ModelView):
        """Return a model of the kind that went in, whose layers know their new sizes."""
        new = look.rebuild(self._reduced_state)
        _set_sizes(view(new, caller=type(self).__name__).original)
        return new


def _probe_inputs(look: ModelView, X) -> Inputs:
    """Return X as the net takes it, or random samples of the shape that is known."""
    if X is not None:
        return look.to_input(X)
    sample = look.sample()
    if len(sample) == 1 and sample[0].is_floating_point():
        return Arrays(fixed_normal((PROBE_ROWS, *sample[0].shape[1:]), sample[0].dtype))
    return Arrays(*sample)


def _without_spares(
    state: dict[str, torch.Tensor], symmetry: PermutationSymmetry, n_units: dict[str, int]
) -> dict[str, torch.Tensor]:
    """Return a state without the units behind the first few of each group."""
    small = dict(state)
    for name, blocks in symmetry.blocks.items():
        for d in range(state[name].ndim):
            spare = [
                np.moveaxis(axis.positions, axis.factors.index(group), 0)[n:].ravel()
                for axis in (block.axes[d] for block in blocks)
                for group, n in n_units.items()
                if group in axis.factors
            ]
            if spare:
                kept = np.setdiff1d(np.arange(state[name].shape[d]), np.concatenate(spare))
                index = torch.from_numpy(kept).to(small[name].device)
                small[name] = small[name].index_select(d, index)
    return small


def _set_sizes(module: nn.Module) -> None:
    """Make the sizes that layers remember those of their weights."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.out_features, part.in_features = part.weight.shape
        elif isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and part.groups == 1:
            part.out_channels, part.in_channels = part.weight.shape[:2]
        elif isinstance(part, nn.modules.batchnorm._NormBase) and part.running_mean is not None:
            part.num_features = len(part.running_mean)


def _function_change(look: ModelView, reduced, inputs) -> float:
    """Return the largest change of an output, relative to the largest output."""
    before = predict_outputs(look, inputs).double()
    try:
        after = predict_outputs(view(reduced, caller=look.caller), inputs).double()
    except ValueError as error:
        raise ValueError(
            f"{look.caller}: the net cannot run with fewer units, since its forward pass has "
            f"their number written into it; use shrink=False. ({error})"
        ) from None
    size = before.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    return float((after - before).abs().max() / size)
