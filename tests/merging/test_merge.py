"""Models in hand, merged into one."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklmc import NetClassifier, NetRegressor, PermutationAligner, average_models, merge_models
from sklmc.exceptions import ArchitectureMismatchError, NonFiniteError, StaleStatisticsWarning
from sklmc.merging import repair
from sklmc.merging._repairs._batch_norm import reestimate_statistics
from sklmc.models import view
from sklmc.nets import MLP
from sklmc.symmetry import discover_symmetry
from tests.merging.conftest import dense
from tests.models.conftest import snapshot

X = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
Y = np.array(["no", "yes"])[(X[:, 0] * X[:, 1] > 0).astype(int)]


@pytest.fixture(scope="module")
def nets():
    return [
        NetClassifier(module__width=6, max_epochs=5, random_state=seed).fit(X, Y)
        for seed in range(3)
    ]


def bits(model):
    return [tensor.numpy().tobytes() for tensor in view(model, caller="test").state.values()]


LOG = []


class Recorder(BaseEstimator):
    """An aligner that moves nothing and writes down what it gets."""

    def fit(self, model_a, model_b, X=None, y=None):
        self.pair_ = model_a, model_b
        LOG.append((model_a, model_b, X, y))
        return self

    def transform(self, model):
        assert model is self.pair_[1]
        return model


class AllAtOnce(BaseEstimator):
    """An aligner of many models."""

    def fit(self, models, X=None, y=None):
        self.n_ = len(models)
        return self

    def transform(self, models):
        assert len(models) == self.n_
        return [models[-1]] * self.n_


# mathematics


@pytest.mark.parametrize("norm", [None, "layer", "batch"])
def test_permuted_copies_merge_into_the_original(norm):
    """Alignment undoes the permutation, and the mean of equal nets is the net."""
    module = MLP(3, 2, width=6, depth=2, norm=norm)
    symmetry = discover_symmetry(module)
    copies = [symmetry.apply(module, symmetry.random_permutation(seed)) for seed in range(2)]
    assert bits(copies[0]) != bits(module)
    merged = merge_models([module, *copies], repair=None)
    assert bits(merged) == bits(module)


def test_each_model_is_aligned_with_the_first(nets):
    by_hand = [nets[0]]
    for net in nets[1:]:
        by_hand.append(PermutationAligner().fit(nets[0], net).transform(net))
    assert bits(merge_models(nets)) == bits(average_models(by_hand))
    assert bits(merge_models(nets)) != bits(average_models(nets))


def test_without_aligner_models_are_averaged_as_they_are(nets):
    assert bits(merge_models(nets, aligner=None)) == bits(average_models(nets))


def test_weights_decide(nets):
    weighted = merge_models(nets, aligner=None, weights=[1, 2, 1])
    assert bits(weighted) == bits(average_models(nets, weights=[1, 2, 1]))
    assert bits(merge_models(nets, X, weights=[1, 0, 0])) == bits(nets[0])


def test_single_model_is_copied(nets):
    merged = merge_models(nets[:1], X)
    assert merged is not nets[0]
    assert bits(merged) == bits(nets[0])


def test_batch_norm_is_estimated_again_where_there_are_samples():
    modules = [dense(0), dense(1)]
    merged = merge_models(modules, X, aligner=None, repair="batch_norm")
    mean = view(average_models(modules), caller="test")
    state = reestimate_statistics(mean, mean.state, mean.to_input(X))
    assert bits(merged) == [tensor.numpy().tobytes() for tensor in state.values()]
    few = X[:20]  # too few to choose by
    assert bits(merge_models(modules, few, aligner=None)) == bits(
        merge_models(modules, few, aligner=None, repair="batch_norm")
    )
    assert bits(merge_models(modules, X, aligner=None, repair=None)) == bits(
        average_models(modules)
    )


def test_repair_equals_the_repair_inside_merge_models():
    modules = [dense(0), dense(1)]
    mean = average_models(modules, weights=[0.2, 0.8])
    options = {"weights": [0.2, 0.8]}
    for method in ("auto", "batch_norm", "renormalize"):
        merged = merge_models(modules, X, aligner=None, repair=method, **options)
        assert bits(repair(mean, modules, X, method=method, **options)) == bits(merged)
        assert method == "auto" or bits(merged) != bits(mean)


def test_repair_is_the_identity_at_the_end_points():
    modules = [dense(0), dense(1)]
    for method in ("auto", "batch_norm", "refit", "renormalize"):
        repaired = repair(modules[1], modules, X, weights=[0, 1], method=method)
        assert bits(repaired) == bits(modules[1])


def test_net_without_batch_norm_has_no_statistics(nets):
    mean = average_models(nets)
    assert bits(repair(mean, nets, X, method="batch_norm")) == bits(mean)


def test_models_stay_as_they_were(nets):
    modules = [dense(0).train(), dense(1)]
    before = [snapshot(module) for module in modules], X.copy()
    merged = merge_models(modules, X)
    with torch.no_grad():
        for tensor in merged.state_dict().values():
            tensor.fill_(0)
    assert [snapshot(module) for module in modules] == before[0]
    assert (before[1] == X).all()
    told = [net.get_params() for net in nets], [bits(net) for net in nets]
    merge_models(nets, X, Y)
    assert ([net.get_params() for net in nets], [bits(net) for net in nets]) == told


# kinds


def test_merged_classifier_predicts_labels_and_trains_on(nets):
    merged = merge_models(nets, X)
    assert set(merged.predict(X)) <= {"no", "yes"}
    assert merged.predict_proba(X).shape == (80, 2)
    before = bits(merged)
    merged.partial_fit(X, Y)
    assert bits(merged) != before
    again = pickle.loads(pickle.dumps(merged))
    np.testing.assert_array_equal(again.predict_proba(X), merged.predict_proba(X))


def test_merged_net_enters_a_pipeline_frozen(nets):
    merged = merge_models(nets, X)
    frozen = FrozenEstimator(merged)
    pipeline = make_pipeline(StandardScaler(with_mean=False, with_std=False), frozen).fit(X, Y)
    np.testing.assert_array_equal(pipeline.predict(X), merged.predict(X))
    assert isinstance(merge_models([frozen, frozen]), FrozenEstimator)


def test_aligner_objects_are_cloned_and_get_the_data():
    modules = [dense(seed) for seed in range(3)]
    aligner = Recorder()
    labels = np.arange(80) % 2
    LOG.clear()
    merge_models(modules, X, labels, aligner=aligner)
    assert not hasattr(aligner, "pair_")
    assert [(one[0], one[1]) for one in LOG] == [(modules[0], net) for net in modules[1:]]
    assert all(one[2] is X and one[3] is labels for one in LOG)


def test_aligner_of_many_models_sees_them_all():
    modules = [dense(seed) for seed in range(3)]
    merged = merge_models(modules, aligner=AllAtOnce(), repair=None)
    assert bits(merged) == bits(modules[2])


# warnings and errors


def test_stale_statistics_are_announced():
    modules = [dense(0), dense(1)]
    with pytest.warns(StaleStatisticsWarning, match=r"merge_models: .*\(2 layers\); pass 'X'"):
        merged = merge_models(modules, aligner=None)
    assert bits(merged) == bits(average_models(modules))


def test_no_warning_where_nothing_is_stale(nets):
    with warnings.catch_warnings():
        warnings.simplefilter("error", StaleStatisticsWarning)
        merge_models([dense(0), dense(1)], aligner=None, repair=None)
        merge_models([dense(0), dense(1)], aligner=None, weights=[1, 0])
        merge_models([dense(0), dense(1)], X, aligner=None)
        merge_models(nets)


def nan_net():
    module = dense(1)
    with torch.no_grad():
        module[0].bias[0] = torch.nan
    return module


@pytest.mark.parametrize(
    "models, options, error, said",
    [
        (dense(0), {}, TypeError, "'models' must be a list of models, got Sequential"),
        ([], {}, ValueError, "'models' must hold at least 1 model, got 0"),
        ([dense(0), 3], {}, TypeError, r"'models\[1\]' must be a fitted skorch net"),
        ([dense(0), nn.Linear(3, 2)], {}, ArchitectureMismatchError, "tensor '0.weight' is in"),
        ([dense(0), nan_net()], {}, NonFiniteError, r"tensor '0.bias' of 'models\[1\]'"),
        ([dense(0)] * 2, {"weights": [1]}, ValueError, "'weights' must hold one number per model"),
        ([dense(0)] * 2, {"weights": [1, -1]}, ValueError, "'weights' must be finite and not neg"),
        ([dense(0)] * 2, {"weights": [0, 0]}, ValueError, "'weights' sum to"),
        ([dense(0)] * 2, {"aligner": "wieght"}, ValueError, "'aligner' must be .*mean 'weight'"),
        ([dense(0)] * 2, {"aligner": 3}, ValueError, "'aligner' must be one of 'weight', "),
        ([dense(0)] * 2, {"repair": "batchnorm"}, ValueError, "'repair' must .*mean 'batch_norm'"),
        ([dense(0)] * 2, {"repair": "batch_norm"}, ValueError, "repair='batch_norm' needs samples"),
        ([dense(0)] * 2, {"X": X, "y": [0]}, ValueError, "'X' and 'y' must have the same length"),
        ([dense(0)] * 2, {"y": [0]}, ValueError, "'y' was given without 'X'"),
        ([dense(0)] * 2, {"X": X[:0]}, ValueError, "'X' must hold at least one sample"),
        ([dense(0)] * 2, {"X": X * np.nan}, ValueError, "'X' contains NaN"),
        ([dense(0)] * 2, {"X": X[:, :2]}, ValueError, r"cannot run on 'X' of shape \(\d+, 2\)"),
        ([dense(0), dense(1)], {"X": X[:1]}, ValueError, "pass at least two samples"),
    ],
)
def test_bad_input_of_merge_models(models, options, error, said):
    options = {"aligner": None, **options}
    with pytest.raises(error, match=f"merge_models: .*{said}"):
        merge_models(models, **options)


@pytest.mark.parametrize(
    "changes, error, said",
    [
        ({"model": 3}, TypeError, "'model' must be a fitted skorch net"),
        ({"model": nn.Linear(3, 2)}, ArchitectureMismatchError, r"'model' and 'models\[0\]'"),
        ({"models": []}, ValueError, "'models' must hold at least 1 model"),
        ({"models": dense(0)}, TypeError, "'models' must be a list of models"),
        ({"X": None}, ValueError, "'X' is None; pass samples of the data"),
        ({"X": X[:1]}, ValueError, "pass at least two samples"),
        ({"y": [0]}, ValueError, "'X' and 'y' must have the same length"),
        ({"weights": [1]}, ValueError, "'weights' must hold one number per model"),
        ({"method": "refresh"}, ValueError, "'method' must be one of 'auto', 'batch_norm'"),
    ],
)
def test_bad_input_of_repair(changes, error, said):
    arguments = {"model": dense(2), "models": [dense(0), dense(1)], "X": X, **changes}
    with pytest.raises(error, match=f"repair: .*{said}"):
        repair(arguments.pop("model"), arguments.pop("models"), arguments.pop("X"), **arguments)


def test_classes_and_tasks_must_agree(nets):
    other = NetClassifier(module__width=6, max_epochs=1, random_state=0).fit(X, Y == "no")
    with pytest.raises(ArchitectureMismatchError, match="have different classes_"):
        merge_models([nets[0], other])
    pair = np.stack([X[:, 0], X[:, 1]], axis=1)
    regressor = NetRegressor(module__width=6, max_epochs=1, random_state=0).fit(X, pair)
    with pytest.raises(ArchitectureMismatchError, match=r"is a classifier and .* is a regressor"):
        merge_models([nets[0], regressor])
