"""Nets that know different classes: one head for all, and each class from those that saw it."""

import copy
import warnings

import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sklmc import EnsembleMerger, NetClassifier, load_model, save_model
from sklmc.exceptions import ArchitectureMismatchError, MergeWarning
from sklmc.merging._classes import NEVER, widen_classes
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._refit import refit_state
from sklmc.merging._repairs._ridge_regression import RIDGE, WORTH
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.models import Arrays, predict_outputs, view
from sklmc.nets import MLP
from tests.merging.averagers import bits
from tests.models.conftest import snapshot

RNG = np.random.default_rng(0)
CENTRES = np.array([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0], [-3.0, -3.0, 0.0]])
CODES = RNG.integers(0, 4, 400)
X = (CENTRES[CODES] + RNG.normal(size=(400, 3))).astype(np.float32)
LABELS = np.array(["ant", "bee", "cat", "dog"])
Y = LABELS[CODES]
SEEN = [["ant", "bee", "cat"], ["bee", "cat", "dog"]]  # by each of two nets
HEADS = ("layers.2.weight", "layers.2.bias")

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklmc.exceptions.MergeWarning"),
    pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning"),
]


def rows_of(labels):
    return np.isin(Y, labels)


def net(labels, seed=0, **parameters):
    rows = rows_of(labels)
    made = NetClassifier(module__width=16, max_epochs=15, lr=0.02, random_state=seed)
    return made.set_params(**parameters).fit(X[rows], Y[rows])


@pytest.fixture(scope="module")
def nets():
    return [net(labels, seed) for seed, labels in enumerate(SEEN)]


def merger(nets, **parameters):
    return EnsembleMerger(nets, **{"aligner": "weight", "random_state": 0, **parameters})


def widened(nets):
    return widen_classes(nets, "f", [f"member_{k}" for k in range(len(nets))])


def test_widened_nets_predict_what_they_did(nets):
    models, known, heads = widened(nets)
    assert heads == HEADS
    assert known.tolist() == [[True, True, True, False], [False, True, True, True]]
    for before, after, own in zip(nets, models, SEEN):
        assert after.classes_.tolist() == LABELS.tolist()
        found, places = after.predict_proba(X), np.isin(LABELS, own)
        np.testing.assert_allclose(found[:, places], before.predict_proba(X), atol=1e-6)
        assert found[:, ~places].max() < 1e-9
        np.testing.assert_array_equal(after.predict(X), before.predict(X))


def test_rows_of_unseen_classes_are_placeholders(nets):
    first = view(widened(nets)[0][0], caller="f").state
    assert not first[HEADS[0]][3].any()
    assert first[HEADS[1]][3] == NEVER


def test_nets_that_know_the_same_stay_as_they_are(nets):
    twice = [nets[0], copy.deepcopy(nets[0])]
    models, known, heads = widened(twice)
    assert known is None
    assert heads == ()
    assert models[0] is twice[0]
    assert models[1] is twice[1]


def test_nothing_handed_in_is_changed(nets):
    before = [snapshot(one.module_) for one in nets], [one.classes_.copy() for one in nets]
    merger(nets).fit(X, Y)
    assert [snapshot(one.module_) for one in nets] == before[0]
    for one, classes in zip(nets, before[1]):
        np.testing.assert_array_equal(one.classes_, classes)
        assert one.module_.layers[2].out_features == 3


def test_a_class_is_the_mean_of_those_that_have_seen_it(nets):
    models, known, heads = widened(nets)
    states = [view(one, caller="f").state for one in models]
    weights = np.array([0.75, 0.25])
    ends = EndPoints(states, weights, known, heads)
    np.testing.assert_allclose(ends.class_shares(), [[1, 0.75, 0.75, 0], [0, 0.25, 0.25, 1]])
    mean = ends.mean()
    for name in heads:
        first, second = (state[name].double() for state in states)
        both = 0.75 * first[1:3] + 0.25 * second[1:3]
        wanted = torch.cat([first[:1], both, second[3:]])
        np.testing.assert_allclose(mean[name], wanted, atol=1e-6)
    plain = 0.75 * states[0]["layers.0.weight"] + 0.25 * states[1]["layers.0.weight"]
    np.testing.assert_allclose(mean["layers.0.weight"], plain, atol=1e-6)


def test_probability_of_a_class_is_the_mean_of_those_that_have_seen_it(nets):
    models, known, heads = widened(nets)
    states = [view(one, caller="f").state for one in models]
    ends = EndPoints(states, np.array([0.75, 0.25]), known, heads)
    looks = [view(one, caller="f") for one in models]
    logits = [predict_outputs(look, look.to_input(X)) for look in looks]
    first, second = (torch.softmax(one.double(), dim=1).numpy() for one in logits)
    wanted = ends.class_shares().numpy()
    wanted = wanted[0] * first + wanted[1] * second
    wanted /= wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ends.mean_probability(logits), wanted, atol=1e-9)
    np.testing.assert_allclose(ends.mean_log_probability(logits).exp(), wanted, atol=1e-9)


def test_class_of_a_net_without_weight_is_never_predicted(nets):
    models, known, heads = widened(nets)
    states = [view(one, caller="f").state for one in models]
    ends = EndPoints(states, np.array([1.0, 0.0]), known, heads)
    mean = ends.mean()
    for name, tensor in states[0].items():
        np.testing.assert_allclose(mean[name], tensor, atol=1e-6)
    found = merger(nets, weights=[1.0, 0.0], keep="merged").fit(X, Y)
    assert "dog" not in found.predict(X)


@pytest.mark.parametrize("target", ["own", "labels", "mean", "probability", "auto"])
@pytest.mark.parametrize("repair", ["auto", "refit", None])
def test_merged_net_knows_all_classes(nets, target, repair):
    parts = [X[rows_of(one)] for one in SEEN], [Y[rows_of(one)] for one in SEEN]
    found = merger(nets, target=target, repair=repair, keep="merged").fit(*parts)
    assert found.classes_.tolist() == LABELS.tolist()
    assert found.predict_proba(X).shape == (400, 4)
    assert set(found.predict(X)) <= set(LABELS)
    if repair is not None:
        assert found.score(X, Y) > 0.9  # no net alone knows more than three quarters


def test_own_fit_of_a_class_is_that_of_those_that_have_seen_it():
    """Three nets, two of which have seen a class: its row is fitted as if the third were not."""
    seen = [[0, 1, 2], [0, 1], [1, 2]]
    trained = [net(LABELS[labels], seed) for seed, labels in enumerate(seen)]
    models, known, heads = widened(trained)
    looks = [view(one, caller="f") for one in models]
    states = [look.state for look in looks]
    part = torch.arange(400) % 3
    samples = SampleSet(Arrays(torch.from_numpy(X)), None, part)
    weights = np.array([0.5, 0.3, 0.2])
    ends = EndPoints(states, weights, known, heads)
    found, _ = refit_state(looks[0], ends.mean(), ends, samples, "own")
    hidden, _ = refit_state(looks[0], ends.mean(), ends, samples, "mean")
    for label in range(3):
        sees = [k for k in range(3) if label in seen[k]]
        h, t, w = [], [], []
        for k in sees:
            x = torch.from_numpy(X)[part == k].double()
            before, own = (
                torch.relu(x @ s["layers.0.weight"].double().T + s["layers.0.bias"].double())
                for s in (found, states[k])
            )
            h.append(before)
            goal = own @ states[k][HEADS[0]].double().T + states[k][HEADS[1]].double()
            t.append(goal[:, label])
            w.append(torch.full((len(x),), weights[k] / weights[sees].sum() / len(x)).double())
        h, t, w = torch.cat(h), torch.cat(t), torch.cat(w)
        centred, mean = h - w @ h, w @ t
        start = ends.mean()[HEADS[0]][label].double()
        gram = centred.T @ (w[:, None] * centred)
        strength = max(RIDGE, WORTH * len(gram) / len(h))
        ridge = strength * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
        right = centred.T @ (w * (t - mean)) + ridge @ start
        solved = torch.linalg.solve(gram + ridge, right)
        np.testing.assert_allclose(found[HEADS[0]][label], solved, atol=1e-3)
        shift = mean - solved @ (w @ h)
        np.testing.assert_allclose(found[HEADS[1]][label], shift, atol=1e-3)
    assert not torch.equal(found[HEADS[0]], hidden[HEADS[0]])


# What is counted


def test_classes_are_counted_by_part(nets):
    parts = [rows_of(one) for one in SEEN]
    found = merger(nets, repair=None).fit([X[one] for one in parts], [Y[one] for one in parts])
    counts = found.class_counts_
    assert counts.index.tolist() == ["member_0", "member_1"]
    assert counts.columns.tolist() == LABELS.tolist()
    for name, rows in zip(counts.index, parts):
        assert counts.loc[name].tolist() == [int(np.sum(Y[rows] == one)) for one in LABELS]


@pytest.mark.parametrize("labelled", [True, False])
def test_classes_that_were_seen_are_ones(nets, labelled):
    found = merger(nets, repair=None).fit(X, Y if labelled else None)
    assert found.class_counts_.to_numpy().tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]


def test_nothing_is_counted_where_all_know_all(nets):
    twice = merger([nets[0], net(SEEN[0], 5)], repair=None)
    rows = rows_of(SEEN[0])
    assert twice.fit(X[rows], Y[rows]).class_counts_ is None
    with pytest.raises(AttributeError, match="before it is fitted"):
        _ = merger(nets).class_counts_


def test_counts_are_saved(nets, tmp_path):
    found = merger(nets, repair=None).fit(X, Y)
    save_model(found, tmp_path / "m.safetensors")
    assert load_model(tmp_path / "m.safetensors").class_counts_.equals(found.class_counts_)


@pytest.mark.slow  # scores every row on 300 resamples
def test_ensemble_that_scorers_see_leaves_out_those_that_have_not_seen_a_class():
    """It has the accuracy that the report's own ensemble has."""
    weak = [net(one, seed, max_epochs=1, lr=0.01) for seed, one in enumerate(SEEN)]
    rows = {}
    for scoring in (None, "accuracy"):
        found = merger(weak, repair=None, scoring=scoring).fit(X, Y)
        rows[scoring] = found.merge_report_.set_index("model").loc["ensemble", "accuracy"]
    assert rows["accuracy"] == rows[None]


def test_the_best_part_comes_with_all_classes():
    """Where the merged net loses, what is recommended still knows the labels of all."""
    good, bad = net(LABELS[:3], 0), net(LABELS[1:], 1, max_epochs=1, lr=1e-6)
    with pytest.warns(MergeWarning, match="recommended_ is that net"):
        found = merger([good, bad], repair=None, weights=[0.01, 0.99]).fit(X, Y)
    assert found.recommended_ is not found.estimator_
    assert found.classes_.tolist() == LABELS.tolist()
    np.testing.assert_array_equal(found.predict(X), good.predict(X))


# Kinds of nets


def test_pipelines_are_widened():
    pipelines = []
    for seed, labels in enumerate(SEEN):
        rows = rows_of(labels)
        made = NetClassifier(module__width=16, max_epochs=15, lr=0.02, random_state=seed)
        pipelines.append(make_pipeline(StandardScaler(), made).fit(X[rows], Y[rows]))
    found = merger(pipelines, repair="refit", keep="merged").fit(X, Y)
    assert found.classes_.tolist() == LABELS.tolist()
    assert found.score(X, Y) > 0.9


def test_nets_of_frames_keep_their_columns(nets):
    found = merger(nets).fit(X, Y)
    assert found.n_features_in_ == 3
    assert found.score(X, Y) > 0.9


class NoBias(nn.Module):
    """Its head has nowhere to say that a class is never meant."""

    def __init__(self, n_features=3, n_outputs=3, width=4):
        super().__init__()
        self.inner = nn.Linear(n_features, width)
        self.head = nn.Linear(width, n_outputs, bias=False)

    def forward(self, x):
        return self.head(torch.relu(self.inner(x)))


def one_logit(labels, seed):
    return net(labels, seed, criterion=nn.BCEWithLogitsLoss)


def perceptron(labels, seed):
    rows = rows_of(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MLPClassifier(hidden_layer_sizes=4, max_iter=2, random_state=seed).fit(
            X[rows], Y[rows]
        )


@pytest.mark.parametrize(
    "make, seen",
    [
        (lambda labels, seed: net(labels, seed, module=NoBias), SEEN),
        (one_logit, [["ant", "bee"], ["bee", "cat"]]),
        (perceptron, SEEN),
    ],
    ids=["no bias", "one logit", "MLPClassifier"],
)
def test_heads_that_cannot_be_widened_are_refused(make, seen):
    given = [make(labels, seed) for seed, labels in enumerate(seen)]
    wanted = r"EnsembleMerger: member_0 knows the classes .* cannot be widened.*classes=\[\.\.\.\]"
    with pytest.raises(ArchitectureMismatchError, match=wanted):
        merger(given).fit(X, Y)


def test_nets_of_two_and_of_three_classes_merge():
    """Cross entropy has one output per class: two outputs and three are widened alike."""
    given = [net(["ant", "bee"], 0), net(["bee", "cat", "dog"], 1)]
    found = merger(given, repair="refit", keep="merged").fit(X, Y)
    assert found.classes_.tolist() == LABELS.tolist()
    assert found.score(X, Y) > 0.7


def test_samples_of_a_class_that_no_net_knows_are_refused(nets):
    rows = rows_of(SEEN[0])
    given = [nets[0], net(SEEN[0], 3)]
    with pytest.raises(ValueError, match="'dog'"):
        merger(given).fit(X, Y)
    assert merger(given, repair=None).fit(X[rows], Y[rows]).score(X[rows], Y[rows]) >= 0


def test_permuted_copies_that_know_the_same_merge_into_the_original(nets):
    found = merger([nets[0], copy.deepcopy(nets[0])]).fit(X[rows_of(SEEN[0])])
    assert bits(found.estimator_) == bits(nets[0])


def test_foreign_skorch_nets_are_not_widened():
    """They do not say which labels their outputs stand for: all must have as many."""
    given = [
        NeuralNetClassifier(
            MLP, module__n_features=3, module__n_outputs=n, module__width=4, max_epochs=1,
            criterion=nn.CrossEntropyLoss, train_split=None, verbose=0,
        ).fit(X, np.arange(400) % n)
        for n in (3, 4)
    ]  # fmt: skip
    with pytest.raises(ArchitectureMismatchError, match=r"shape|classes"):
        merger(given).fit(X)
