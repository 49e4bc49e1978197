"""One net from nets that are fitted already, with a verdict."""

from __future__ import annotations

import html
import warnings
from numbers import Real

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from sklmc._sklearn import HasMethods, Interval, StrOptions, check_random_state
from sklmc._validation import check_weights
from sklmc.alignment import ALIGNER_NAMES, check_aligner
from sklmc.estimators._cell import Cell
from sklmc.estimators._members import Data
from sklmc.estimators._seeds import resolve_seed
from sklmc.estimators._wrapper import NetWrapper
from sklmc.exceptions import MergeWarning
from sklmc.merging._classes import count_classes, labels_of, widen_classes
from sklmc.merging._distill import distill
from sklmc.merging._given_ensemble import GivenEnsemble
from sklmc.merging._merge import Merged, align_models, merge_views
from sklmc.merging._nets_in_hand import clone_around_nets, read_nets
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._parts import BY_PART, is_by_part, join_parts
from sklmc.merging._repairs._refit import classifies
from sklmc.merging._repairs._repair import (
    LEAST_FOR_CHOICE,
    METHODS,
    TARGETS,
)
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.merging._reports._fidelity import fidelity_frame
from sklmc.merging._reports._holdout import split_rows, take_rows
from sklmc.merging._reports._report import MergeReport, mean_prediction
from sklmc.merging._reports._scoring import read_scoring
from sklmc.merging._reports._stages import STAGES, add_stages
from sklmc.merging._reports._verdict import Verdict
from sklmc.models import (
    Inputs,
    ModelView,
    State,
    describe,
    is_classification,
    predict_outputs,
    read_data,
    view,
    view_compatible,
    with_provenance,
)

NAME = "EnsembleMerger"


class EnsembleMerger(NetWrapper):
    """Make one net of fitted ones, and say whether it should be used in their place.

    The nets of an ensemble - seeds, folds of a cross-validation, sites with data of their own - are
    aligned with the first, averaged and repaired; the result costs as much as one of them. On
    samples that nothing was fitted to it is compared with its parts and with their ensemble:
    ``verdict_`` is one sentence, ``recommended_`` the single net to use.

    Parameters
    ----------
    estimators : list of fitted nets, list of (name, net), or what holds several
        Skorch nets, sklmc estimators, torch.nn.Modules, MLPClassifiers or MLPRegressors of
        scikit-learn, Pipelines of these; of one architecture. Also a fitted ensemble
        (DeepEnsemble, BaggingClassifier, a cell of a ModelGrid), what
        ``cross_validate(..., return_estimator=True)`` returns, or a pair of a module and a list of
        its states. They stay as they are; clones of the merger hold the same nets.
    aligner : str, aligner object or None, default="auto"
        How nets are aligned with the first; see :func:`merge_models`.
    target : {"auto", "labels", "logit", "mean", "own", "probability"}, default="auto"
        What "refit" fits the layers to; see :func:`sklmc.repair`. "own" and "labels" need samples
        by part.
    repair : {"auto", "batch_norm", "refit", "renormalize"} or None, default="auto"
        What follows the average; see :func:`sklmc.repair`.
    polish : {"distill"} or None, default=None
        "distill": up to 300 steps of Adam from the merged net towards what the nets predict in the
        mean (each on its own samples, where X is by part), on the samples of fit without their
        labels; a fifth of them says when to stop. The report shows beside it what the same steps
        make of the best part alone.
    weights : array-like of shape (n_nets,), default=None
        Weights of the nets, not negative; scaled to sum to one. None means equal weights, or, with
        samples by part, the numbers of samples.
    keep : {"auto", "merged"}, default="auto"
        What ``recommended_`` is: the merged net unless ``verdict_`` finds it worse than its best
        part, which then is kept ("auto"); or the merged net in any case.
    scoring : str, callable, list, tuple, dict or None, default=None
        What the report and the verdict go by; see :class:`WeightAverager`. It needs `y`.
    validation_fraction : float or None, default=0.2
        Part of the samples (of every part's, and of every class) that nothing is fitted to, for the
        report. None fits and judges on the same samples; the report then flatters the merged net.
    random_state : int, RandomState instance or None, default=None
        Which samples these are.
    verbose : int, default=0
        1 shows a bar over the nets that are aligned.

    Attributes
    ----------
    estimator_ : same kind as the first net
        The merged net.
    recommended_ : same kind as the nets
        The single net that predicts: ``estimator_`` or one of the nets; see `keep`.
    estimators_ : list
        The nets, aligned (and with outputs for the classes of all); the first is the reference.
    merge_report_ : DataFrame
        As :class:`WeightAverager` has it: the nets, their ensemble, the naive average, the aligned
        one, the repaired one. Without `y`, the first score is the ``agreement`` with the ensemble
        (classifiers) or R2 to it, and there is no loss.
    fidelity_ : DataFrame
        How near every net and the merged net come to the ensemble, on the samples of the report:
        ``agreement`` (share of equal labels) and ``kl`` (mean divergence from it, nats), or ``r2``
        (median over the outputs) and ``r2_0``, ... for each.
    verdict_ : str
        Which to use, and why, in a sentence.
    repair_, target_ : str or None
        What made the merged net; None where it is the plain mean.
    weights_ : ndarray of shape (n_nets,)
        The weights of the mean.
    class_counts_ : DataFrame or None
        Which net has seen which class, where they differ (1 or 0; nets in rows); with `y` by part,
        how many samples of each it holds here.
    validation_indices_ : ndarray of int
        The samples of the report, numbered through all parts; empty if there are no others.
    classes_ : ndarray of shape (n_classes,)
        The labels of all nets, for classifiers.
    n_features_in_ : int
        Number of features, where the nets know it.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, where the nets know them.

    Raises
    ------
    ArchitectureMismatchError
        If tensors or tasks differ, or a head cannot be widened to the classes of all (ValueError).
    ValueError
        If X does not fit the nets, or samples by part do not match their number.

    Warns
    -----
    MergeWarning
        If ``verdict_`` goes against the merged net.

    See Also
    --------
    WeightAverager : Trains the nets as well.
    merge_models : The merge alone.

    Notes
    -----
    Where there are samples that no net was trained on, give these: on its own training samples a
    part looks better than it is, and the verdict leans towards the parts.

    Nets that know different classes get one head for the classes of all. A class that a net has
    never seen gets no goal from it, no share in the average of that class's weights and none in the
    ensemble's probability of it.

    Batches that must stay whole (graphs) go whole through every fit: the labels of samples kept
    back have no part in it, what stands beside others in a batch has.

    References
    ----------
    .. [1] Ainsworth, Hayase, Srinivasa, "Git Re-Basin: merging models modulo permutation
       symmetries", ICLR 2023.
    .. [2] Jin et al., "Dataless knowledge fusion by merging weights of language models" (RegMean),
       ICLR 2023.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklearn.model_selection import cross_validate
    >>> from sklmc import EnsembleMerger, NetClassifier
    >>> X, y = make_moons(300, noise=0.1, random_state=0)
    >>> net = NetClassifier(module__width=64, max_epochs=20, random_state=0)
    >>> folds = cross_validate(net, X, y, cv=3, return_estimator=True)
    >>> merger = EnsembleMerger(folds["estimator"], aligner="weight", random_state=0).fit(X, y)
    >>> bool(merger.score(X, y) > 0.8)
    True
    >>> merger.verdict_.startswith("Use ")
    True
    """

    _parameter_constraints: dict = {
        "estimators": [HasMethods(["__len__"]), HasMethods(["fit"]), Cell],
        "aligner": [StrOptions(set(ALIGNER_NAMES)), HasMethods(["fit", "transform"]), None],
        "target": [StrOptions(set(TARGETS))],
        "repair": [StrOptions(set(METHODS)), None],
        "polish": [StrOptions({"distill"}), None],
        "weights": ["array-like", None],
        "keep": [StrOptions({"auto", "merged"})],
        "scoring": [str, callable, list, tuple, dict, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimators,
        *,
        aligner="auto",
        target="auto",
        repair="auto",
        polish=None,
        weights=None,
        keep="auto",
        scoring=None,
        validation_fraction=0.2,
        random_state=None,
        verbose=0,
    ):
        self.estimators = estimators
        self.aligner = aligner
        self.target = target
        self.repair = repair
        self.polish = polish
        self.weights = weights
        self.keep = keep
        self.scoring = scoring
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_clone__(self):
        """Return an unfitted merger of the same fitted nets."""
        return clone_around_nets(self, "estimators")

    def get_params(self, deep=True) -> dict:
        """Return the parameters; those of the fitted nets are none of the merger's.

        Parameters
        ----------
        deep : bool, default=True
            Whether to add parameters of an aligner.

        Returns
        -------
        dict
            Values by name.
        """
        params = super().get_params(deep=deep)
        return {key: one for key, one in params.items() if not key.startswith("estimators__")}

    def __sklearn_tags__(self):
        if not isinstance(self._template(), nn.Module):
            return super().__sklearn_tags__()
        tags = super(NetWrapper, self).__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags

    def _template(self):
        return read_nets(self.estimators, NAME, "estimators", STAGES)[1][0]

    def _fitted_net(self):
        return getattr(self, "recommended_", None)

    def _predicting_nets(self) -> list:
        if not hasattr(self.recommended_, "predict"):
            raise TypeError(
                f"{NAME}: recommended_ is a {type(self.recommended_).__name__}, a module without "
                "predict; call it on tensors, or give skorch nets."
            )
        return [self.recommended_]

    def fit(self, X, y=None):
        """Merge the nets, and compare the result with them.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader; or a list
            Samples as the nets take them. A list holds the samples of each net's owner, in the
            order of the nets.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), list or None, default=None
            Labels or values; by part where X is. None: nothing is fitted to labels, and the report
            goes by nearness to the ensemble.

        Returns
        -------
        self
            The fitted merger.
        """
        self._validate_params()
        check_aligner(self.aligner, NAME)
        scoring = None if self.scoring is None else read_scoring(self.scoring, NAME)
        names, models = read_nets(self.estimators, NAME, "estimators", STAGES)
        seed = resolve_seed(self.random_state)
        X, y, part = self._by_part(X, y, len(models))
        models, known, heads = widen_classes(models, NAME, names)
        looks = view_compatible(models, NAME, names)
        first = looks[0]
        inputs, target = read_data(first, X, y)
        self.weights_ = self._weights(part, len(models))
        self._class_counts = count_classes(first, names, known, target, part)
        train, held = self._split(first, target, part, len(inputs), seed)
        judged = held if len(held) else train
        samples = SampleSet(inputs, target, part)
        fitting, judging = samples[torch.from_numpy(train)], samples[torch.from_numpy(judged)]

        labels = None if fitting.labels is None else labels_of(first, fitting.labels)
        before = EndPoints([look.state for look in looks], self.weights_, known, heads)
        self.estimators_ = align_models(
            [look.model for look in looks], self.aligner, fitting.inputs, labels, self.verbose
        )
        states = [view(one, caller=NAME).state for one in self.estimators_]
        ends = EndPoints(states, self.weights_, known, heads)
        merged = merge_views(looks, ends, fitting, self.repair, self.target)
        self.estimator_, self.repair_, self.target_ = merged
        taught = None
        if self.polish is not None and len(fitting) >= LEAST_FOR_CHOICE:
            parts = dict(zip(names, before.states, strict=True))
            middle = view(merged.model, caller=NAME).state
            taught = distill(first, parts, middle, ends, fitting, seed, self.verbose)
            self.estimator_ = first.rebuild(taught["merged"])
        self.validation_indices_ = held
        with_provenance(
            self.estimator_, looks, NAME, aligner=describe(self.aligner), repair=self.repair_,
            target=self.target_, polish=self.polish, weights=self.weights_.tolist(),
        )  # fmt: skip

        verdict = self._judge(
            first, names, before, ends, merged, taught, judging, scoring, (X, judged)
        )
        lost = verdict.single < len(names) and self.keep == "auto"
        self.recommended_ = models[verdict.single] if lost else self.estimator_
        if verdict.warns:
            kept = "recommended_ is that net" if self.keep == "auto" else "keep='merged' uses it"
            warnings.warn(
                f"{NAME}: {self.verdict_} See merge_report_; {kept}.", MergeWarning, stacklevel=2
            )
        self._remember_features()
        return self

    def _by_part(self, X, y, n_parts: int) -> tuple:
        """Return samples in one, and whose each is; None for everyone's."""
        if self.target in BY_PART or is_by_part(X):
            return join_parts(X, y, n_parts, NAME)
        return X, y, None

    def _weights(self, part: torch.Tensor | None, n_nets: int) -> np.ndarray:
        weights = self.weights
        if weights is None and part is not None:
            weights = torch.bincount(part, minlength=n_nets).numpy()
        return check_weights(weights, n_nets, NAME)

    def _split(
        self, look: ModelView, target: torch.Tensor | None, part: torch.Tensor | None, n: int, seed
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the samples to fit on and those to judge by: shares of each part and class."""
        keys = np.zeros(n, dtype=np.int64) if part is None else part.numpy()
        if target is not None and target.ndim == 1 and is_classification(target):
            keys = keys * (int(target.max()) + 1) + target.numpy()
        rng = check_random_state(seed)
        return split_rows(keys, self.validation_fraction, True, rng)

    def _judge(
        self,
        look: ModelView,
        names: list[str],
        before: EndPoints,
        ends: EndPoints,
        merged: Merged,
        taught: dict[str, State] | None,
        judging: SampleSet,
        scoring,
        given: tuple,
    ) -> Verdict:
        """Fill in the report, the fidelity and the verdict's sentence; return the verdict."""
        alike = EndPoints.alike(before.states, before.known, before.heads)
        outputs = [predict_outputs(look, judging.inputs, state) for state in before.states]
        labels = judging.labels
        classifier = classifies(look, labels)
        kind = torch.zeros(len(judging), dtype=torch.int64 if classifier else torch.float64)
        ensemble = mean_prediction(alike, outputs, kind if labels is None else labels)
        final = view(self.estimator_, caller=NAME).state
        nets = dict(
            zip([*names, "merged"], [*outputs, predict_outputs(look, judging.inputs, final)])
        )
        self.fidelity_ = fidelity_frame(nets, ensemble, classifier)

        data, members = None, None
        if scoring is not None:
            data = self._scored_data(look, given, labels)
            members = GivenEnsemble(self.estimators_, alike.class_shares())
        target = labels
        if labels is None:
            target = ensemble.argmax(dim=-1) if classifier else ensemble
        report = MergeReport(
            look, judging.inputs, target, None, len(self.validation_indices_), scoring, data,
            of_ensemble=labels is None,
        )  # fmt: skip
        aligned = ends if self.aligner is not None else None
        add_stages(report, before, aligned, merged, members, names, outputs, taught)
        self._report_rows, verdict = report.finish()
        self.verdict_ = verdict.text
        return verdict

    def _scored_data(self, look: ModelView, given: tuple, labels: torch.Tensor | None) -> Data:
        """Return what scorers are called with."""
        X, rows = given
        if labels is None:
            raise ValueError(f"{NAME}: 'scoring' needs labels; pass 'y'.")
        if not hasattr(look.model, "predict"):
            raise TypeError(
                f"{NAME}: 'scoring' calls predict, which a {type(look.model).__name__} has not; "
                "give skorch nets, or scoring=None."
            )
        if isinstance(X, (tuple, DataLoader, Inputs)):
            raise TypeError(
                f"{NAME}: 'scoring' calls predict on some of the samples, and 'X' is a "
                f"{type(X).__name__}; pass the Dataset itself, an array or a dict of arrays."
            )
        return Data(take_rows(Data(X, None, None), rows).X, labels_of(look, labels), None)

    @property
    def class_counts_(self) -> pd.DataFrame | None:
        """Which net has seen which class, or how many samples of it."""
        if not hasattr(self, "_class_counts"):
            raise AttributeError(f"{NAME} has no 'class_counts_' before it is fitted.")
        return None if self._class_counts is None else pd.DataFrame(*self._class_counts)

    @property
    def merge_report_(self) -> pd.DataFrame:
        """Scores of the merged net beside those of its parts."""
        if not hasattr(self, "_report_rows"):
            raise AttributeError(f"{NAME} has no 'merge_report_' before it is fitted.")
        return pd.DataFrame(self._report_rows)

    def _html_repr(self) -> str:
        """Show the verdict below what scikit-learn shows of an estimator."""
        verdict = f"<p>{html.escape(self.verdict_)}</p>" if hasattr(self, "verdict_") else ""
        return str(super()._html_repr()) + verdict
