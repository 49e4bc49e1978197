"""What a barrier is to be compared with: random permutations, random directions."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.base import clone

from sklmc._validation import check_integer, check_seed
from sklmc.connectivity._path_score import PathScore
from sklmc.connectivity._scorer import check_scorer
from sklmc.models import ModelView, check_compatible, view_through
from sklmc.symmetry import discover_symmetry

MAX_SEED = np.iinfo(np.int32).max


def path_controls(
    model_a, model_b, X, y=None, *, scorer=None, n_repeats=5, random_state=None
) -> dict[str, PathScore | list[PathScore]]:
    """Score a path beside two kinds of random paths of the same length.

    A low barrier says something only where these are high. "random_permutation" permutes the
    hidden units of B at random: what happens between nets that are as far from each other as
    permutations can bring them. "random_direction" leads from A away in a random direction, each
    tensor moving as far as it does on the way to B: how robust A is to a step of that length.

    Parameters
    ----------
    model_a, model_b : skorch net, fitted sklmc estimator, Pipeline or torch.nn.Module
        A (alpha = 0) is the reference. Neither is changed.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        Samples, as the models take them.
    y : array-like of shape (n_samples,), default=None
        Labels the models know, or targets. None where X holds them (Dataset, DataLoader).
    scorer : LMCScorer, default=None
        How to score; None means ``LMCScorer()``. Its aligner acts on the path itself only.
    n_repeats : int, default=5
        Number of random paths of each kind.
    random_state : int, RandomState instance or None, default=None
        Draws them.

    Returns
    -------
    scores : dict
        "path": the PathScore of A and B; "random_permutation" and "random_direction": lists of
        PathScore. :meth:`sklmc.PathDisplay.from_scores` draws it as it is. Only the path's loss
        at alpha, not at 1, is comparable with a random direction's.

    See Also
    --------
    sklmc.LMCScorer : Scores the paths.

    References
    ----------
    .. [1] Ito, Yamada, Chijiwa, Kumagai, "Do we really need permutations? Impact of width
       expansion on linear mode connectivity", 2025.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import NetClassifier
    >>> from sklmc.connectivity import path_controls
    >>> X, y = make_moons(60, noise=0.1, random_state=0)
    >>> a, b = (NetClassifier(max_epochs=5, random_state=i).fit(X, y) for i in range(2))
    >>> scores = path_controls(a, b, X, y, n_repeats=2, random_state=0)
    >>> {name: len(found) for name, found in scores.items() if name != "path"}
    {'random_permutation': 2, 'random_direction': 2}
    """
    caller = "path_controls"
    check_integer(n_repeats, caller, "n_repeats", 1)
    scorer = check_scorer(scorer, caller)
    rng = check_seed(random_state, caller)
    seeds = rng.randint(MAX_SEED, size=2 * n_repeats).tolist()
    names = ["model_a", "model_b"]
    models = [model_a, model_b]
    (a, b), earlier, X_seen = view_through(models, X, caller, names)
    check_compatible([a, b], caller, names)
    bare = clone(scorer).set_params(aligner=None)
    symmetry = discover_symmetry(b.model, X_seen)
    moved = [
        symmetry.apply(b.model, symmetry.random_permutation(seed)) for seed in seeds[:n_repeats]
    ]
    away = [_random_step(a, b, seed) for seed in seeds[n_repeats:]]
    if earlier[0] and isinstance(bare.calibration, tuple):
        X_cal, y_cal = bare.calibration
        bare.set_params(calibration=(view_through(models, X_cal, caller, names)[2], y_cal))
    return {
        "path": scorer.path(model_a, model_b, X, y),
        "random_permutation": [bare.path(a.model, other, X_seen, y) for other in moved],
        "random_direction": [bare.path(a.model, other, X_seen, y) for other in away],
    }


def _random_step(a: ModelView, b: ModelView, seed: int):
    """Return A with every parameter moved in a random direction as far as B's is."""
    generator = torch.Generator().manual_seed(seed)
    parameters = {name for name, _ in a.original.named_parameters(remove_duplicate=False)}
    state = {}
    for name, tensor in a.state.items():
        if name not in parameters or not tensor.is_floating_point():
            state[name] = tensor
            continue
        direction = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        length = (b.state[name].double() - tensor.double()).norm().cpu()
        step = direction * (length / direction.norm().clamp(min=1e-300))
        state[name] = (tensor.double() + step.to(tensor.device)).to(tensor.dtype)
    return a.rebuild(state)
