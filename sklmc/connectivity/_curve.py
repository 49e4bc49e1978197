"""A curve of low loss between two nets: mode connectivity along a bend."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from tqdm.auto import tqdm

from sklmc._sklearn import check_random_state
from sklmc._torch import single_thread, to_device
from sklmc._validation import (
    LARGEST_RATE,
    check_integer,
    check_number,
    check_option,
    check_verbose,
)
from sklmc.alignment import check_aligner
from sklmc.connectivity._pair_scoring import check_samples
from sklmc.connectivity._path_losses import Samples
from sklmc.connectivity._path_score import PathScore
from sklmc.connectivity._state_score import score_state
from sklmc.merging import reestimate_statistics
from sklmc.merging._merge import align_models
from sklmc.models import (
    ModelView,
    State,
    average_states,
    batch_statistics_copy,
    per_sample_loss,
    pick_output,
    view,
    view_compatible,
)


@dataclasses.dataclass(frozen=True, eq=False)
class CurveFit:
    """A curve between two models, as :func:`sklmc.connectivity.fit_curve` finds it.

    Parameters
    ----------
    bend : model of the kind that went in
        The net that the curve is drawn towards.
    curve : PathScore
        Loss and error along the curve, from A (alpha = 0) to B (alpha = 1).
    line : PathScore
        Loss and error along the straight line, at the same positions.
    history : list of float
        Mean training loss on the curve, epoch by epoch.

    See Also
    --------
    sklmc.PathDisplay : Draws both: ``PathDisplay.from_scores({"line": fit.line, ...})``.

    References
    ----------
    .. [1] Garipov, Izmailov, Podoprikhin, Vetrov, Wilson, "Loss surfaces, mode connectivity, and
       fast ensembling of DNNs", NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklmc import PathScore
    >>> from sklmc.connectivity._curve import CurveFit
    >>> alphas, ends = np.array([0.0, 0.5, 1.0]), np.array([0.1, 0.2, 0.1])
    >>> line = PathScore(alphas=alphas, loss=10 * ends, error=ends)
    >>> curve = PathScore(alphas=alphas, loss=ends, error=ends)
    >>> CurveFit(bend=None, curve=curve, line=line, history=[]).curve.barrier < line.barrier
    True
    """

    bend: object
    curve: PathScore
    line: PathScore
    history: list[float]


def fit_curve(
    model_a,
    model_b,
    X,
    y=None,
    *,
    aligner=None,
    repair=None,
    n_epochs=20,
    lr=0.01,
    batch_size=128,
    n_alphas=11,
    random_state=None,
    verbose=0,
) -> CurveFit:
    """Find a curve of low loss between two models, and score it beside the straight line.

    The curve is a Bezier curve with one bend [1]_, ``(1-t)^2 A + 2 t (1-t) C + t^2 B``. The bend C
    starts halfway and is trained by Adam: each batch sees the net at a t of its own, drawn
    uniformly from [0, 1]. A and B stay where they are.

    Parameters
    ----------
    model_a, model_b : skorch net, fitted sklmc estimator, Pipeline or torch.nn.Module
        The ends, of one architecture; neither is changed.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        Samples to train the bend on, and to score on.
    y : array-like of shape (n_samples,), default=None
        Labels or targets; None where X holds them.
    aligner : str, aligner object or None, default=None
        How B is moved onto A first; see :func:`sklmc.merge_models`.
    repair : {"batch_norm"} or None, default=None
        "batch_norm" estimates running statistics again wherever curve and line are scored, ends
        excepted.
    n_epochs : int, default=20
        Passes over X.
    lr : float, default=0.01
        Adam's learning rate; it falls linearly to zero.
    batch_size : int, default=128
        Samples in a step.
    n_alphas : int, default=11
        Odd number of positions that are scored.
    random_state : int, RandomState instance or None, default=None
        The order of the samples, and the positions that train.
    verbose : int, default=0
        1 shows a bar over the epochs.

    Returns
    -------
    fit : CurveFit
        The bend, and losses along the curve and along the line.

    Raises
    ------
    ArchitectureMismatchError
        If the tensors, tasks or classes of A and B differ (a ValueError).
    ValueError
        If X or y do not fit the models, or a number is out of range.

    See Also
    --------
    sklmc.LMCScorer : Straight lines, with calibration and many pairs.
    sklmc.loss_plane : The plane through A, B and the bend.

    Notes
    -----
    A low curve says that two minima are connected, not that they are *linearly* connected: the
    bend is trained, and any two nets of some width have one. Batch norm uses the statistics of the
    batch while the bend is trained; dropout is off.

    References
    ----------
    .. [1] Garipov, Izmailov, Podoprikhin, Vetrov, Wilson, "Loss surfaces, mode connectivity, and
       fast ensembling of DNNs", NeurIPS 2018.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import NetClassifier
    >>> from sklmc.connectivity import fit_curve
    >>> X, y = make_moons(100, noise=0.1, random_state=0)
    >>> a, b = (NetClassifier(max_epochs=20, random_state=i).fit(X, y) for i in range(2))
    >>> fit = fit_curve(a, b, X, y, random_state=0)
    >>> bool(fit.curve.barrier < fit.line.barrier)
    True
    """
    caller = "fit_curve"
    check_aligner(aligner, caller)
    check_option(repair, ["batch_norm", None], caller, "repair")
    check_integer(n_epochs, caller, "n_epochs", 1)
    check_number(lr, caller, "lr", 0, LARGEST_RATE)
    check_integer(batch_size, caller, "batch_size", 1)
    check_integer(n_alphas, caller, "n_alphas", 3)
    check_verbose(verbose, caller)
    if n_alphas % 2 == 0:
        raise ValueError(f"{caller}: 'n_alphas' must be odd, got {n_alphas!r}.")
    names = ["model_a", "model_b"]
    looks = view_compatible([model_a, model_b], caller, names)
    samples, classify = check_samples(looks[0], X, y)
    aligned = align_models([look.model for look in looks], aligner, X, y)
    a, b = (view(model, caller=caller, name=name) for model, name in zip(aligned, names))
    rng = check_random_state(random_state)
    bar = tqdm(range(n_epochs), desc="curve", unit="epoch", disable=not verbose)
    bend, history = _train(a, b, samples, rng, bar, lr, batch_size)
    alphas = np.linspace(0.0, 1.0, n_alphas)
    curve = [bezier_weights(t) for t in alphas]
    line = [(1.0 - t, 0.0, t) for t in alphas]
    states = (a.state, bend, b.state)
    along, straight = (
        _score(a, states, weights, samples, classify, repair, alphas) for weights in (curve, line)
    )
    return CurveFit(a.rebuild(bend), along, straight, history)


def bezier_weights(t: float) -> tuple[float, float, float]:
    """Return the weights of A, the bend and B at a point of the curve."""
    return (1.0 - t) ** 2, 2.0 * t * (1.0 - t), t**2


def _train(
    a: ModelView, b: ModelView, samples: Samples, rng, epochs, lr: float, batch_size: int
) -> tuple[State, list[float]]:
    """Return the tensors of the bend, and the mean loss of each epoch."""
    middle = average_states([a.state, b.state], [0.5, 0.5])
    module = batch_statistics_copy(a.module)
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    free = {name: middle[name].clone().requires_grad_() for name in names}
    optimizer = torch.optim.Adam(free.values(), lr=lr)
    history: list[float] = []
    target = torch.from_numpy(samples.target)
    n_steps, step = len(epochs) * -(-len(target) // batch_size), 0
    for _ in epochs:
        rows = torch.from_numpy(rng.permutation(len(target)))
        losses: list[float] = []
        for block in samples.inputs[rows].passes(batch_size):
            t = float(rng.uniform())
            for group in optimizer.param_groups:
                group["lr"] = lr * (1.0 - step / n_steps)
            with single_thread():
                loss = _loss(module, a, b, free, t, block, target[rows[block.samples]])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            losses.append(float(loss.detach()))
            step += 1
        history.append(float(np.mean(losses)))
    middle.update({name: tensor.detach() for name, tensor in free.items()})
    return middle, history


def _loss(
    module: nn.Module,
    a: ModelView,
    b: ModelView,
    free: Mapping[str, torch.Tensor],
    t: float,
    block,
    target: torch.Tensor,
) -> torch.Tensor:
    """Return the mean loss of a batch at one point of the curve."""
    first, bend, last = bezier_weights(t)
    tensors = {
        name: first * a.state[name] + bend * own + last * b.state[name]
        for name, own in free.items()
    }
    args = to_device(block.args, a.device)
    output = functional_call(module, tensors, args, tie_weights=False)
    outputs = pick_output(a, output)[block.outputs]
    return per_sample_loss(outputs, target, a.caller).mean()


def _score(
    look: ModelView,
    states: Sequence[State],
    weights: Sequence[tuple[float, float, float]],
    samples: Samples,
    classify: bool,
    repair: str | None,
    alphas: np.ndarray,
) -> PathScore:
    """Return loss and error of the nets at some weights of A, the bend and B."""
    values = []
    for one in weights:
        state = average_states(states, one)
        if repair is not None and max(one) < 1.0:
            state = reestimate_statistics(look, state, samples.inputs)
        values.append(score_state(look, state, samples, classify))
    loss, error = np.array(values).T
    return PathScore(alphas=alphas, loss=loss, error=error)
