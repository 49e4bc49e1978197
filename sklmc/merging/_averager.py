"""Train nets, align them, and keep their average."""

from __future__ import annotations

import html
import itertools
import warnings
from collections.abc import Callable
from numbers import Integral, Real

import numpy as np
import pandas as pd
import torch
from sklearn.base import is_classifier

from sklmc._sklearn import HasMethods, Interval, StrOptions
from sklmc._validation import check_weights
from sklmc.alignment import ALIGNER_NAMES, check_aligner
from sklmc.estimators import DeepEnsemble
from sklmc.estimators._members import Data
from sklmc.estimators._seeds import resolve_seed
from sklmc.estimators._wrapper import NetWrapper, check_net
from sklmc.exceptions import MergeWarning
from sklmc.merging._merge import align_models, merge_views
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._layer import WeightLayer
from sklmc.merging._repairs._layers import find_layers, replace_tensors
from sklmc.merging._repairs._parts import BY_PART
from sklmc.merging._repairs._repair import METHODS, TARGETS, misfit, repair_state
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.merging._reports._holdout import check_rows, hold_out, leave_unweighted
from sklmc.merging._reports._report import MergeReport
from sklmc.merging._reports._scoring import read_scoring
from sklmc.merging._reports._stages import add_stages
from sklmc.models import (
    Inputs,
    ModelView,
    as_logits,
    describe,
    fit_inverse_temperature,
    predict_outputs,
    view,
    with_provenance,
)

SMALLEST_STEP = 1 / 32  # of weight that moves from one model to another
ROWS_FOR_STATISTICS = 1000  # of X, for batch norm while weights are fitted


class WeightAverager(NetWrapper):
    """Train nets that differ by seed only, align them, and keep one: their average.

    The members are those of a :class:`DeepEnsemble`. Each is re-based onto the first by a
    permutation of its hidden units, which leaves its function unchanged; then the weights are
    averaged and the average is repaired. The result costs as much as a single net, and
    ``merge_report_`` says how it compares with its parts.

    Parameters
    ----------
    estimator : NetClassifier, NetRegressor or another skorch net
        The net to train; not a Pipeline (put the WeightAverager into the Pipeline).
    n_estimators : int, default=2
        Number of members.
    aligner : str, aligner object or None, default="weight"
        How the members are aligned with the first one: a method of
        :class:`~sklmc.PermutationAligner` ("weight", "activation", "straight_through", "auto"),
        "merge_many" (:class:`~sklmc.MultiAligner`), an aligner with its own settings
        (it is cloned), or None to average the members as they are.
    target : {"auto", "logit", "mean", "probability"}, default="auto"
        What "refit" fits the last layer to; see :func:`sklmc.repair`.
    weights : array-like of shape (n_estimators,), "validation" or None, default=None
        Weights of the mean, not negative; scaled to sum to one. None means equal weights.
        "validation" fits them: those whose plain mean has the least loss on the validation part
        (of classifiers after one inverse temperature; batch norm re-estimated), found by moving
        weight between members. One member may get it all.
    repair : {"auto", "batch_norm", "refit", "renormalize"} or None, default="auto"
        What follows the average, on the samples that the members were trained on; see
        :func:`sklmc.repair`.
    calibrate : bool, default=False
        Whether the merged classifier's logits are scaled by one number, fitted on the
        validation part. It is folded into the last layer, so that ``estimator_`` itself gives
        calibrated probabilities wherever it goes; labels do not change. Regressors have none.
    scoring : str, callable, list, tuple, dict or None, default=None
        What ``merge_report_`` and ``verdict_`` go by, greater is better: a scorer's name, a
        callable ``scorer(estimator, X, y)``, a list of names, or scorers by name. Each is a column
        of the report, and the first decides. None takes accuracy or R2.
    validation_fraction : float or None, default=0.1
        Part of the samples (at least one) kept from training, for ``merge_report_``. Classes
        keep their shares, and the last sample of a class is never taken from training. None
        trains on everything; the report is then measured on the training samples and flatters
        them.
    n_jobs : int, default=None
        Members trained at the same time. None means 1 unless in a joblib context, -1 all
        processors. The result does not depend on it.
    random_state : int, RandomState instance or None, default=None
        Where the seeds of the members and the validation part come from.
    verbose : int, default=0
        1 shows a bar over the members, 2 also a line for each.

    Attributes
    ----------
    estimator_ : skorch net
        The merged net.
    estimators_ : list of skorch nets
        The members, aligned; the first is the reference. Members whose training diverged are
        left out, with a warning.
    merge_report_ : DataFrame
        One row each for the members (``member_0``, ...), their ``ensemble`` (mean prediction),
        the ``naive`` average (members as they came from training), the ``aligned`` average
        (unless `aligner` is None), the ``repaired`` one (if ``repair_`` is not None) and the
        ``calibrated`` one (with `calibrate`); the last row is ``estimator_``. Columns:
        ``model``; the first score (of `scoring`, else ``accuracy`` or ``r2``; greater is better);
        ``low``, ``high`` (its 95 % interval); ``margin`` (it minus that of the best member),
        ``margin_low``, ``margin_high`` (99 % interval); other scores; ``loss`` (cross entropy in
        nats, or mean squared error); ``calibration_error`` (of classifiers: mean gap between
        confidence and accuracy over 15 bins); ``n_validation`` (samples kept from training that
        this was measured on; 0 where it was the training samples); ``n_parameters``;
        ``n_multiply_adds`` (of one prediction).
    verdict_ : str
        Whether to use the merged net, a member or the ensemble, and why, in a sentence.
    weights_ : ndarray of shape (n_members,)
        The weights of the mean.
    inverse_temperature_ : float or None
        What `calibrate` multiplied the logits with.
    repair_ : str or None
        The repair that made ``estimator_``; None where the plain mean was kept.
    target_ : str or None
        What its last layer was fitted to; None but for "refit".
    validation_indices_ : ndarray of int
        Rows of X that were kept from training; may be empty.
    classes_ : ndarray of shape (n_classes,)
        The labels, for classifiers.
    n_features_in_ : int
        Number of features, where the members know it.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, where the members know them.

    Warns
    -----
    MergeWarning
        If ``verdict_`` goes against the merged net: the interval of its margin lies below zero,
        or (without `scoring`) it predicts one class alone where a member does not. Fewer than
        seven samples raise no alarm.

    See Also
    --------
    merge_models : The same for nets that are trained already.
    DeepEnsemble : Keeps all members and averages predictions.

    Notes
    -----
    ``merge_models(estimators_, X, y, aligner=None, ...)`` on the training rows gives the same net
    as ``estimator_``, bit by bit.

    Intervals come from 300 resamples of the samples. In each, the best member is picked anew; as
    being picked flatters it, what resampling adds to its lead is taken off. Two nets whose
    interval holds 0 are not distinguishable, and the cheaper one is named.

    Nets trained on the same data seldom merge into one that is better than the best of them;
    narrow and deep nets lose most. Widen the net (``module__width``), or look at the report.

    References
    ----------
    .. [1] Ainsworth, Hayase, Srinivasa, "Git Re-Basin: merging models modulo permutation
       symmetries", ICLR 2023.
    .. [2] Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models
       improves accuracy without increasing inference time", ICML 2022.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import NetClassifier, WeightAverager
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> net = NetClassifier(module__width=64, max_epochs=10)
    >>> averager = WeightAverager(net, n_estimators=2, random_state=0).fit(X, y)
    >>> bool(averager.score(X, y) > 0.8)
    True
    >>> averager.merge_report_["model"].tolist()
    ['member_0', 'member_1', 'ensemble', 'naive', 'aligned', 'repaired']
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"])],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "aligner": [StrOptions(set(ALIGNER_NAMES)), HasMethods(["fit", "transform"]), None],
        "target": [StrOptions(set(TARGETS) - set(BY_PART))],
        "weights": ["array-like", StrOptions({"validation"}), None],
        "repair": [StrOptions(set(METHODS)), None],
        "calibrate": ["boolean"],
        "scoring": [str, callable, list, tuple, dict, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator,
        n_estimators=2,
        *,
        aligner="weight",
        target="auto",
        weights=None,
        repair="auto",
        calibrate=False,
        scoring=None,
        validation_fraction=0.1,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.aligner = aligner
        self.target = target
        self.weights = weights
        self.repair = repair
        self.calibrate = calibrate
        self.scoring = scoring
        self.validation_fraction = validation_fraction
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None, sample_weight=None):
        """Train the members, align them, average them, and compare the result with them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As `estimator` takes it: array, list, DataFrame or torch tensor; a dict of these, or a
            Dataset whose items are pairs (X, y).
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, or target values; None where X is a Dataset that holds them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples: in training, in the report, and in what is fitted on the
            validation part. Aligners and repairs count all samples alike, but for those of weight
            zero, which only make their labels known.

        Returns
        -------
        self
            The fitted averager.
        """
        self._validate_params()
        check_aligner(self.aligner, "WeightAverager")
        weights = self.weights
        if not isinstance(weights, str):
            weights = check_weights(weights, int(self.n_estimators), "WeightAverager")
        check_net(self.estimator, "WeightAverager")
        scoring = None
        if self.scoring is not None:
            scoring = read_scoring(self.scoring, "WeightAverager")
        X, y = check_rows(X, y, "WeightAverager")
        seed = resolve_seed(self.random_state)
        data = Data(X, y, sample_weight)
        fraction = self.validation_fraction
        train, judged, held_out = hold_out(data, fraction, self.estimator, seed, "WeightAverager")
        ensemble = DeepEnsemble(
            self.estimator,
            self.n_estimators,
            n_jobs=self.n_jobs,
            random_state=seed,
            verbose=self.verbose,
        ).fit(*train)
        left = np.setdiff1d(np.arange(self.n_estimators), ensemble.diverged_)
        members = [ensemble.estimators_[index] for index in left]

        train, judged = leave_unweighted(train), leave_unweighted(judged)

        self.estimators_ = align_models(members, self.aligner, train.X, train.y)
        looks = [view(net, caller="WeightAverager", name="estimator") for net in self.estimators_]
        first = looks[0]
        (inputs, target, _), scored = (
            (first.to_input(X), first.to_target(y), weights) for X, y, weights in (train, judged)
        )
        if isinstance(weights, str):
            loss = _validation_loss(looks, inputs, *scored)
            self.weights_ = fit_weights(loss, len(looks))
        else:
            self.weights_ = _finite_weights(weights, left)
        ends = EndPoints([look.state for look in looks], self.weights_)
        made = merge_views(looks, ends, SampleSet(inputs, target), self.repair, self.target)
        merged, self.repair_, self.target_ = made
        report = MergeReport(first, *scored, len(held_out), scoring, judged)
        states = [view(net, caller="WeightAverager").state for net in members]
        before = EndPoints(states, self.weights_)
        add_stages(report, before, ends if self.aligner is not None else None, made, ensemble)
        self.inverse_temperature_ = None
        if self.calibrate and is_classifier(self.estimator):
            state, self.inverse_temperature_ = calibrate_state(
                view(merged, caller="WeightAverager"), *scored
            )
            report.add_state("calibrated", state)
            merged = first.rebuild(state)
        self.estimator_ = with_provenance(
            merged,
            [view(net, caller="WeightAverager") for net in members],
            "WeightAverager",
            aligner=describe(self.aligner),
            repair=self.repair_,
            target=self.target_,
            weights=self.weights_.tolist(),
        )
        self.validation_indices_ = held_out
        self._report_rows, verdict = report.finish()
        self.verdict_ = verdict.text
        self._remember_features()
        if verdict.warns:
            warnings.warn(
                f"WeightAverager: {self.verdict_} See merge_report_; a wider net, or another "
                "'aligner' or 'repair', may help the merged net, and DeepEnsemble keeps the "
                "members apart.",
                MergeWarning,
                stacklevel=2,
            )
        return self

    def _html_repr(self) -> str:
        """Show the verdict below what scikit-learn shows of an estimator."""
        verdict = f"<p>{html.escape(self.verdict_)}</p>" if hasattr(self, "verdict_") else ""
        return str(super()._html_repr()) + verdict

    @property
    def merge_report_(self) -> pd.DataFrame:
        """Scores of the merged net beside those of its parts."""
        if not hasattr(self, "_report_rows"):  # a frame would not survive skops
            raise AttributeError("WeightAverager has no 'merge_report_' before it is fitted.")
        return pd.DataFrame(self._report_rows)


def _finite_weights(weights: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return the weights of the members that are left."""
    kept = weights[left]
    if kept.sum() <= 0:
        raise ValueError(
            f"WeightAverager: all weight lies on members that diverged, those left are "
            f"{left.tolist()!r}; lower 'lr', scale X, or change 'weights'."
        )
    return kept / kept.sum()


def _validation_loss(
    looks: list, inputs, judged, target, sample_weight
) -> Callable[[np.ndarray], float]:
    """Return the loss of the plain mean as a function of its weights."""
    first = looks[0]
    states = [look.state for look in looks]
    few = inputs[inputs.spread(ROWS_FOR_STATISTICS)]

    def loss(weights: np.ndarray) -> float:
        ends = EndPoints(states, weights)
        repaired = repair_state(first, ends.mean(), ends, SampleSet(few), "batch_norm")
        outputs = predict_outputs(first, judged, repaired.state)
        return misfit(first, outputs, target, sample_weight)

    return loss


def fit_weights(loss: Callable[[np.ndarray], float], n_models: int) -> np.ndarray:
    """Return weights on the simplex that make `loss` small: at most that of any single model.

    Starts at the best of the uniform weights and the single models, then moves weight from one
    model to another while that helps, in steps that are halved when none does.
    """
    starts = [np.full(n_models, 1.0 / n_models), *np.eye(n_models)]
    losses = [loss(start) for start in starts]
    best = min(range(len(starts)), key=losses.__getitem__)
    weights, least = starts[best], losses[best]
    step = 0.5
    while step >= SMALLEST_STEP and n_models > 1:
        moved = False
        for giver, taker in itertools.permutations(range(n_models), 2):
            amount = min(step, weights[giver])
            if amount <= 0:
                continue
            trial = weights.copy()
            trial[giver] -= amount
            trial[taker] += amount
            value = loss(trial)
            if value < least:
                weights, least, moved = trial, value, True
        if not moved:
            step /= 2
    return weights


def calibrate_state(
    look: ModelView,
    inputs: Inputs,
    target: torch.Tensor,
    sample_weight: np.ndarray | None = None,
) -> tuple[dict[str, torch.Tensor], float]:
    """Return the net's state with its logits scaled to fit labels best, and the scale.

    The inverse temperature is folded into the layer that gives the logits.
    """
    logits = as_logits(predict_outputs(look, inputs))
    weights = None if sample_weight is None else torch.from_numpy(sample_weight)
    beta = fit_inverse_temperature(logits, target, held_out=True, weights=weights)
    layers, _ = find_layers(look, look.state, inputs.first(2))
    outputs = [layer for layer in layers if isinstance(layer, WeightLayer) and layer.is_output]
    names: list[str | None] = [None]
    if len(outputs) == 1:
        (last,) = outputs
        names = [last.weight, last.bias]
        if last.norm is not None:
            names = [last.norm.scale, last.norm.shift]
    if names[0] is None:
        raise ValueError(
            f"{look.caller}: 'calibrate' scales the layer that gives the logits, but the output of "
            f"{type(look.original).__name__} is not that of a linear or convolution layer with "
            "weights of its own; set calibrate=False."
        )
    state = dict(look.state)
    replace_tensors(look, state, {name: state[name] * beta for name in filter(None, names)})
    return state, beta
