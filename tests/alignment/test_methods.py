"""Straight-through and automatic matching, callables, and what a fit knows beforehand."""

import numpy as np
import pytest
import torch

from sklmc import PermutationAligner, interpolate_models
from sklmc.alignment import _auto
from sklmc.alignment._problem import Match, Problem
from sklmc.alignment._straight_through import PATIENCE, cost_per_row, match_straight_through
from sklmc.exceptions import PermutationError, SymmetryError
from sklmc.models import Arrays, view
from sklmc.nets import MLP
from sklmc.symmetry import Permutation, discover_symmetry


@pytest.fixture(scope="module")
def data():
    """Eight Gaussian blobs in eight dimensions, two classes."""
    rng = np.random.RandomState(0)
    centres = 2 * rng.normal(size=(8, 8))
    which = rng.randint(8, size=400)
    X = (centres[which] + 2 * rng.normal(size=(400, 8))).astype(np.float32)
    return X, which % 2


def two_nets(data, seeds=(0, 1), dtype=torch.float32, **shape):
    """Train two nets on the blobs from different starts."""
    X, y = (torch.from_numpy(part) for part in data)
    X = X.to(dtype)
    nets = []
    with torch.random.fork_rng():
        for seed in seeds:
            torch.manual_seed(seed)
            net = MLP(n_features=8, n_outputs=2, **shape).to(dtype)
            optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
            for _ in range(150):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(X), y).backward()
                optimizer.step()
            nets.append(net)
    return nets


@pytest.fixture(scope="module")
def trained(data):
    """Two nets that are wide for the blobs."""
    return two_nets(data, width=16, depth=2)


@pytest.fixture(scope="module")
def narrow(data):
    """Two nets whose weights and activations do not say how to match them.

    In float64: in float32 training ends elsewhere on every kind of processor.
    """
    return two_nets(data, seeds=(4, 5), dtype=torch.float64, width=6, depth=4)


def midpoint_loss(a, b, data):
    X, y = (torch.from_numpy(part) for part in data)
    X = X.to(next(a.parameters()).dtype)
    with torch.no_grad():
        return torch.nn.functional.cross_entropy(interpolate_models(a, b, 0.5)(X), y).item()


# -- straight-through ------------------------------------------------------------------------


def test_straight_through_lowers_the_loss_halfway_below_its_start(trained, data):
    a, b = trained
    aligner = PermutationAligner("straight_through", max_iter=15, random_state=0)
    moved = aligner.fit_transform(a, b, *data)
    by_weight = PermutationAligner().fit_transform(a, b)
    assert midpoint_loss(a, moved, data) <= midpoint_loss(a, by_weight, data)
    assert aligner.objective_ == pytest.approx(-midpoint_loss(a, moved, data), rel=1e-5)
    assert (np.diff(aligner.objective_path_) > 0).all()


def test_straight_through_repeats_with_its_seed(trained, data):
    first, second = (
        PermutationAligner("straight_through", max_iter=3, random_state=1).fit(*trained, *data)
        for _ in range(2)
    )
    assert first.permutation_ == second.permutation_


def test_straight_through_goes_on_from_a_start_better_than_weight_matching(narrow, data):
    found = PermutationAligner("straight_through", random_state=0).fit(*narrow, *data)
    options = {"init": found.permutation_, "max_iter": 1, "random_state": 0}
    further = PermutationAligner("straight_through", **options).fit(*narrow, *data)
    assert found.objective_ > found.objective_path_[0]
    assert further.objective_path_[0] == pytest.approx(found.objective_, rel=1e-6)


@pytest.mark.parametrize("max_iter", [3, 100])
def test_straight_through_ends_where_the_loss_has_not_fallen_for_long(trained, data, max_iter):
    symmetry, seen = discover_symmetry(trained[0]), []
    a, b = (view(net, caller="test") for net in trained)
    problem = Problem(
        *(a, b, symmetry, b.state, symmetry.groups, Arrays(torch.from_numpy(data[0]))),
        target=torch.from_numpy(data[1]),
        max_iter=max_iter,
        random_state=0,
        progress=lambda what, value: seen.append(value),
    )
    path = match_straight_through(problem).objective_path
    last = seen.index(path[-1]) + 1 if len(path) > 1 else 0  # epochs until the lowest loss
    assert len(seen) == min(last + PATIENCE, max_iter)


def test_straight_through_needs_labels(trained, data):
    with pytest.raises(ValueError, match="method='straight_through' needs 'y', got None"):
        PermutationAligner("straight_through").fit(*trained, data[0])


# -- auto ------------------------------------------------------------------------------------


def choice_rows(n, seed):
    """The half of X that chooses among the candidates."""
    return np.random.RandomState(seed).permutation(n)[: n // 2]


def test_auto_is_no_worse_than_weight_matching_on_the_rows_that_choose(trained, data):
    a, b = trained
    moved = PermutationAligner("auto", random_state=0).fit_transform(a, b, *data)
    rows = choice_rows(400, 0)
    chosen = [part[rows] for part in data]
    by_weight = PermutationAligner().fit_transform(a, b)
    assert midpoint_loss(a, moved, chosen) <= midpoint_loss(a, by_weight, chosen)


def test_auto_without_labels_goes_by_the_mean_of_the_outputs(trained, data):
    a, b = trained
    X = torch.from_numpy(data[0][choice_rows(400, 0)])

    def distance(moved):
        with torch.no_grad():
            wanted = (a(X) + b(X)) / 2
            middle = interpolate_models(a, moved, 0.5)(X)
        cosine = torch.nn.functional.cosine_similarity
        centred = [(part - part.mean(dim=0)).reshape(1, -1) for part in (wanted, middle)]
        return 1 - cosine(*centred).item()

    moved = PermutationAligner("auto", random_state=0).fit_transform(a, b, data[0])
    assert distance(moved) <= distance(PermutationAligner().fit_transform(a, b)) + 1e-6


class Learner:
    """Straight-through matching, or in its place what moves nothing; keeps what it was given."""

    def __init__(self, monkeypatch, learn=match_straight_through):
        self.problems = []
        self.learn = learn
        monkeypatch.setattr(_auto, "match_straight_through", self)

    def __call__(self, problem):
        self.problems.append(problem)
        return self.learn(problem)

    @property
    def n_rows(self):
        return [len(problem.target) for problem in self.problems]


def nothing(problem):
    return Match(problem.identity(), [0.0], "nothing")


@pytest.fixture(scope="module")
def learned(narrow, data):
    return PermutationAligner("auto", random_state=0).fit(*narrow, *data)


def test_auto_learns_the_order_of_a_narrow_net(narrow, learned, data, monkeypatch):
    a, b = narrow
    monkeypatch.setattr(_auto, "LEARNING_COST", 0)
    cheap = PermutationAligner("auto", random_state=0).fit(a, b, *data)
    assert learned.method_.endswith(", then straight_through")
    assert "straight_through" not in cheap.method_
    losses = [midpoint_loss(a, one.transform(b), data) for one in (learned, cheap)]
    assert losses[0] < losses[1]


def test_auto_learns_apart_from_the_rows_that_choose_and_then_on_all(
    narrow, learned, data, monkeypatch
):
    learner = Learner(monkeypatch)
    again = PermutationAligner("auto", random_state=0).fit(*narrow, *data)
    assert learner.n_rows == [200, 200, 400]  # two starts, then the better one
    rows = [
        {bytes(x) for x in problem.inputs.args[0].float().numpy()} for problem in learner.problems
    ]
    chosen = {bytes(x) for x in data[0][choice_rows(400, 0)]}
    assert not (rows[0] | rows[1]) & chosen
    assert rows[2] == rows[0] | chosen
    assert again.permutation_ == learned.permutation_  # repeats with its seed
    np.testing.assert_array_equal(again.objective_path_, learned.objective_path_)


def test_auto_keeps_what_learning_does_not_improve(narrow, learned, data, monkeypatch):
    found = learned.permutation_
    learner = Learner(monkeypatch, nothing)
    best = {"init": found, "freeze": list(found), "random_state": 0}
    again = PermutationAligner("auto", **best).fit(*narrow, *data)
    assert learner.n_rows == [200]  # weight matching was the best already: one start
    assert again.method_ == "weight"
    assert again.permutation_ == found


def test_auto_learns_within_its_limit_of_cost(narrow, data, monkeypatch):
    learner = Learner(monkeypatch, nothing)
    monkeypatch.setattr(_auto, "LEARNING_ROWS", 100)
    PermutationAligner("auto", random_state=0).fit(*narrow, *data)
    assert {problem.max_iter for problem in learner.problems} == {30}
    per_row = cost_per_row(learner.problems[0])
    for affordable, rows in ((150.5, {150}), (99.5, set())):
        learner.problems.clear()
        monkeypatch.setattr(_auto, "LEARNING_COST", affordable * per_row)
        PermutationAligner("auto", random_state=0).fit(*narrow, *data)
        assert set(learner.n_rows) == rows


def test_cost_of_learning_counts_passes_and_matching(narrow, data, monkeypatch):
    learner = Learner(monkeypatch, nothing)
    PermutationAligner("auto", random_state=0).fit(*narrow, *data)
    one_pass = 8 * 6 + 3 * 6 * 6 + 6 * 2
    one_sweep = 6 * (8 * 6 + 2 * 3 * 6 * 6 + 6 * 2 + 4 * 6)  # weights in and out, and biases
    assert cost_per_row(learner.problems[0]) == pytest.approx(3 * one_pass + one_sweep / 200)


def test_auto_does_not_learn_without_labels(narrow, data, monkeypatch):
    learner = Learner(monkeypatch, nothing)
    aligner = PermutationAligner("auto", random_state=0).fit(*narrow, data[0])
    assert not learner.problems
    assert "straight_through" not in aligner.method_


def test_auto_without_data_is_weight_matching(trained):
    aligner = PermutationAligner("auto", random_state=0).fit(*trained)
    assert aligner.method_ == "weight"
    assert aligner.permutation_ == PermutationAligner().fit(*trained).permutation_


def test_auto_finds_a_planted_permutation(trained, data):
    a = trained[0]
    symmetry = discover_symmetry(a)
    planted = symmetry.random_permutation(0)
    b = symmetry.apply(a, planted)
    found = PermutationAligner("auto", random_state=0).fit(a, b, *data).permutation_
    assert found == planted.inverse()


# -- a callable ------------------------------------------------------------------------------


def test_callable_is_given_models_symmetry_and_data(trained, data):
    seen = {}

    def reverse(model_a, model_b, symmetry, X, y):
        seen.update(a=model_a, b=model_b, X=X, y=y)
        return {symmetry.groups[0].name: np.arange(16)[::-1]}

    aligner = PermutationAligner(reverse).fit(*trained, *data)
    assert seen["a"] is trained[0]
    assert seen["b"] is trained[1]
    assert seen["X"] is data[0]
    assert aligner.method_ == "reverse"
    first, second = aligner.permutation_.values()
    assert list(first) == list(range(15, -1, -1))
    assert list(second) == list(range(16))


def test_what_is_no_permutation_is_refused(trained):
    def broken(model_a, model_b, symmetry, X, y):
        return {symmetry.groups[0].name: np.zeros(16, dtype=int)}

    with pytest.raises(PermutationError, match=r"layers\.0"):
        PermutationAligner(broken).fit(*trained)


# -- prior knowledge -------------------------------------------------------------------------


def test_frozen_group_stays_where_it_is(trained):
    first, second = (group.name for group in discover_symmetry(trained[0]).groups)
    aligner = PermutationAligner(freeze=[first]).fit(*trained)
    assert list(aligner.permutation_[first]) == list(range(16))
    assert list(aligner.permutation_[second]) != list(range(16))


@pytest.mark.parametrize("method", ["weight", "activation", "auto"])
def test_frozen_group_keeps_the_start_that_is_given(trained, data, method):
    symmetry = discover_symmetry(trained[0])
    first, second = (group.name for group in symmetry.groups)
    start = symmetry.random_permutation(0)
    aligner = PermutationAligner(method, freeze=[first], init=start, random_state=0, n_init=2)
    aligner.fit(*trained, *data)
    np.testing.assert_array_equal(aligner.permutation_[first], start[first])
    assert not np.array_equal(aligner.permutation_[second], start[second])


def test_good_start_is_kept(trained):
    symmetry = discover_symmetry(trained[0])
    planted = symmetry.random_permutation(0)
    b = symmetry.apply(trained[0], planted)
    aligner = PermutationAligner(init=planted.inverse()).fit(trained[0], b)
    assert aligner.permutation_ == planted.inverse()
    assert aligner.n_iter_ == 0


def test_unknown_frozen_group_and_bad_start_are_refused(trained):
    with pytest.raises(SymmetryError, match=r"^PermutationAligner: 'freeze' .* no group 'layer7'"):
        PermutationAligner(freeze=["layer7"]).fit(*trained)
    with pytest.raises(PermutationError, match="'layer7'"):
        PermutationAligner(init={"layer7": [0]}).fit(*trained)


# -- similarity ------------------------------------------------------------------------------


def test_similarity_of_a_planted_copy_reaches_its_bound(trained):
    a = trained[0]
    symmetry = discover_symmetry(a)
    b = symmetry.apply(a, symmetry.random_permutation(0))
    frame = PermutationAligner().fit(a, b).similarity_
    np.testing.assert_allclose(frame["matched"], 1.0, atol=1e-6)
    np.testing.assert_allclose(frame["bound"], 1.0, atol=1e-6)
    assert (frame["identity"] < 0.7).all()


def test_similarity_lies_between_chance_and_bound(trained):
    frame = PermutationAligner().fit(*trained).similarity_
    assert list(frame["group"]) == [g.name for g in discover_symmetry(trained[0]).groups]
    assert (frame["matched"] <= frame["bound"] + 1e-9).all()
    assert (frame["matched"] > frame["random"] + 2 * frame["random_std"]).all()


def test_similarity_of_no_matching_is_that_of_the_identity(trained):
    def nothing(model_a, model_b, symmetry, X, y):
        return symmetry.identity()

    frame = PermutationAligner(nothing).fit(*trained).similarity_
    np.testing.assert_allclose(frame["matched"], frame["identity"])
    assert (frame["n_moved"] == 0).all()


def test_similarity_does_not_see_what_happens_to_the_models_later():
    torch.manual_seed(0)
    a, b = (MLP(n_features=3, n_outputs=2, width=6) for _ in range(2))
    aligner, again = (PermutationAligner().fit(a, b) for _ in range(2))
    before = again.similarity_
    with torch.no_grad():
        a.layers[0].weight.zero_()
    np.testing.assert_array_equal(aligner.similarity_["matched"], before["matched"])


def test_permutation_of_a_fit_is_one_of_its_symmetry(trained):
    aligner = PermutationAligner().fit(*trained)
    assert isinstance(aligner.permutation_, Permutation)
    assert aligner.permutation_.groups == aligner.symmetry_.groups
