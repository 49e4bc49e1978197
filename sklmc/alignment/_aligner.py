"""PermutationAligner: re-base a model B onto a model A."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import UNUSED
from tqdm.auto import tqdm

from sklmc._sklearn import Interval, StrOptions, check_is_fitted
from sklmc._validation import TakesModels, check_names, did_you_mean
from sklmc.alignment._methods import METHODS
from sklmc.alignment._problem import Match, Problem
from sklmc.alignment._weight import similarity_frame
from sklmc.exceptions import SymmetryError
from sklmc.models import ModelView, read_data, state_fingerprint, view_compatible
from sklmc.symmetry import PermutationSymmetry, cached_symmetry

WAYS_OUT = {"X": "pass samples as the nets take them", "y": "pass labels"}


class PermutationAligner(TakesModels, BaseEstimator):
    """Re-base a model B onto a model A by permuting B's hidden units.

    A net computes the same function after its hidden units are permuted. Among all these copies
    of B, the aligner looks for the one that can best be averaged with A, or joined to it by a
    straight line [1]_. A is the reference and never moves; B moves onto A.

    Parameters
    ----------
    method : {"weight", "activation", "straight_through", "auto"} or callable, default="weight"
        How the permutation is chosen; each maximises an objective of its own.

        - "weight": :math:`J(g) = \\sum_p \\langle A_p, (g B)_p \\rangle`, the sum running over
          every permuted tensor once (weights, biases, norm parameters; tied tensors once; running
          statistics are carried along and not matched): minimises the squared distance between A
          and gB. Needs no data.
        - "activation": the summed similarity of what A's and B's units answer to `X`, read where
          they go into the next weights. Groups that no module shows are matched by weight.
        - "straight_through": minus the loss halfway between A and gB on `X` and `y`, by gradient
          steps on a free copy of B's weights ([1]_, algorithm 2), from weight matching or from
          `init`, whichever has the lower loss. For nets small enough to match their weights at
          every other step.
        - "auto": weight and activation matching from several starts, and the two combined; half
          of `X` chooses, by the loss halfway when `y` is given and else by how near the outputs
          halfway are to the mean of A's and B's. The objective of a matching does not tell how
          good the merged net will be. With `y`, and a net that is small enough (see Notes),
          straight-through matching goes on from the best of these and from weight matching; it
          is kept where it lowers the loss on the rows that choose, and then learned once more
          on all rows. Without `X`: "weight".
        - a callable ``method(model_a, model_b, symmetry, X, y)`` that returns a Permutation, or
          a mapping from group names to index arrays.
    symmetry : "auto" or PermutationSymmetry, default="auto"
        Which permutations leave the net's function unchanged. "auto" discovers and proves them
        once per architecture and process.
    statistic : {"correlation", "moment"}, default="correlation"
        Similarity of two units in activation matching: Pearson's correlation, or the mean of the
        product [1]_.
    refine : bool, default=False
        Whether weight matching goes on from where activation matching ends.
    freeze : sequence of str, default=()
        Names of groups that stay where `init` puts them.
    init : Permutation, mapping or None, default=None
        Where the search starts: index arrays of B by group name. None is B as it is.
    n_init : int, default=1
        Number of starts of weight matching; the first is deterministic, each further one a random
        permutation. The best objective is kept.
    max_iter : int, default=100
        Largest number of sweeps over all groups in each start; of epochs for "straight_through",
        which "auto" ends after 30 at the latest.
    n_jobs : int or None, default=None
        Number of starts that run at the same time, in threads. The result does not depend on it.
    random_state : int, RandomState instance or None, default=None
        Draws further starts, the order of samples, and the rows that choose. Weight matching with
        ``n_init=1`` and activation matching draw nothing.
    verbose : int, default=0
        1 shows a progress bar over the improvements of the objective.

    Attributes
    ----------
    permutation_ : Permutation
        New unit i of a group of B is its old unit ``permutation_[group][i]``. Its `record` holds
        method, objective, fingerprints of both models, and the largest relative change of an
        output in the proof of the symmetry; ``permutation_.save(path)`` keeps all of it.
    symmetry_ : PermutationSymmetry
        The groups that were searched.
    method_ : str
        What found the permutation: `method`, or the member of the portfolio that "auto" kept.
    objective_ : float
        The method's objective at `permutation_`: larger is better. NaN for a callable.
    objective_path_ : ndarray of shape (n_iter_ + 1,)
        The objective at the start and after each sweep that raised it; never falls.
    n_iter_ : int
        Number of sweeps (epochs) that raised the objective, in the start that was kept.
    similarity_ : DataFrame
        One row per group: the cosine of A's weights and B's that hold the group's units
        (``matched``) beside B's own order (``identity``), the mean and spread over random
        permutations (``random``, ``random_std``) and a ``bound`` that no permutation can beat, all
        other groups held at the fit. A group at ``random`` was not matched at all.

    See Also
    --------
    MultiAligner : More than two models.
    merge_models : Align and average in one call.

    Notes
    -----
    Weight matching is coordinate ascent: for one group, all others held fixed, the best
    permutation is a linear assignment. A first pass in data-flow order matches each group on
    tensors whose other axes are matched already. A sweep costs, for each group of n units, the
    products of A's and B's weights over the other axes (2 n^2 K operations for tensors of n x K
    entries) and one assignment of size n; in later sweeps, where few units move, only the
    products over those. Beside the two models a search holds B's weights once more and, for speed,
    at most half as much of these products (256 MiB where that is more): with what one group takes
    while it is solved, less than three times both models. Copies of A and of the moved
    B stay until `similarity_` is read. Groups within others (heads and what lies within them) are
    solved together with them; a group on both axes of a tensor (recurrent weights) moves only where
    the objective rises. There are local optima: compare several starts with `n_init`.

    Activation matching passes once over X and keeps an n x n matrix for each place where units are
    watched, whatever the number of samples.

    An epoch of straight-through matching is a training epoch in batches of 100 and a sweep of
    weight matching for every 200 rows; it stops after 10 epochs without a lower loss. "auto" runs
    it twice on half of `X` and, if that gained, once on all: about half a minute on one core at
    most, as an epoch may cost 5e9 multiplications. Of a larger `X` it takes the rows that these
    pay for; where they are fewer than 2,000 and not all, straight-through matching is left out.
    On 784 features, 7 layers of 128 get 6,300 rows and 3 layers of 256 get 3,100; 3 layers of 512
    go without, unless `X` has no more than 766.

    References
    ----------
    .. [1] Ainsworth, Hayase, Srinivasa, "Git Re-Basin: Merging Models modulo Permutation
       Symmetries", ICLR 2023 (equation 2 is J for multilayer perceptrons).
    .. [2] Jordan, Sedghi, Saukh, Entezari, Neyshabur, "REPAIR: REnormalizing Permuted Activations
       for Interpolation Repair", ICLR 2023 (correlations of activations).

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
        "method": [StrOptions(set(METHODS)), callable],
        "symmetry": [StrOptions({"auto"}), PermutationSymmetry],
        "statistic": [StrOptions({"correlation", "moment"})],
        "refine": ["boolean"],
        "freeze": ["array-like"],
        "init": [Mapping, None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
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
        statistic="correlation",
        refine=False,
        freeze=(),
        init=None,
        n_init=1,
        max_iter=100,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.method = method
        self.symmetry = symmetry
        self.statistic = statistic
        self.refine = refine
        self.freeze = freeze
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, model_a, model_b, X=None, y=None):
        """Find the permutation that moves B closest to A.

        Parameters
        ----------
        model_a : skorch net, fitted sklmc estimator or torch.nn.Module
            The reference. Not changed.
        model_b : same kind and architecture as `model_a`
            The model to be moved. Not changed.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader, default=None
            Samples: what activation, straight-through and "auto" matching go by. Weight matching
            traces the net with a few of them where the shape of its input is not known.
        y : array-like of shape (n_samples,), default=None
            Labels or targets: needed by "straight_through", used by "auto".

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
        a, b = view_compatible([model_a, model_b], caller, ["model_a", "model_b"])
        inputs, target = self._data(a, X, y)
        symmetry = self.symmetry
        if isinstance(symmetry, str):
            symmetry = cached_symmetry(a, X)
        for one in (a, b):
            symmetry.check(one)
        match = self._match(a, b, symmetry, X, y, inputs, target)
        record = {
            "method": match.method,
            "objective": float(match.objective_path[-1]),
            "model_a": state_fingerprint(a.state),
            "model_b": state_fingerprint(b.state),
            "symmetry": symmetry.graph_hash,
            "equivalence_error": (symmetry.evidence or {}).get("error"),
        }
        self.symmetry_ = symmetry
        self.permutation_ = symmetry.permutation(match.perms, record)
        self.method_ = match.method
        self.objective_path_ = np.asarray(match.objective_path)
        self.objective_ = match.objective_path[-1]
        self.n_iter_ = len(match.objective_path) - 1
        self._similarity = None
        self._states = (
            {name: tensor.clone() for name, tensor in a.state.items()},
            symmetry.apply_state(b.state, self.permutation_),
        )
        return self

    @property
    def similarity_(self):
        """How well each group is matched; computed when first read (about one sweep)."""
        check_is_fitted(self)
        if self._similarity is None:
            self._similarity = similarity_frame(*self._states, self.symmetry_, self.permutation_)
            self._states = None
        return self._similarity

    def __getstate__(self):
        if hasattr(self, "_states"):
            self.similarity_  # noqa: B018  the frame travels, the weights do not
        return super().__getstate__()

    def _match(self, a, b, symmetry, X, y, inputs, target) -> Match:
        """Return what the method finds, as permutations of B; what it worked on is gone then."""
        start = symmetry.permutation({} if self.init is None else dict(self.init))
        if callable(self.method):
            found = symmetry.permutation(dict(self.method(a.model, b.model, symmetry, X, y)))
            return Match(dict(found), [np.nan], getattr(self.method, "__name__", "callable"))
        problem = self._problem(a, b, symmetry, start, inputs, target)
        caller = type(self).__name__
        with tqdm(desc=caller, disable=self.verbose < 1, unit="gain") as bar:

            def show(what: str, value: float) -> None:
                bar.set_description(what, refresh=False)
                bar.set_postfix(objective=f"{value:.6g}", refresh=False)
                bar.update()

            match = METHODS[self.method].match(replace(problem, progress=show))
        on_top = symmetry.permutation(match.perms)
        return replace(match, perms=dict(on_top.compose(start)))

    def _data(self, a: ModelView, X, y):
        """Return X and y as the methods take them, or say which is missing."""
        if callable(self.method):
            return None, None
        method = METHODS[self.method]
        if X is not None and method.reads_data:
            X = a.to_input(X)
            y = X.targets() if y is None else y
        for name, other in method.needs.items():
            if {"X": X, "y": y}[name] is None:
                raise ValueError(
                    f"{type(self).__name__}: method={method.name!r} needs {name!r}, got None; "
                    f"{WAYS_OUT[name]}, or use method={other!r}."
                )
        if X is None or not method.reads_data:
            return None, None
        return read_data(a, X, y)

    def _problem(self, a, b, symmetry, start, inputs, target) -> Problem:
        """Return what a method works on."""
        caller = type(self).__name__
        frozen = check_names(self.freeze, caller, "freeze")
        known = [group.name for group in symmetry.groups]
        for name in frozen:
            if name not in known:
                raise SymmetryError(
                    f"{caller}: 'freeze' names {name!r}, but there is no group {name!r}; the "
                    f"groups are {', '.join(map(repr, known)) or 'none'}."
                    f"{did_you_mean(name, known)}"
                )
        groups = [group for group in symmetry.groups if group.name not in frozen]
        settings = ("statistic", "refine", "n_init", "max_iter", "random_state", "n_jobs")
        own = {name: getattr(self, name) for name in settings}
        state_b = symmetry.apply_state(b.state, start)
        return Problem(a, b, symmetry, state_b, groups, inputs, target, **own)

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
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader, default=None
            As in `fit`.
        y : array-like of shape (n_samples,), default=None
            As in `fit`.

        Returns
        -------
        model : same kind as `model_b`
            B with its hidden units permuted.
        """
        return self.fit(model_a, model_b, X, y).transform(model_b)
