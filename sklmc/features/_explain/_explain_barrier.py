"""Why two nets do not average: causes of the barrier between them."""

from __future__ import annotations

from sklmc.features._explain._barrier_report import BarrierReport
from sklmc.features._explain._cause_search import CauseSearch
from sklmc.features._explain._split_samples import SplitSamples
from sklmc.models import check_compatible, read_labelled_data, view, view_through

MIN_SAMPLES = 40


def explain_barrier(model_a, model_b, X, y) -> BarrierReport:
    """Explain why the average of two nets is worse than the nets.

    Every known cause is tried by its remedy: what the remedy removes of the barrier at the
    midpoint is the cause's share. Half of the samples serve to fit remedies, half to score.

    Parameters
    ----------
    model_a, model_b : skorch net, fitted sklmc estimator, Pipeline or torch.nn.Module
        Two nets of one architecture. A is the reference; neither is changed. A Pipeline counts
        as its last step, seen through the earlier ones.
    X : array-like of shape (n_samples, ...)
        At least 40 samples, better some hundreds; held-out ones, if the nets fit their training
        data perfectly.
    y : array-like of shape (n_samples,)
        Labels or targets.

    Returns
    -------
    report : BarrierReport
        `causes`, ranked, each with its number, its reference level and the call that would help;
        `rises`, which of loss, calibrated loss and error are higher at the midpoint; `layers`;
        ``print(report)`` says it in words, ``report.to_frame()`` as a table.

    Raises
    ------
    ArchitectureMismatchError
        If the nets differ in tensors, task or classes (a ValueError).
    ValueError
        If there are too few samples, y does not fit, or a weight is not finite.

    See Also
    --------
    sklmc.LMCScorer : Measures the barrier.
    layerwise_linear_connectivity, variance_ratio : The evidence by layer.

    Notes
    -----
    Over-confident ends hide a barrier: averaging makes logits smaller, and the loss may fall while
    the error rises. A barrier is there if the loss, the loss after one inverse temperature for each
    net, or the error rises by more than 3 % of what the ends have learned; the first of them that
    does is what shares are shares of.

    Causes overlap: permuted units collapse in variance, and collapsed nets have small logits. So
    the order of decisions matters; it goes from what spoils every other measurement, by what is
    cheap to mend, to what is left:

    1. *stale_batch_norm*: statistics are estimated again at both ends and at the midpoint. What
       that gains is its share; all that follows uses the new statistics.
    2. *under_trained*: an end removes less than half of a constant prediction's error, or the
       ends differ by more than 0.1 in that share. It comes first in the report if it is found;
       below a quarter the search ends here. So it does if there is no barrier.
    3. *logit_scale*: named only if the loss itself rises, one inverse temperature for each net
       leaves at most 15 % of the barrier, and the midpoint makes hardly more errors than the ends.
       The search then ends. Otherwise everything below is measured in calibrated loss, or in
       errors if these alone rise.
    4. *not_aligned* or *local_optimum*: B is aligned with A (``method="auto"``). If that gains,
       the sum of products of weights tells which: B's own order reaches less than a fifth of
       what alignment adds to random orders (not aligned), or more (a local optimum). An order
       that is better neither by weights nor by activations is not taken. Where B's own order
       reaches 0.7 of it, and units of one place are related in every layer (correlation above
       0.3), 5 comes before 4.
    5. *variance_collapse*: the aligned midpoint is renormalised. The gain counts where units of
       one place are related on average; else it belongs to 6.
    6. What is left: *frozen_symmetry* if less than half of the weights can be permuted,
       otherwise *different_features*.

    Causes are ranked by their shares, what is left (6) counting two thirds. What explains less
    than a tenth of the barrier is not named. Deterministic.

    References
    ----------
    .. [1] Ainsworth, Hayase, Srinivasa, "Git Re-Basin", ICLR 2023 (4).
    .. [2] Jordan, Sedghi, Saukh, Entezari, Neyshabur, "REPAIR", ICLR 2023 (1, 5).
    .. [3] Ito, Yamada, Chijiwa, Kumagai, "Do we really need permutations?", 2025 (3).

    Examples
    --------
    Two copies of one net, the hidden units of one in another order:

    >>> import numpy as np
    >>> import torch
    >>> from sklmc import NetClassifier, discover_symmetry, explain_barrier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 2))
    >>> y = (X[:, 0] * X[:, 1] > 0).astype(int)
    >>> a = NetClassifier(module__width=16, max_epochs=20, random_state=0).fit(X, y)
    >>> symmetry = discover_symmetry(a)
    >>> b = symmetry.apply(a, symmetry.random_permutation(0))
    >>> [cause.name for cause in explain_barrier(a, b, X, y).causes]
    ['not_aligned']
    """
    caller = "explain_barrier"
    names = ["model_a", "model_b"]
    looks, _, X = view_through([model_a, model_b], X, caller, names)
    check_compatible(looks, caller, names)
    for look in looks:
        look.check_logits()
    data, target = read_labelled_data(looks[0], X, y)
    if len(target) < MIN_SAMPLES:
        raise ValueError(
            f"{caller}: 'X' holds {len(target)} samples, too few: at least {MIN_SAMPLES} are "
            "needed, half to try remedies on and half to score them."
        )
    plain = view(looks[0].module, caller=caller, name="model_a")
    search = CauseSearch(plain, SplitSamples(plain, data, target), looks[0].state, looks[1].state)
    return search.run()
