"""Scores of paths with weights of samples."""

import numpy as np
import pytest
import sklearn
import torch
from sklearn.model_selection import cross_validate
from torch.utils.data import TensorDataset

from sklmc import DeepEnsemble, LMCScorer, ModelGrid, NetClassifier, NetRegressor, WidthSearchCV
from sklmc.connectivity._path_losses import calibrate
from sklmc.models import fit_inverse_temperature
from tests.doors.kinds import Graph, N, one_graph, rings
from tests.doors.kinds import Y as NODES

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 3)).astype(np.float32)
Y = (X[:, 0] + RNG.normal(size=80) > 0).astype(int)
VALUES = X[:, 0] - X[:, 1]
WEIGHTS = RNG.integers(0, 4, 80).astype(float)
TIMES = WEIGHTS.astype(int)
CLASSIFIERS = [NetClassifier(max_epochs=8, random_state=k).fit(X, Y) for k in range(3)]
REGRESSORS = [NetRegressor(max_epochs=8, random_state=k).fit(X, VALUES) for k in range(3)]
FIELDS = ("loss", "error", "calibrated_loss")


@pytest.mark.parametrize("calibration", [None, "in_sample", (X[:20], Y[:20])], ids=type)
@pytest.mark.parametrize("aligner", [None, "activation", "merge_many"])
def test_weights_are_repeats(calibration, aligner):
    given = calibration
    scorer = LMCScorer(n_alphas=5, calibration=given, aligner=aligner)
    weights = np.minimum(WEIGHTS, 1.0) if aligner == "activation" else WEIGHTS  # it counts samples
    times = weights.astype(int)
    weighted = scorer.pairwise(CLASSIFIERS, X, Y, sample_weight=weights)
    repeated = scorer.pairwise(CLASSIFIERS, X.repeat(times, 0), Y.repeat(times))
    for name in FIELDS if given is not None else FIELDS[:2]:
        a, b = (getattr(one, name) for one in (weighted, repeated))
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
    path = scorer.path(*CLASSIFIERS[:2], X, Y, sample_weight=weights)
    again = scorer.path(*CLASSIFIERS[:2], X.repeat(times, 0), Y.repeat(times))
    np.testing.assert_allclose(path.loss, again.loss, rtol=1e-6)


def test_weights_are_repeats_in_regression():
    times = TIMES
    scorer = LMCScorer(n_alphas=3)
    ensemble = DeepEnsemble(NetRegressor(max_epochs=5), 3, random_state=0).fit(X, VALUES)
    weighted = scorer(ensemble, X, VALUES, sample_weight=WEIGHTS)
    repeated = scorer(ensemble, X.repeat(times, 0), VALUES.repeat(times))
    assert weighted == pytest.approx(repeated, rel=1e-6)
    one = LMCScorer().path(*REGRESSORS[:2], X, VALUES, sample_weight=WEIGHTS)
    squares = (REGRESSORS[0].predict(X) - VALUES).astype(float) ** 2
    assert one.loss[0] == pytest.approx(np.average(squares, weights=WEIGHTS), rel=1e-5)


def test_crossfit_weighs_every_fold():
    kept = WEIGHTS > 0
    scorer = LMCScorer(n_alphas=3, calibration="crossfit")
    whole = scorer.path(*CLASSIFIERS[:2], X, Y, sample_weight=WEIGHTS)
    part = scorer.path(*CLASSIFIERS[:2], X[kept], Y[kept], sample_weight=WEIGHTS[kept])
    np.testing.assert_array_equal(whole.calibrated_loss, part.calibrated_loss)
    equal = scorer.path(*CLASSIFIERS[:2], X, Y, sample_weight=np.full(80, 1e-300))
    plain = scorer.path(*CLASSIFIERS[:2], X, Y)
    np.testing.assert_allclose(equal.calibrated_loss, plain.calibrated_loss, rtol=1e-9)
    assert not np.allclose(whole.calibrated_loss, plain.calibrated_loss)


def test_inverse_temperature_is_that_of_repeats():
    logits = torch.randn(80, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    codes, kept = torch.from_numpy(Y), WEIGHTS > 0
    weights = torch.from_numpy(WEIGHTS[kept])
    times = torch.from_numpy(TIMES)
    repeated = logits.repeat_interleave(times, 0), codes.repeat_interleave(times)
    beta = fit_inverse_temperature(logits[kept], codes[kept], weights=weights)
    assert beta == pytest.approx(fit_inverse_temperature(*repeated), rel=1e-9)
    loss, found = calibrate(logits[kept].T[None], codes[kept], weights=weights)
    assert float(found) == beta
    assert float(loss) == pytest.approx(float(calibrate(repeated[0].T[None], repeated[1])[0]))


def test_tokens_have_the_weight_of_their_sample():
    class Tagger(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x[..., None])

    torch.manual_seed(0)
    nets = [Tagger(1, 2) for _ in range(2)]
    labels = RNG.integers(0, 2, (80, 3))
    labels[::3, 1] = -100
    scorer = LMCScorer(n_alphas=3, calibration="in_sample")
    weighted = scorer.path(*nets, X, labels, sample_weight=WEIGHTS)
    repeated = scorer.path(*nets, X.repeat(TIMES, 0), labels.repeat(TIMES, 0))
    for name in FIELDS:
        a, b = (getattr(one, name) for one in (weighted, repeated))
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_samples_of_a_dataset_have_weights():
    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    modules = [net.module_ for net in CLASSIFIERS]
    streamed = LMCScorer(n_alphas=3).pairwise(modules, data, None, sample_weight=WEIGHTS)
    wanted = LMCScorer(n_alphas=3).pairwise(modules, X, Y, sample_weight=WEIGHTS)
    np.testing.assert_allclose(streamed.loss, wanted.loss, rtol=1e-6)


@pytest.mark.parametrize(
    "weights, said",
    [
        (-WEIGHTS, "must be finite and not negative"),
        (np.ones(79), "must have shape"),
        (np.zeros(80), "is zero throughout"),
        ("heavy", "must be a sequence of numbers"),
    ],
)
def test_bad_weights_are_refused_by_name(weights, said):
    scorer = LMCScorer()
    for caller, score in {
        "LMCScorer.path": lambda: scorer.path(*CLASSIFIERS[:2], X, Y, weights),
        "LMCScorer.pairwise": lambda: scorer.pairwise(CLASSIFIERS, X, Y, weights),
    }.items():
        with pytest.raises((TypeError, ValueError), match=f"{caller}: 'sample_weight' {said}"):
            score()


def test_grid_is_scored_and_stored_by_weights(tmp_path):
    nets = ModelGrid(NetClassifier(max_epochs=2), {"lr": [0.1]}, n_estimators=2, random_state=0)
    nets.fit(X, Y)
    scorer = LMCScorer(n_alphas=3, cache_dir=tmp_path)
    frames = [scorer.grid(nets, X, Y, sample_weight=w) for w in (None, WEIGHTS, WEIGHTS)]
    wanted = LMCScorer(n_alphas=3).pairwise(nets.cells_[0].estimators, X, Y, WEIGHTS).to_frame()
    assert frames[1]["barrier"].tolist() == frames[2]["barrier"].tolist()
    assert frames[1]["loss_a"].tolist() == wanted["loss_a"].tolist()
    assert frames[0]["loss_a"].tolist() != wanted["loss_a"].tolist()


def test_weights_are_routed_to_the_scorer():
    inner = DeepEnsemble(NetClassifier(max_epochs=10), 2, random_state=0)
    with sklearn.config_context(enable_metadata_routing=True):
        inner.set_fit_request(sample_weight=True)
        scorer = LMCScorer(n_alphas=3).set_score_request(sample_weight=True)
        options = {"params": {"sample_weight": WEIGHTS}, "return_indices": True}
        found = cross_validate(inner, X, Y, cv=2, scoring=scorer, **options)
        train, test = (found["indices"][part][0] for part in ("train", "test"))
        alone = sklearn.clone(inner).fit(X[train], Y[train], sample_weight=WEIGHTS[train])
        scores = scorer(alone, X[test], Y[test], sample_weight=WEIGHTS[test])
        assert found["test_neg_barrier"][0] == scores["neg_barrier"]
        assert scores != scorer(alone, X[test], Y[test])
        search = WidthSearchCV(inner, start=4, max_width=4, scoring=scorer, target_barrier=9, cv=2)
        search.set_params(min_skill=0.0).fit(X, Y, sample_weight=WEIGHTS)
        members = search.best_estimator_.estimators_
    wanted = sklearn.clone(search.best_estimator_).fit(X, Y, sample_weight=WEIGHTS).estimators_
    np.testing.assert_array_equal(members[0].predict_proba(X), wanted[0].predict_proba(X))


@pytest.mark.parametrize("graphs", [one_graph(), rings()], ids=["one", "batches"])
def test_nodes_of_weight_zero_do_not_count_in_graphs_that_stay_whole(graphs):
    a, b = Graph(0).eval(), Graph(1).eval()
    weights = np.arange(N) % 3.0
    score = LMCScorer(n_alphas=3, calibration="crossfit").path(a, b, graphs, NODES, weights)
    kept = torch.from_numpy(weights > 0)
    for net, loss, error in (
        (a, score.loss[0], score.error[0]),
        (b, score.loss[-1], score.error[-1]),
    ):
        with torch.no_grad():
            logits = net(*one_graph()).double()[kept]
        codes, counts = torch.from_numpy(NODES)[kept], torch.from_numpy(weights)[kept]
        each = torch.nn.functional.cross_entropy(logits, codes, reduction="none")
        assert loss == pytest.approx(float((each * counts).sum() / counts.sum()), rel=1e-5)
        wrong = (logits.argmax(1) != codes).double()
        assert error == pytest.approx(float((wrong * counts).sum() / counts.sum()))
