"""Weights of samples and of classes in the training of nets and populations."""

import warnings

import numpy as np
import pytest
import sklearn
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.dataset import Dataset, ValidSplit
from torch import nn

from sklmc import DeepEnsemble, ModelGrid, NetClassifier, NetRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = (X[:, 0] + 0.5 * RNG.normal(size=60) > 0).astype(int)
VALUES = X[:, 0] - X[:, 1]
WEIGHTS = RNG.integers(0, 3, 60).astype(float)
FULL = {"batch_size": -1, "dtype": "float64", "max_epochs": 10, "random_state": 0}
SUMS = 1e-9  # what another order of summing may change in float64 after ten steps


def net(**options):
    return NetClassifier(module__width=8, **{**FULL, **options})


def outputs(fitted):
    return fitted.predict_proba(X) if hasattr(fitted, "classes_") else fitted.predict(X)


def same_bits(a, b):
    pairs = zip(a.module_.state_dict().values(), b.module_.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"criterion": nn.BCEWithLogitsLoss},
        {"criterion": nn.NLLLoss, "predict_nonlinearity": None, "module": "softmax"},
        {"criterion__weight": torch.tensor([1.0, 3.0], dtype=torch.float64)},
        {"criterion__label_smoothing": 0.1},
        {"iterator_train__num_workers": 0},
        {"class_weight": "balanced"},
        {"class_weight": {1: 3.0}},
    ],
    ids=str,
)
def test_weights_are_repeats(options):
    options = dict(options)
    if options.pop("module", None):
        options["module"] = Softmax
    weighted = net(**options).fit(X, Y, sample_weight=WEIGHTS)
    times = WEIGHTS.astype(int)
    repeated = net(**options).fit(X.repeat(times, 0), Y.repeat(times))
    np.testing.assert_allclose(outputs(weighted), outputs(repeated), atol=SUMS)


class Loader(torch.utils.data.DataLoader):
    """One that is asked for its batches, where torch's own need not be."""


class Softmax(nn.Sequential):
    def __init__(self, n_features, n_outputs, width):
        super().__init__(
            nn.Linear(n_features, width), nn.Tanh(), nn.Linear(width, n_outputs), nn.Softmax(1)
        )


@pytest.mark.parametrize("y", [VALUES, np.stack([VALUES, X[:, 2]], axis=1)], ids=["one", "two"])
@pytest.mark.parametrize("criterion", [nn.MSELoss, nn.HuberLoss])
def test_weights_are_repeats_in_regression(y, criterion):
    regressor = NetRegressor(module__width=8, criterion=criterion, **FULL)
    weighted = sklearn.clone(regressor).fit(X, y, sample_weight=WEIGHTS)
    times = WEIGHTS.astype(int)
    repeated = sklearn.clone(regressor).fit(X.repeat(times, 0), y.repeat(times, 0))
    np.testing.assert_allclose(outputs(weighted), outputs(repeated), atol=SUMS)


@pytest.mark.parametrize("options", [{}, {"module__norm": "batch", "batch_size": 16}], ids=str)
def test_a_weight_of_zero_leaves_a_sample_out_to_the_bit(options):
    weights = np.where(WEIGHTS > 0, 1.5, 0.0)
    kept = weights > 0
    part = net(**options).fit(X[kept], Y[kept], sample_weight=weights[kept])
    assert same_bits(net(**options).fit(X, Y, sample_weight=weights), part)
    inside = [
        net(**options).fit(Dataset(X[rows], Y[rows]), None, sample_weight=weights[rows])
        for rows in (slice(None), kept)
    ]
    assert same_bits(*inside)


def test_labels_without_weight_are_known():
    fitted = net().fit(X, np.where(WEIGHTS == 0, 2, Y), sample_weight=WEIGHTS)
    assert fitted.classes_.tolist() == [0, 1, 2]
    assert not (fitted.predict(X) == 2).all()


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_only_ratios_matter(scale):
    plain = net(dtype="float32").fit(X, Y, sample_weight=WEIGHTS)
    scaled = net(dtype="float32").fit(X, Y, sample_weight=scale * WEIGHTS)
    np.testing.assert_allclose(outputs(plain), outputs(scaled), atol=1e-5)


def test_a_batch_is_weighted_whatever_cuts_it():
    options = {"batch_size": 16, "train_split": ValidSplit(3), "iterator_train__shuffle": False}
    cut = net(**options).fit(X, Y, sample_weight=WEIGHTS)
    loaded = net(iterator_train=Loader, iterator_valid=Loader, **options)
    loaded.fit(X, Y, sample_weight=WEIGHTS)
    assert same_bits(cut, loaded)
    assert cut.history[:, "valid_loss"] == loaded.history[:, "valid_loss"]
    assert not {"_weights", "_batch_weights"} & vars(cut).keys()


def test_history_holds_the_weighted_loss():
    fitted = net(max_epochs=1).fit(X, Y, sample_weight=WEIGHTS)
    start = net(max_epochs=0).fit(X, Y)
    loss = -np.log(start.predict_proba(X)[np.arange(60), Y])
    wanted = np.average(loss, weights=WEIGHTS)
    assert fitted.history[-1, "train_loss"] == pytest.approx(wanted, rel=1e-9)


def test_groups_of_a_split_lose_the_rows_of_weight_zero():
    seen = []

    def split(dataset, y=None, groups=None):
        seen.append(groups)
        return dataset, None

    class TakesGroups(Softmax):
        def forward(self, x, groups=None):
            return super().forward(x)

    groups = np.arange(60)
    options = {"module": TakesGroups, "train_split": split, "criterion": nn.NLLLoss}
    net(**options).fit(X, Y, sample_weight=WEIGHTS, groups=groups)
    assert seen[0].tolist() == groups[WEIGHTS > 0].tolist()


def test_partial_fit_takes_weights():
    whole = net(max_epochs=4).fit(X, Y, sample_weight=WEIGHTS)
    parts = net(max_epochs=2)
    for _ in range(2):
        parts.partial_fit(X, Y, sample_weight=WEIGHTS)
    assert same_bits(whole, parts)


@pytest.mark.parametrize(
    "weights, said",
    [
        (np.where(np.arange(60) == 7, -1.0, 1.0), "not negative, got -1.0 in row 7"),
        (np.where(np.arange(60) == 7, np.nan, 1.0), "finite and not negative, got nan in row 7"),
        (np.full(60, np.inf), "finite and not negative, got inf in row 0"),
        (np.ones(59), r"must have shape \(60,\)"),
        (np.ones((60, 1)), r"must have shape \(60,\)"),
        (2.0, r"must have shape \(60,\)"),
        (np.zeros(60), "zero throughout"),
        (["1"] * 60, "must be a sequence of numbers"),
        ([None] * 60, "must be a sequence of numbers"),
        ([1.0] * 59 + [[1.0]], "must be a sequence of numbers"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "estimator",
    [net(), DeepEnsemble(net(), 2, random_state=0), ModelGrid(net(), {"lr": [0.1]})],
    ids=lambda one: type(one).__name__,
)
def test_bad_weights_are_refused_by_name(estimator, weights, said):
    with pytest.raises((TypeError, ValueError), match=f"'sample_weight' .*{said}"):
        sklearn.clone(estimator).fit(X, Y, sample_weight=weights)


@pytest.mark.parametrize("kind", [net, lambda: DeepEnsemble(net(), 2, random_state=0)])
def test_score_takes_weights_and_refuses_bad_ones(kind):
    fitted = kind().fit(X, Y)
    right = fitted.predict(X) == Y
    assert fitted.score(X, Y, WEIGHTS) == pytest.approx(np.average(right, weights=WEIGHTS))
    with pytest.raises(ValueError, match="'sample_weight' must be finite and not negative"):
        fitted.score(X, Y, sample_weight=-WEIGHTS)


@pytest.mark.parametrize(
    "class_weight, said",
    [
        ("even", "'class_weight' parameter of NetClassifier must be"),
        ({2: 1.0}, r"'class_weight' names the class 2, but the classes are \[0, 1\]"),
        ({1: -1.0}, "finite numbers that are not negative, got -1.0 for 1"),
        ({1: "2"}, "got '2' for 1"),
        ({0: 0, 1: 0}, "leaves no sample with a weight"),
    ],
)
def test_bad_class_weights_are_refused(class_weight, said):
    with pytest.raises(ValueError, match=said):
        net(class_weight=class_weight).fit(X, Y)


def test_class_weights_multiply_weights_of_samples():
    own = np.where(Y == 1, 3.0, 1.0)
    given = net(class_weight={1: 3.0}).fit(X, Y, sample_weight=WEIGHTS)
    assert same_bits(given, net().fit(X, Y, sample_weight=own * WEIGHTS))
    share = np.bincount(Y, minlength=2)
    balanced = net(class_weight="balanced").fit(X, Y)
    by_hand = net().fit(X, Y, sample_weight=60 / (2 * share[Y]))
    assert same_bits(balanced, by_hand)
    texts = np.array(["no", "yes"])[Y]
    assert same_bits(
        net(class_weight={"yes": 3.0}).fit(X, texts), net(class_weight={1: 3.0}).fit(X, Y)
    )


class OwnLoss(nn.Module):
    def forward(self, outputs, target):
        return nn.functional.cross_entropy(outputs, target)


class Deaf(OwnLoss):
    reduction = "mean"


@pytest.mark.parametrize("criterion, said", [(OwnLoss, "reduction=None"), (Deaf, r"shape \(\)")])
def test_a_criterion_without_single_losses_is_refused(criterion, said):
    assert net(criterion=criterion).fit(X, Y).history
    with pytest.raises(ValueError, match=f"NetClassifier: weights of samples need.*{said}"):
        net(criterion=criterion).fit(X, Y, sample_weight=WEIGHTS)
    ensemble = DeepEnsemble(net(criterion=criterion), 2, random_state=0)
    with pytest.raises(ValueError, match="weights of samples need"):
        ensemble.fit(X, Y, sample_weight=WEIGHTS)


# Populations


class Tanh(nn.Sequential):
    """No chain of layers that is vectorized by hand."""

    def __init__(self, n_features, n_outputs, width):
        super().__init__(nn.Linear(n_features, width), nn.Tanh(), nn.Linear(width, n_outputs))


@pytest.mark.parametrize(
    "inner",
    [
        net(),
        net(module=Tanh),
        net(criterion=nn.BCEWithLogitsLoss),
        net(criterion__label_smoothing=0.1, class_weight="balanced"),
        net(train_split=ValidSplit(3), batch_size=16),
        net(module__norm="batch", batch_size=16, optimizer=torch.optim.SGD),
        NetRegressor(module__width=8, **FULL),
        NetRegressor(Tanh, module__width=8, **FULL),
    ],
    ids=str,
)
def test_vectorized_members_are_those_trained_one_by_one(inner):
    y = VALUES if isinstance(inner, NetRegressor) else Y
    fitted = [
        DeepEnsemble(inner, 3, vectorize=vectorize, random_state=0).fit(X, y, WEIGHTS)
        for vectorize in (True, False)
    ]
    assert [one.vectorized_ for one in fitted] == [True, False]
    for a, b in zip(*(one.estimators_ for one in fitted), strict=True):
        np.testing.assert_allclose(outputs(a), outputs(b), atol=SUMS)
        for name in ("train_loss", *(["valid_loss"] if inner.train_split else [])):
            np.testing.assert_allclose(a.history[:, name], b.history[:, name], rtol=1e-9)
        assert not {"_weights", "_batch_weights"} & vars(a).keys()


def test_members_of_other_kinds_get_the_weights():
    weights = {"sample_weight": WEIGHTS}
    piped = make_pipeline(StandardScaler(), net())
    ensemble = DeepEnsemble(piped, 2, random_state=0).fit(X, Y, **weights)
    seed = ensemble.seeds_[0]
    scaled = StandardScaler().fit_transform(X)
    assert same_bits(ensemble.estimators_[0][-1], net(random_state=seed).fit(scaled, Y, **weights))
    plain = DeepEnsemble(LogisticRegression(random_state=0), 2).fit(X, Y, **weights)
    np.testing.assert_array_equal(
        plain.estimators_[0].coef_, LogisticRegression().fit(X, Y, **weights).coef_
    )


def test_members_that_take_no_weights_are_refused():
    piped = make_pipeline(StandardScaler(), NoWeights())
    for inner in (NoWeights(), piped):
        with pytest.raises(ValueError, match="'sample_weight' was given, but the fit of NoWeights"):
            DeepEnsemble(inner, 2).fit(X, Y, sample_weight=WEIGHTS)


class NoWeights(KNeighborsClassifier):
    def __init__(self, random_state=None):
        super().__init__()
        self.random_state = random_state


def test_grid_trains_and_measures_with_weights():
    grid = ModelGrid(net(), {"lr": [0.01, 0.1]}, n_estimators=2, random_state=0)
    grid.fit(X, Y, sample_weight=WEIGHTS)
    for cell in grid.cells_:
        for member, seed, loss, score in zip(
            cell.estimators, cell.seeds, cell.train_loss, cell.train_score, strict=True
        ):
            alone = net(lr=cell.params["lr"], random_state=seed).fit(X, Y, sample_weight=WEIGHTS)
            np.testing.assert_allclose(outputs(member), outputs(alone), atol=SUMS)
            losses = -np.log(outputs(member)[np.arange(60), Y])
            assert loss == pytest.approx(np.average(losses, weights=WEIGHTS), rel=1e-6)
            assert score == pytest.approx(member.score(X, Y, sample_weight=WEIGHTS))


def test_stored_nets_are_told_apart_by_weights(tmp_path):
    def fit(weights):
        ensemble = DeepEnsemble(net(), 2, random_state=0, cache_dir=tmp_path)
        return ensemble.fit(X, Y, sample_weight=weights).estimators_[0]

    first, other, again = fit(WEIGHTS), fit(None), fit(WEIGHTS)
    assert same_bits(first, again)
    assert not same_bits(first, other)
    assert "_weights" not in vars(again)


# Metadata routing


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def unweighted_scaler():
    return StandardScaler().set_fit_request(sample_weight=False)


@pytest.mark.parametrize("inner", [net(), DeepEnsemble(net(), 2, random_state=0)], ids=str)
def test_weights_travel_through_pipelines_and_searches(routing, inner):
    inner = sklearn.clone(inner).set_fit_request(sample_weight=True)
    inner.set_score_request(sample_weight=True)
    piped = make_pipeline(unweighted_scaler(), inner).fit(X, Y, sample_weight=WEIGHTS)
    direct = sklearn.clone(inner).fit(StandardScaler().fit_transform(X), Y, sample_weight=WEIGHTS)
    np.testing.assert_array_equal(
        piped.predict_proba(X), direct.predict_proba(piped[0].transform(X))
    )
    weights = {"sample_weight": WEIGHTS}
    options = {"params": weights, "return_indices": True}
    found = cross_validate(inner, X, Y, cv=2, **options)
    train, test = (found["indices"][part][0] for part in ("train", "test"))
    alone = sklearn.clone(inner).fit(X[train], Y[train], sample_weight=WEIGHTS[train])
    assert found["test_score"][0] == alone.score(X[test], Y[test], sample_weight=WEIGHTS[test])
    name = "lr" if isinstance(inner, NetClassifier) else "estimator__lr"
    search = GridSearchCV(inner, {name: [0.01, 0.1]}, cv=2).fit(X, Y, sample_weight=WEIGHTS)
    best = sklearn.clone(inner).set_params(**search.best_params_).fit(X, Y, sample_weight=WEIGHTS)
    np.testing.assert_array_equal(search.predict_proba(X), best.predict_proba(X))


def test_a_pipeline_inside_an_ensemble_needs_its_request(routing):
    piped = make_pipeline(unweighted_scaler(), net().set_fit_request(sample_weight=True))
    ensemble = DeepEnsemble(piped, 2, random_state=0)
    weighted = ensemble.fit(X, Y, sample_weight=WEIGHTS).predict_proba(X)
    assert not np.allclose(weighted, ensemble.fit(X, Y).predict_proba(X))
    silent = make_pipeline(unweighted_scaler(), net())
    with pytest.raises(ValueError, match="sample_weight"):
        DeepEnsemble(silent, 2, random_state=0).fit(X, Y, sample_weight=WEIGHTS)
