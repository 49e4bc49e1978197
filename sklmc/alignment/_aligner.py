"""PermutationAligner: re-base a model B onto a model A."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import UNUSED
from tqdm.auto import tqdm

from sklmc._sklearn import (
    Interval,
    Parallel,
    StrOptions,
    check_is_fitted,
    check_random_state,
    delayed,
)
from sklmc._torch import single_thread
from sklmc.alignment._blocks import block_pairs
from sklmc.alignment._descent import CoordinateDescent, DescentResult
from sklmc.models import check_compatible, view
from sklmc.symmetry import PermutationSymmetry, cached_symmetry

MAX_SEED = np.iinfo(np.int32).max


def match_weights(
    a, b, symmetry, *, n_init=1, max_iter=100, random_state=None, n_jobs=None, verbose=0
) -> DescentResult:
    """Return the permutations of state `b` that maximise its inner product with state `a`.

    The first start is one-sided from the identity; the others are random permutations with a
    random order of groups. The best objective is kept, the earliest among equals.
    """
    seeds = [None]
    if n_init > 1:
        seeds += list(check_random_state(random_state).randint(MAX_SEED, size=n_init - 1))
    bar = tqdm(total=n_init * max_iter, desc="weight matching", disable=verbose < 1, unit="sweep")

    def descend(seed: int | None) -> DescentResult:
        own = None if seed is None else check_random_state(seed)
        start = symmetry.identity() if own is None else symmetry.random_permutation(own)
        with single_thread():
            return CoordinateDescent(block_pairs(a, b, symmetry), symmetry.groups).run(
                dict(start),
                max_iter,
                one_sided=own is None,
                rng=own,
                progress=lambda value: (bar.set_postfix(objective=f"{value:.6g}"), bar.update()),
            )

    with bar:
        # results are small and inputs large: threads, whatever the surrounding backend
        results = Parallel(n_jobs=n_jobs, require="sharedmem")(
            delayed(descend)(seed) for seed in seeds
        )
    return max(results, key=lambda result: result.objective)


class PermutationAligner(BaseEstimator):
    """Re-base a model B onto a model A by permuting B's hidden units.

    A net computes the same function after its hidden units are permuted. Among all these copies
    of B, the aligner finds the one whose weights lie closest to A's, so that the two can be
    averaged or joined by a straight line [1]_. A is the reference and never moves; B moves
    onto A. Weight matching maximises

    .. math:: J(g) = \\sum_p \\langle A_p, (g B)_p \\rangle,

    the sum running over every permuted tensor once (weights, biases, norm parameters; tied
    tensors once; running statistics are carried along and not matched), which minimises the
    squared distance between A and gB.

    Parameters
    ----------
    method : {"weight"}, default="weight"
        How the permutation is chosen. "weight": coordinate ascent on J, one linear assignment
        for each group of units, after a first pass in data-flow order that matches each group
        on tensors whose other axes are matched already.
    symmetry : "auto" or PermutationSymmetry, default="auto"
        Which permutations leave the net's function unchanged. "auto" discovers and proves them
        once per architecture and process.
    n_init : int, default=1
        Number of starts; the first is deterministic, each further one a random permutation.
        The best objective is kept.
    max_iter : int, default=100
        Largest number of sweeps over all groups in each start.
    random_state : int, RandomState instance or None, default=None
        Draws the further starts. With ``n_init=1`` nothing is drawn.
    n_jobs : int or None, default=None
        Number of starts that run at the same time, in threads. The result does not depend on it.
    verbose : int, default=0
        1 shows a progress bar over sweeps.

    Attributes
    ----------
    permutation_ : Permutation
        New unit i of a group of B is its old unit ``permutation_[group][i]``.
    symmetry_ : PermutationSymmetry
        The groups that were searched.
    objective_ : float
        J at `permutation_`: larger is closer.
    objective_path_ : ndarray of shape (n_iter_ + 1,)
        J before the first sweep and after each that raised it; never falls.
    n_iter_ : int
        Number of sweeps that raised the objective, in the start that was kept.

    See Also
    --------
    merge_models : Align and average in one call.

    Notes
    -----
    A sweep costs, for each group of n units, the products of A's and B's weights over the other
    axes (2 n^2 K operations for tensors of n x K entries) and one assignment of size n. Gram
    matrices (n x n for each tensor) are kept until another permutation makes them stale; memory
    is that of both models and these matrices. The objective has local optima: compare several
    starts with `n_init`.

    References
    ----------
    .. [1] Ainsworth, Hayase, Srinivasa, "Git Re-Basin: Merging Models modulo Permutation
       Symmetries", ICLR 2023 (equation 2 is J for multilayer perceptrons).

    Examples
    --------
    >>> import torch
    >>> from sklmc import PermutationAligner
    >>> from sklmc.nets import MLP
    >>> _ = torch.manual_seed(0)
    >>> a = MLP(n_features=3, n_outputs=2, width=8)
    >>> aligner = PermutationAligner().fit(a, a)
    >>> b = aligner.symmetry_.apply(a, aligner.symmetry_.random_permutation(random_state=0))
    >>> back = PermutationAligner().fit_transform(a, b)
    >>> all(torch.equal(p, q) for p, q in zip(a.parameters(), back.parameters()))
    True
    """

    _parameter_constraints: dict = {
        "method": [StrOptions({"weight"})],
        "symmetry": [StrOptions({"auto"}), PermutationSymmetry],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "n_jobs": [None, Integral],
        "verbose": ["verbose"],
    }
    __metadata_request__fit = {"model_a": UNUSED, "model_b": UNUSED}
    __metadata_request__transform = {"model": UNUSED}
    __metadata_request__inverse_transform = {"model": UNUSED}

    def __init__(
        self,
        method="weight",
        *,
        symmetry="auto",
        n_init=1,
        max_iter=100,
        random_state=None,
        n_jobs=None,
        verbose=0,
    ):
        self.method = method
        self.symmetry = symmetry
        self.n_init = n_init
        self.max_iter = max_iter
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, model_a, model_b, X=None, y=None):
        """Find the permutation that moves B closest to A.

        Parameters
        ----------
        model_a : skorch net, fitted sklmc estimator or torch.nn.Module
            The reference. Not changed.
        model_b : same kind and architecture as `model_a`
            The model to be moved. Not changed.
        X : array-like of shape (n_samples, ...), default=None
            A few samples from which the net is traced, where the shape of its input is not
            known: fitted sklmc nets remember it, and a plain module that begins with a Linear
            layer shows it. Weight matching makes no other use of it.
        y : ignored
            Present for methods that use labels.

        Returns
        -------
        self : PermutationAligner
            Fitted.

        Raises
        ------
        ArchitectureMismatchError
            If the tensors, tasks or classes of A and B differ (a ValueError).
        NonFiniteError
            If a weight is NaN or infinite (a ValueError).
        SymmetryError
            If the net cannot be traced, or `symmetry` belongs to another architecture (a
            ValueError).
        """
        self._validate_params()
        caller = type(self).__name__
        a = view(model_a, caller=caller, name="model_a")
        b = view(model_b, caller=caller, name="model_b")
        check_compatible([a, b], caller, ["model_a", "model_b"])
        symmetry = self.symmetry
        if isinstance(symmetry, str):
            symmetry = cached_symmetry(a, X)
        for one in (a, b):
            symmetry.check(one)
        result = match_weights(
            a.state,
            b.state,
            symmetry,
            n_init=self.n_init,
            max_iter=self.max_iter,
            random_state=self.random_state,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )
        self.symmetry_ = symmetry
        self.permutation_ = symmetry.permutation(result.perms)
        self.objective_ = result.objective
        self.objective_path_ = np.asarray(result.objective_path)
        self.n_iter_ = result.n_iter
        return self

    def transform(self, model):
        """Return a copy of a model with its hidden units permuted as B's were.

        Parameters
        ----------
        model : skorch net, fitted sklmc estimator or torch.nn.Module
            Usually the B of the fit; any model of the same architecture. Not changed.

        Returns
        -------
        model : same kind as `model`
            Computes the same function.
        """
        check_is_fitted(self)
        return self.symmetry_.apply(model, self.permutation_)

    def inverse_transform(self, model):
        """Undo `transform`.

        Parameters
        ----------
        model : skorch net, fitted sklmc estimator or torch.nn.Module
            A model in A's frame. Not changed.

        Returns
        -------
        model : same kind as `model`
            The model in B's own frame, bit for bit.
        """
        check_is_fitted(self)
        return self.symmetry_.apply(model, self.permutation_.inverse())

    def fit_transform(self, model_a, model_b, X=None, y=None):
        """Fit, then return B re-based onto A.

        Parameters
        ----------
        model_a : skorch net, fitted sklmc estimator or torch.nn.Module
            The reference. Not changed.
        model_b : same kind and architecture as `model_a`
            The model to be moved. Not changed.
        X : array-like of shape (n_samples, ...), default=None
            As in `fit`.
        y : ignored
            As in `fit`.

        Returns
        -------
        model : same kind as `model_b`
            B with its hidden units permuted.
        """
        return self.fit(model_a, model_b, X, y).transform(model_b)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        tags.non_deterministic = False
        return tags
