"""EnsembleMerger takes whatever holds fitted nets, and samples of any kind."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import cross_validate
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, TensorDataset

from sklmc import DeepEnsemble, EnsembleMerger, ModelGrid, NetClassifier, WeightAverager
from sklmc.exceptions import ArchitectureMismatchError, NonFiniteError
from tests.merging.mergers import (
    CODES,
    VALUES,
    X,
    Y,
    assert_equal_nets,
    by_part,
    fitted,
    merger,
    net,
)
from tests.models.conftest import snapshot

NET = NetClassifier(module__width=8, max_epochs=2, random_state=0)
ROUNDING = 1e-5  # of float32 sums in another order

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklmc.exceptions.MergeWarning"),
    pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def folds():
    return cross_validate(NET, X, Y, cv=3, return_estimator=True)


def states():
    return [one.module_.state_dict() for one in fitted()]


def perceptrons(kind, y):
    made = [kind(hidden_layer_sizes=(8,), max_iter=5, random_state=seed) for seed in range(3)]
    return [one.fit(X, y) for one in made]


def pipelines():
    made = [NetClassifier(module__width=8, max_epochs=2, random_state=seed) for seed in range(2)]
    return [
        make_pipeline(StandardScaler(), one).fit(X[k * 50 :], Y[k * 50 :])
        for k, one in enumerate(made)
    ]


def grid():
    return ModelGrid(NET, {"lr": [0.01, 0.02]}, n_estimators=2, random_state=0).fit(X, Y)


# what holds nets, and how many
HOLDERS = {
    "list": (fitted, 3),
    "pairs": (lambda: list(zip("pqr", fitted())), 3),
    "tuple": (lambda: tuple(fitted()), 3),
    "DeepEnsemble": (lambda: DeepEnsemble(NET, 2, random_state=0).fit(X, Y), 2),
    "BaggingClassifier": (lambda: BaggingClassifier(NET, 2, random_state=0).fit(X, Y), 2),
    "cell of a ModelGrid": (lambda: grid().cells_[1], 2),
    "cross_validate": (folds, 3),
    "net and states": (lambda: (fitted()[0], states()), 3),
    "MLPClassifiers": (lambda: perceptrons(MLPClassifier, Y), 3),
    "Pipelines": (pipelines, 2),
    "frozen": (lambda: [FrozenEstimator(one) for one in fitted()], 3),
    "estimators that hold one": (
        lambda: [WeightAverager(NET, 2, random_state=seed).fit(X, Y) for seed in range(2)],
        2,
    ),
    "mergers": (lambda: [merger(repair=None).fit(X, Y) for _ in range(2)], 2),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_whatever_holds_nets_is_merged(holder):
    make, n_nets = HOLDERS[holder]
    found = merger(make(), keep="merged").fit(X, Y)
    members = [name for name in found.merge_report_["model"] if name.startswith("member_")]
    names = list("pqr") if holder == "pairs" else [f"member_{k}" for k in range(n_nets)]
    assert members == (names if holder != "pairs" else [])
    assert found.merge_report_["model"].tolist()[: n_nets + 1] == [*names, "ensemble"]
    assert found.fidelity_["model"].tolist() == [*names, "merged"]
    assert len(found.estimators_) == n_nets
    np.testing.assert_allclose(found.weights_, 1.0 / n_nets)
    assert found.classes_.tolist() == ["a", "b", "c"]
    probabilities = found.predict_proba(X)
    assert probabilities.shape == (len(X), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(found.predict(X), found.classes_[probabilities.argmax(axis=1)])
    assert found.recommended_ is found.estimator_
    assert found.verdict_.startswith("Use ")


def test_a_cell_is_the_list_of_its_nets():
    cell = grid().cells_[0]
    found = merger(cell, repair=None).fit(X, Y)
    assert_equal_nets(found.estimator_, merger(cell.estimators, repair=None).fit(X, Y).estimator_)


def test_a_module_and_states_are_modules():
    modules = [one.module_ for one in fitted()]
    found = merger((modules[0], states())).fit(X, CODES)
    assert isinstance(found.estimator_, torch.nn.Module)
    assert_equal_nets(found.estimator_, merger(modules).fit(X, CODES).estimator_)
    assert_equal_nets(found.estimator_, merger().fit(X, Y).estimator_)
    with pytest.raises(TypeError, match="a MLP, a module without predict"):
        found.predict(X)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("shape", ["column", "flat", "two outputs"])
def test_regressors_are_merged(shape, labelled):
    y = {"column": VALUES[:, None], "flat": VALUES, "two outputs": np.c_[VALUES, X[:, 0]]}[shape]
    nets = fitted("values") if shape == "flat" else [net(seed, y) for seed in range(2)]
    found = merger(nets, target="mean", repair="refit").fit(X, y if labelled else None)
    assert found.predict(X).shape == y.shape
    assert found.score(X, y) > 0.3
    assert not hasattr(found, "predict_proba")
    assert ("loss" in found.merge_report_) == labelled


def test_perceptrons_that_regress_are_merged():
    found = merger(perceptrons(MLPRegressor, VALUES)).fit(X, VALUES)
    assert type(found.estimator_) is MLPRegressor
    assert found.predict(X).shape == (len(X),)


def test_values_reach_aligners_in_the_shape_that_the_nets_were_fitted_on():
    found = merger(fitted("values"), aligner="straight_through", repair=None).fit(X, VALUES)
    assert np.isfinite(found.predict(X)).all()


# Samples

T, C = torch.from_numpy(X), torch.from_numpy(CODES)
SAMPLES = {
    "tensor": (T, C),
    "lists": (X.tolist(), CODES.tolist()),
    "DataFrame": (pd.DataFrame(X), pd.Series(CODES)),
    "tuple": ((X,), CODES),
    "dict": ({"x": X}, CODES),
    "Dataset": (TensorDataset(T, C), None),
    "Dataset and y": (TensorDataset(T), CODES),
    "DataLoader": (DataLoader(TensorDataset(T, C), batch_size=40), None),
}
PARTS = {
    "frames": ([pd.DataFrame(one) for one in by_part(X)], [pd.Series(o) for o in by_part(CODES)]),
    "tensors": (by_part(T), by_part(C)),
    "tuples": ([(one,) for one in by_part(X)], by_part(CODES)),
    "dicts": ([{"x": one} for one in by_part(X)], [one.tolist() for one in by_part(CODES)]),
    "Datasets": ([TensorDataset(*one) for one in zip(by_part(T), by_part(C))], None),
    "Datasets and y": ([TensorDataset(one) for one in by_part(T)], by_part(CODES)),
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_samples_of_any_kind_give_the_same_net(kind):
    found = merger(fitted("codes")).fit(*SAMPLES[kind])
    wanted = merger(fitted("codes")).fit(X, CODES)
    assert_equal_nets(found.estimator_, wanted.estimator_, ROUNDING)
    assert found.verdict_ == wanted.verdict_
    np.testing.assert_array_equal(found.validation_indices_, wanted.validation_indices_)


@pytest.mark.parametrize("target", ["auto", "own", "labels"])
@pytest.mark.parametrize("kind", PARTS)
def test_samples_by_part_of_any_kind_give_the_same_net(kind, target):
    made = {"repair": "refit", "target": target}
    found = merger(fitted("codes"), **made).fit(*PARTS[kind])
    wanted = merger(fitted("codes"), **made).fit(by_part(X), by_part(CODES))
    assert_equal_nets(found.estimator_, wanted.estimator_, ROUNDING)
    assert found.verdict_ == wanted.verdict_
    assert found.target_ == wanted.target_
    pd.testing.assert_frame_equal(found.class_counts_, wanted.class_counts_)


def test_labels_by_part_may_be_words():
    words = merger(target="labels", repair="refit").fit(by_part(X), by_part(Y))
    y = [one.tolist() for one in by_part(Y)]
    lists = merger(target="labels", repair="refit").fit(by_part(X), y)
    assert_equal_nets(words.estimator_, lists.estimator_)
    assert words.target_ == "labels"


def test_weights_of_parts_are_their_sizes():
    found = merger(repair=None).fit(by_part(X), by_part(Y))
    np.testing.assert_allclose(found.weights_, np.array([60, 50, 40]) / 150)
    given = merger(repair=None, weights=[1, 2, 1]).fit(by_part(X), by_part(Y))
    np.testing.assert_allclose(given.weights_, [0.25, 0.5, 0.25])


def test_every_part_and_class_gives_its_share_to_the_report():
    found = merger(repair=None, validation_fraction=0.3).fit(by_part(X), by_part(Y))
    held = found.validation_indices_
    part = np.repeat([0, 1, 2], [60, 50, 40])
    for one in range(3):
        for label in range(3):
            cell = np.flatnonzero((part == one) & (label == CODES))
            assert abs(np.isin(cell, held).sum() - 0.3 * len(cell)) < 1.0


@pytest.mark.parametrize("by_parts", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_samples_kept_back_have_no_say_in_the_net(by_parts, labelled):
    """Whatever they are, what was fitted is the same to the bit; the report is another."""
    made = {"keep": "merged", "aligner": "activation"}
    rng = np.random.default_rng(7)

    def fit(x, y):
        y = y if labelled else None
        if by_parts:
            return merger(**made).fit(by_part(x), y if y is None else by_part(y))
        return merger(**made).fit(x, y)

    plain = fit(X, Y)
    held, poisoned = plain.validation_indices_, X.copy()
    poisoned[held] = 50.0 * rng.normal(size=(len(held), 3))
    labels = Y.copy()
    if labelled:  # the same classes, so that the same rows are kept
        for label in "abc":
            own = held[Y[held] == label]
            poisoned[own] = rng.permutation(poisoned[own])
    other = fit(poisoned, labels)
    np.testing.assert_array_equal(other.validation_indices_, held)
    assert_equal_nets(other.estimator_, plain.estimator_)
    assert (other.repair_, other.target_) == (plain.repair_, plain.target_)
    assert not other.fidelity_.equals(plain.fidelity_)


def test_nothing_handed_in_is_changed():
    nets, x, y = copy.deepcopy(fitted()), by_part(X.copy()), by_part(Y.copy())
    for one in x:
        one.setflags(write=False)
    before = [snapshot(one.module_) for one in nets], [vars(one).keys() for one in nets]
    found = merger(nets, target="labels", repair="refit").fit(x, y)
    found.predict_proba(X)
    assert [snapshot(one.module_) for one in nets] == before[0]
    assert [vars(one).keys() for one in nets] == before[1]
    for given, kept in zip((x, y), (by_part(X), by_part(Y))):
        for one, other in zip(given, kept, strict=True):
            np.testing.assert_array_equal(one, other)


# What is refused


@pytest.mark.parametrize(
    "estimators, error, said",
    [
        ([], ValueError, "'estimators' must hold at least 1 model"),
        (None, ValueError, "'estimators' parameter"),
        (net(), TypeError, "'estimators' must hold fitted nets.*got NetClassifier"),
        (NetClassifier(), TypeError, "'estimators' must hold fitted nets.*got NetClassifier"),
        ("nets", TypeError, "'estimators' must hold fitted nets.*got str"),
        ([NET, NET], NotFittedError, "'member_0' is a NetClassifier that is not fitted"),
        ([*fitted(), NET], NotFittedError, "'member_3' is .* not fitted"),
        (DeepEnsemble(NET), NotFittedError, "'estimators' is a DeepEnsemble that is not fitted"),
        ({"fit_time": [1.0]}, ValueError, "dict without 'estimator', got .*'fit_time'"),
        ([("a", fitted()[0]), ("a", fitted()[1])], ValueError, "has a name twice"),
        ([("merged", fitted()[0])], ValueError, "calls a net 'merged'.*give it another name"),
        ([("ensemble", fitted()[0])], ValueError, "calls a net 'ensemble'"),
        ([fitted()[0], net(module__depth=3)], ArchitectureMismatchError, "member_1"),
        ([("p", fitted()[0]), ("q", fitted("values")[0])], ArchitectureMismatchError, "q"),
    ],
)
def test_what_holds_no_nets_is_refused(estimators, error, said):
    with pytest.raises(error, match=said):
        EnsembleMerger(estimators).fit(X, Y)


def test_net_that_is_not_finite_is_named():
    bad = copy.deepcopy(fitted()[1])
    with torch.no_grad():
        bad.module_.layers[0].weight[0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="member_1"):
        merger([fitted()[0], bad]).fit(X, Y)


@pytest.mark.parametrize(
    "X, y, error, said",
    [
        (np.where(np.arange(3) == 1, np.nan, X), Y, ValueError, "NaN"),
        (np.hstack([X, X]), Y, ValueError, "6 features"),
        (X[:0], Y[:0], ValueError, "0 sample"),
        (X, Y[:100], ValueError, "got 150 and 100"),
        (X, np.where(Y == "a", "z", Y), ValueError, "'z'"),
        (None, Y, TypeError, "'X'"),
        (by_part(X)[:2], by_part(Y)[:2], ValueError, "list of 3 parts"),
        (by_part(X), Y, ValueError, "'y' must be a list of 3 parts"),
        ([X, X[:0], X], [Y, Y[:0], Y], ValueError, r"'X\[1\]' holds no sample"),
        ([X, X[:, :2], X], None, ValueError, "cannot be joined"),
        ([], [], ValueError, "list of 3 parts"),
    ],
)
def test_samples_that_do_not_fit_are_refused(X, y, error, said):
    with pytest.raises(error, match=said):
        merger().fit(X, y)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"aligner": "nonsense"}, "'aligner'"),
        ({"target": "nonsense"}, "'target'"),
        ({"repair": "nonsense"}, "'repair'"),
        ({"keep": "best"}, "'keep'"),
        ({"weights": [1.0]}, "'weights'"),
        ({"weights": [1.0, -1.0, 1.0]}, "'weights'"),
        ({"weights": "validation"}, "'weights'"),
        ({"scoring": "nonsense"}, "'scoring'"),
        ({"validation_fraction": 1.0}, "'validation_fraction'"),
        ({"random_state": "x"}, "'random_state'"),
    ],
)
def test_bad_parameters_are_named(changes, said):
    with pytest.raises(ValueError, match=f"{said}.*"):
        merger(**changes).fit(X, Y)
