"""MultiAligner: many models into one common frame."""

from __future__ import annotations

import itertools
from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
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
from sklmc._validation import TakesModels, check_option
from sklmc.alignment._aligner import PermutationAligner
from sklmc.alignment._methods import METHODS
from sklmc.alignment._tensor_pairs import block_pairs
from sklmc.alignment._weight import match_weights
from sklmc.models import average_states, list_models, view, view_compatible
from sklmc.symmetry import cached_symmetry

ALIGNER_NAMES = (*METHODS, "merge_many")  # what other rooms take as `aligner`


class MultiAligner(TakesModels, BaseEstimator):
    """Bring any number of models into one common frame by permuting their hidden units.

    Every model gets one permutation; moving from model j's frame to model i's is
    ``p_i.inverse().compose(p_j)``. Going round any cycle of models is then exactly the identity,
    which matching pair by pair does not give.

    Parameters
    ----------
    method : {"merge_many", "reference"}, default="merge_many"
        "reference" aligns every model to one of them. "merge_many" starts from there and then
        aligns each model in turn to the mean of the others by its weights, until none moves
        ([1]_, algorithm 3): no model is special, and the mean inner product of all pairs never
        falls.
    aligner : str, PermutationAligner or None, default="weight"
        Aligns a model to the reference: a method of :class:`~sklmc.PermutationAligner` ("weight",
        "activation", "straight_through", "auto"; then with ``random_state=0``), or an aligner,
        cloned for each. With "merge_many" its method must be "weight". None takes the models as
        they are: "merge_many" starts from there, and with "reference" nothing moves.
    reference : int, default=0
        Which model the others are aligned to, first or only.
    max_iter : int, default=100
        Largest number of rounds over all models for "merge_many".
    n_jobs : int or None, default=None
        Number of models that are aligned to the reference at the same time, in threads.
    random_state : int, RandomState instance or None, default=None
        Draws the order of models in each round of "merge_many".
    verbose : int, default=0
        1 shows a progress bar over models and rounds.

    Attributes
    ----------
    permutations_ : list of Permutation
        One for each model: new unit i is its old unit ``permutations_[k][group][i]``. That of the
        reference is the identity for "reference".
    symmetry_ : PermutationSymmetry
        The groups that were searched.
    objective_ : float
        Mean inner product of the aligned weights over all pairs of models: larger is closer.
    objective_path_ : ndarray of shape (n_iter_ + 1,)
        `objective_` after the alignment to the reference and after each round that raised it.
    n_iter_ : int
        Number of rounds that raised the objective; 0 for "reference".

    See Also
    --------
    PermutationAligner : Two models.
    merge_models : Align and average in one call.

    Notes
    -----
    A round of "merge_many" costs one weight matching for each model, from where it stands. The
    squared distance of a model to the mean of the others falls as their inner product rises, and
    the latter is, up to a factor, the sum over its pairs: so each step raises the objective.

    References
    ----------
    .. [1] Ainsworth, Hayase, Srinivasa, "Git Re-Basin: Merging Models modulo Permutation
       Symmetries", ICLR 2023.

    Examples
    --------
    >>> import torch
    >>> from sklmc import MultiAligner, average_models
    >>> from sklmc.nets import MLP
    >>> _ = torch.manual_seed(0)
    >>> nets = [MLP(n_features=3, n_outputs=2, width=8) for _ in range(4)]
    >>> aligned = MultiAligner(random_state=0).fit_transform(nets)
    >>> merged = average_models(aligned)
    >>> x = torch.randn(5, 3)
    >>> torch.allclose(aligned[2](x), nets[2](x), atol=1e-5)
    True
    """

    _parameter_constraints: dict = {
        "method": [StrOptions({"merge_many", "reference"})],
        "aligner": [StrOptions(set(METHODS)), PermutationAligner, None],
        "reference": [Interval(Integral, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    __metadata_request__fit = {"models": UNUSED}
    __metadata_request__transform = {"models": UNUSED}
    __metadata_request__inverse_transform = {"models": UNUSED}

    def __init__(
        self,
        method="merge_many",
        *,
        aligner="weight",
        reference=0,
        max_iter=100,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.method = method
        self.aligner = aligner
        self.reference = reference
        self.max_iter = max_iter
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, models, X=None, y=None):
        """Find one permutation for each model.

        Parameters
        ----------
        models : list of skorch nets, fitted sklmc estimators or torch.nn.Modules
            Two or more models of one architecture. None is changed.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader, default=None
            Samples, as the aligner needs them.
        y : array-like of shape (n_samples,), default=None
            Labels, as the aligner needs them.

        Returns
        -------
        self : MultiAligner
            Fitted.

        Raises
        ------
        ArchitectureMismatchError
            If the tensors, tasks or classes of two models differ (a ValueError).
        NonFiniteError
            If a weight is NaN or infinite (a ValueError).
        ValueError
            If there are fewer than two models, or `reference` is none of them.
        """
        self._validate_params()
        caller = type(self).__name__
        models = list_models(models, caller, minimum=2)
        aligner = self.aligner
        if aligner is None or isinstance(aligner, str):
            aligner = make_aligner(aligner or "weight")
        if self.method == "merge_many" and aligner.method != "weight":
            raise ValueError(
                f"{caller}: method='merge_many' goes by weights, but the 'aligner' has "
                f"method={aligner.method!r}; use method='reference', or an aligner by weight."
            )
        if aligner.init is not None:
            raise ValueError(
                f"{caller}: the 'aligner' has an 'init', which belongs to one pair of models; "
                "leave it None."
            )
        if self.reference >= len(models):
            raise ValueError(
                f"{caller}: 'reference' must be the index of one of the {len(models)} models, "
                f"got {self.reference!r}."
            )
        looks = view_compatible(models, caller)
        models = [look.model for look in looks]
        symmetry = aligner.symmetry
        if isinstance(symmetry, str):
            symmetry = cached_symmetry(looks[0], X)
        aligner = clone(aligner).set_params(symmetry=symmetry, verbose=0)

        def to_reference(index: int):
            if index == self.reference or self.aligner is None:
                return symmetry.identity()
            return clone(aligner).fit(models[self.reference], models[index], X, y).permutation_

        todo = tqdm(range(len(models)), desc=caller, disable=self.verbose < 1, unit="model")
        permutations = Parallel(n_jobs=self.n_jobs, require="sharedmem")(
            delayed(to_reference)(index) for index in todo
        )
        states = [look.state for look in looks]
        moved = [symmetry.apply_state(s, p) for s, p in zip(states, permutations)]
        path = [mean_inner_product(moved, symmetry)]
        if self.method == "merge_many":
            groups = [g for g in symmetry.groups if g.name not in set(aligner.freeze)]
            self._merge_many(states, moved, permutations, path, symmetry, groups)
        self.symmetry_ = symmetry
        self.permutations_ = permutations
        self.objective_path_ = np.asarray(path)
        self.objective_ = path[-1]
        self.n_iter_ = len(path) - 1
        return self

    def _merge_many(self, states, moved, permutations, path, symmetry, groups) -> None:
        """Align each model to the mean of the others, round after round, until none moves.

        `moved`, `permutations` and the objective's `path` are brought up to date.
        """
        rng = check_random_state(self.random_state)
        rounds = tqdm(
            range(self.max_iter), desc="merge_many", disable=self.verbose < 1, unit="round"
        )
        for _ in rounds:
            n_moved = 0
            for index in rng.permutation(len(states)):
                others = [state for i, state in enumerate(moved) if i != index]
                mean = average_states(others, [1 / len(others)] * len(others))
                found = match_weights(mean, moved[index], symmetry, groups=groups, one_sided=False)
                step = symmetry.permutation(found.perms)
                if step.n_moved:
                    n_moved += step.n_moved
                    permutations[index] = step.compose(permutations[index])
                    moved[index] = symmetry.apply_state(states[index], permutations[index])
            value = mean_inner_product(moved, symmetry)
            rounds.set_postfix(objective=f"{value:.6g}", moved=n_moved)
            if n_moved == 0 or value <= path[-1]:
                break
            path.append(value)

    def transform(self, models):
        """Return copies of the models in the common frame.

        Parameters
        ----------
        models : list of skorch nets, fitted sklmc estimators or torch.nn.Modules
            As many as were fitted, in the same order. None is changed.

        Returns
        -------
        models : list, same kinds
            Each computes the same function as before.
        """
        check_is_fitted(self)
        return self._apply(models, self.permutations_)

    def inverse_transform(self, models):
        """Undo `transform`.

        Parameters
        ----------
        models : list of skorch nets, fitted sklmc estimators or torch.nn.Modules
            Models in the common frame, in the same order. None is changed.

        Returns
        -------
        models : list, same kinds
            Each in its own frame, bit for bit.
        """
        check_is_fitted(self)
        return self._apply(models, [p.inverse() for p in self.permutations_])

    def fit_transform(self, models, X=None, y=None):
        """Fit, then return the models in the common frame.

        Parameters
        ----------
        models : list of skorch nets, fitted sklmc estimators or torch.nn.Modules
            As in `fit`.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader, default=None
            As in `fit`.
        y : array-like of shape (n_samples,), default=None
            As in `fit`.

        Returns
        -------
        models : list, same kinds
            The models in the common frame.
        """
        return self.fit(models, X, y).transform(models)

    def compare(self, models):
        """Set the common frame beside matching every pair on its own.

        Parameters
        ----------
        models : list of skorch nets, fitted sklmc estimators or torch.nn.Modules
            The models of the fit, in the same order.

        Returns
        -------
        frame : DataFrame
            One row for each pair of indices ``model_a < model_b``: the inner product of their
            weights as they are (``identity``), in the common frame (``common``) and after weight
            matching of this pair alone (``pairwise``).
        """
        check_is_fitted(self)
        symmetry = self.symmetry_
        looks = view_compatible(self._views(models), type(self).__name__)
        for look in looks:
            symmetry.check(look)
        states = [look.state for look in looks]
        moved = [symmetry.apply_state(s, p) for s, p in zip(states, self.permutations_)]
        rows = []
        for i, j in itertools.combinations(range(len(states)), 2):
            pair = match_weights(states[i], states[j], symmetry)
            as_given = inner_product(states[i], states[j], symmetry)
            common = inner_product(moved[i], moved[j], symmetry)
            rows.append((i, j, as_given, common, pair.objective))
        return pd.DataFrame(rows, columns=["model_a", "model_b", "identity", "common", "pairwise"])

    def _apply(self, models, permutations) -> list:
        """Apply one permutation to each model."""
        looks = self._views(models)
        return [self.symmetry_.apply(look, p) for look, p in zip(looks, permutations)]

    def _views(self, models) -> list:
        """Return views of as many models as the fit had, each under its own name."""
        caller, models = type(self).__name__, list_models(models, type(self).__name__)
        if len(models) != len(self.permutations_):
            raise ValueError(
                f"{caller}: 'models' must be the {len(self.permutations_)} models of "
                f"the fit, in the same order; got {len(models)}."
            )
        return [view(m, caller=caller, name=f"models[{i}]") for i, m in enumerate(models)]


def inner_product(a, b, symmetry) -> float:
    """Return <a, b> over all tensors that a group permutes."""
    return sum(pair.inner_product() for pair in block_pairs(a, b, symmetry))


def mean_inner_product(states, symmetry) -> float:
    """Return the mean of <a, b> over all pairs of states, from the square of their sum."""
    n = len(states)
    total = {
        name: sum(state[name].double() for state in states)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }
    squares = sum(inner_product(state, state, symmetry) for state in states)
    return (inner_product(total, total, symmetry) - squares) / (n * (n - 1))


def check_aligner(aligner, caller: str):
    """Return `aligner` if it is a name, an aligner with its own settings, or None."""
    if isinstance(aligner, type):
        raise TypeError(
            f"{caller}: 'aligner' is the class {aligner.__name__}; pass an instance of it."
        )
    if not (hasattr(aligner, "fit") and hasattr(aligner, "transform")):
        check_option(aligner, [*ALIGNER_NAMES, None], caller, "aligner")
    return aligner


def make_aligner(name: str) -> PermutationAligner | MultiAligner:
    """Return the aligner of a method's name, with a fixed seed: the same call, the same result."""
    if name == "merge_many":
        return MultiAligner("merge_many", random_state=0)
    return PermutationAligner(name, random_state=0)
