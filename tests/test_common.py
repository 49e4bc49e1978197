"""scikit-learn's own checks on every estimator that takes X and y, strictly.

An entry in EXPECTED_FAILURES needs a sentence of reason. A new estimator is one more line in
NETS or META_ESTIMATORS.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import (
    check_param_validation,
    check_sample_weight_equivalence_on_dense_data,
    estimator_checks_generator,
)

from sklmc import (
    DeepEnsemble,
    EnsembleMerger,
    GreedySoup,
    LMCScorer,
    NetClassifier,
    NetRegressor,
    SWAEnsembler,
    WeightAverager,
    WidthSearchCV,
)
from sklmc._sklearn import get_tags


class TrainedMerger(EnsembleMerger):
    """Trains its nets first, each with a seed of its own: checks come with data of their own."""

    def fit(self, X, y=None):
        """Train copies of the nets on X and y, and merge these."""
        self._validate_params()
        nets = [
            clone(net).set_params(random_state=seed).fit(X, y)
            for seed, net in enumerate(self.estimators)
        ]
        own = self.get_params(deep=False) | {"estimators": nets}
        fitted = EnsembleMerger(**own).fit(X, y)
        vars(self).update({name: one for name, one in vars(fitted).items() if name not in own})
        return self


NETS = [NetClassifier(random_state=0), NetRegressor(random_state=0)]

META_ESTIMATORS = [
    meta
    for net in (NetClassifier(), NetRegressor())
    for meta in (
        DeepEnsemble(net, n_estimators=2, random_state=0),
        DeepEnsemble(net, n_estimators=2, vectorize=True, random_state=0),
        GreedySoup(net, {"lr": [0.01, 0.02]}, aligner="weight", random_state=0),
        SWAEnsembler(net, n_snapshots=2, random_state=0),
        WeightAverager(net, n_estimators=2, random_state=0),
        TrainedMerger([net, net], aligner="weight", random_state=0),
        WidthSearchCV(
            DeepEnsemble(type(net)(max_epochs=10), 2, vectorize=True, random_state=0),
            start=8,
            max_width=8,
            scoring=LMCScorer(n_alphas=2, error_score=float("nan")),
            cv=2,
        ),
    )
]

# what WeightAverager can do, each option once
AVERAGER_OPTIONS = [
    {"weights": "validation"},
    {"weights": [0.75, 0.25]},
    {"calibrate": True},
    *({"aligner": name} for name in (None, "activation", "straight_through", "auto", "merge_many")),
    *({"repair": name} for name in (None, "batch_norm", "refit", "renormalize")),
]

# Weights are as good as repeats where a step sees all samples, which this asks for.
WEIGHT_CHECK = "check_sample_weight_equivalence_on_dense_data"
FULL_BATCH = [
    kind(net)
    for net in (
        NetClassifier(batch_size=-1, dtype="float64", random_state=0),
        NetRegressor(batch_size=-1, dtype="float64", random_state=0),
    )
    for kind in (
        lambda net: net,
        lambda net: DeepEnsemble(net, n_estimators=2, vectorize=False, random_state=0),
        lambda net: DeepEnsemble(net, n_estimators=2, vectorize=True, random_state=0),
        lambda net: SWAEnsembler(net, n_snapshots=2, random_state=0),
        lambda net: WeightAverager(net, 2, validation_fraction=None, repair=None, random_state=0),
    )
]

_BATCHES = "A sample that is repeated changes which samples share a mini-batch."
_HELD_OUT = f"{_BATCHES} It also changes which samples are held out."
EXPECTED_FAILURES: dict[str, dict[str, str]] = {
    "NetClassifier": {WEIGHT_CHECK: _BATCHES},
    "NetRegressor": {WEIGHT_CHECK: _BATCHES},
    "DeepEnsemble": {WEIGHT_CHECK: _BATCHES},
    "SWAEnsembler": {WEIGHT_CHECK: _BATCHES},
    "GreedySoup": {WEIGHT_CHECK: _HELD_OUT},
    "WeightAverager": {WEIGHT_CHECK: _HELD_OUT},
}

# Skips itself unless scipy was imported with SCIPY_ARRAY_API set: it runs in a process of its own.
ARRAY_API_CHECK = "check_array_api_input"


def describe(estimator):
    inner = getattr(estimator, "estimator", None)
    inner = getattr(estimator, "estimators", [inner])[0]
    name = type(estimator).__name__
    return name if inner is None else f"{name}-{type(inner).__name__}"


def cases():
    for estimator in NETS + META_ESTIMATORS:
        expected = EXPECTED_FAILURES.get(type(estimator).__name__, {})
        checks = estimator_checks_generator(
            estimator, expected_failed_checks=expected, mark="xfail"
        )
        for number, case in enumerate(checks):
            # a pytest.param, where the check is expected to fail
            check = getattr(case, "values", case)[1]
            name = getattr(check, "func", check).__name__
            if name != ARRAY_API_CHECK:
                label = f"{describe(estimator)}-{name}-{number}"
                yield pytest.param(estimator, check, id=label, marks=getattr(case, "marks", ()))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.parametrize("estimator, check", list(cases()))
def test_scikit_learns_check(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", AVERAGER_OPTIONS, ids=str)
@pytest.mark.parametrize("net", NETS, ids=describe)
def test_scikit_learns_checks_of_every_option(net, options):
    averager = WeightAverager(net, n_estimators=2, random_state=0, **options)
    names = set()
    for estimator, check in estimator_checks_generator(averager):
        if getattr(check, "func", check).__name__ == WEIGHT_CHECK:
            continue
        names.add(getattr(check, "func", check).__name__)
        if getattr(check, "func", check).__name__ != ARRAY_API_CHECK:
            check(estimator)
    assert len(names) > 40


@pytest.mark.parametrize("estimator", NETS + META_ESTIMATORS, ids=describe)
def test_parameters_are_validated(estimator):
    check_param_validation(type(estimator).__name__, estimator)


@pytest.mark.parametrize("estimator", NETS + META_ESTIMATORS, ids=describe)
def test_no_tag_lowers_the_bar(estimator):
    tags = get_tags(estimator)
    assert not any(part.poor_score for part in (tags.classifier_tags, tags.regressor_tags) if part)
    assert not tags.non_deterministic
    assert not tags.no_validation
    assert not tags._skip_test


@pytest.mark.parametrize("estimator", FULL_BATCH, ids=describe)
def test_weights_are_repeats_in_full_batches(estimator):
    check_sample_weight_equivalence_on_dense_data(type(estimator).__name__, estimator)


def test_the_only_expected_failure_is_of_mini_batches():
    for failures in EXPECTED_FAILURES.values():
        assert failures.keys() == {WEIGHT_CHECK}
        assert all(reason.endswith(".") for reason in failures.values())


@pytest.mark.slow
def test_array_api_check_passes_where_it_can_run():
    program = f"""
import sys
import sklearn
from sklearn.utils.estimator_checks import estimator_checks_generator
from tests.test_common import META_ESTIMATORS, NETS
ran = 0
for estimator in NETS + META_ESTIMATORS:
    for _, check in estimator_checks_generator(estimator):
        if getattr(check, "func", check).__name__ == {ARRAY_API_CHECK!r}:
            check(estimator)
            ran += 1
offered = not sklearn.__version__.startswith("1.7.")  # there to estimators with a tag only
sys.exit(0 if ran == offered * len(NETS + META_ESTIMATORS) else 7)
"""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=root, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
