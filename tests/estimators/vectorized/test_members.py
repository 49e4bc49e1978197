"""Members whose training is vectorized equal those trained one by one."""

from __future__ import annotations

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_moons
from skorch.callbacks import EarlyStopping, EpochScoring, GradientNormClipping, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn
from torch.optim import lr_scheduler

from sklmc import DeepEnsemble, NetClassifier, NetRegressor
from sklmc.estimators._vectorized import plan_training
from tests.estimators.modules import Convolutional, Noisy, Squeezed, TokenClassifier
from tests.estimators.vectorized.same import ROUNDING, assert_same_histories, assert_same_nets, both

SMALL = {"module__width": 8, "batch_size": 32, "max_epochs": 5}


class Curved(nn.Module):
    """A module that is no chain."""

    def __init__(self, n_features, n_outputs, width=8, norm=False):
        super().__init__()
        self.hidden = nn.Linear(n_features, width, bias=not norm)
        self.norm = nn.BatchNorm1d(width) if norm else nn.Identity()
        self.output = nn.Linear(width, n_outputs)

    def forward(self, x):
        return self.output(torch.tanh(self.norm(self.hidden(x))))


class Masked(nn.Module):
    """What it does depends on more than its weights."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.output = nn.Linear(n_features, n_outputs)
        self.mask = torch.rand(n_features) + 0.5

    def forward(self, x):
        return self.output(x * self.mask)


def chain(n_features, n_outputs):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(n_features, 6, bias=False),
        nn.Sequential(nn.BatchNorm1d(6, momentum=None), nn.ReLU(), nn.Identity()),
        nn.Linear(6, n_outputs),
    )


def onecycle():
    return LRScheduler(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=60, step_every="batch")


SETTINGS = {
    "adam": {},
    "adamw": {"optimizer": torch.optim.AdamW, "optimizer__weight_decay": 0.1},
    "adam and decay": {"optimizer__weight_decay": 0.01, "optimizer__amsgrad": True},
    "sgd": {
        "optimizer": torch.optim.SGD,
        "optimizer__momentum": 0.9,
        "optimizer__nesterov": True,
        "optimizer__weight_decay": 0.01,
    },
    "rmsprop": {"optimizer": torch.optim.RMSprop, "optimizer__momentum": 0.5, "lr": 0.003},
    "adagrad": {"optimizer": torch.optim.Adagrad},
    "adadelta": {"optimizer": torch.optim.Adadelta, "lr": 1.0},
    "adamax": {"optimizer": torch.optim.Adamax},
    "nadam": {"optimizer": torch.optim.NAdam},
    "radam": {"optimizer": torch.optim.RAdam},
    "rates by name": {"optimizer__param_groups": [("*.bias", {"lr": 0.1})]},
    "layer norm": {"module__norm": "layer", "module__depth": 2},
    "no hidden layer": {"module__depth": 0},
    "no bias": {"module__bias": False, "module__depth": 2},
    "double": {"dtype": "float64"},
    "in order": {"iterator_train__shuffle": False},
    "no last batch": {"iterator_train__drop_last": True},
    "whole": {"batch_size": -1},
    "validation": {"train_split": ValidSplit(4), "iterator_valid__batch_size": 10},
    "random validation": {"train_split": ValidSplit(0.25)},
    "no callbacks": {"callbacks": "disable"},
    "cosine": {"callbacks": [LRScheduler("CosineAnnealingLR", T_max=5)]},
    "one-cycle": {"callbacks": [onecycle()]},
    "clipping": {"callbacks": [GradientNormClipping(0.05)]},
    "clipping the largest": {"callbacks": [GradientNormClipping(0.01, float("inf"))]},
    "one logit": {"criterion": nn.BCEWithLogitsLoss},
    "smooth labels": {"criterion__label_smoothing": 0.1},
    "weighted": {"criterion__weight": torch.tensor([1.0, 3.0])},
    "summed": {"criterion__reduction": "sum", "lr": 0.001},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_members_equal_those_trained_one_by_one(settings, moons):
    net = NetClassifier(**{**SMALL, **settings})
    alone, vectorized = both(net, *moons)
    assert_same_nets(alone, vectorized)
    assert_same_histories(alone, vectorized)


@pytest.mark.parametrize(
    "module, optimizer",
    [(chain, torch.optim.SGD), (chain, torch.optim.Adam), (Curved, torch.optim.Adam)],
)
def test_batch_norm_equals_with_its_running_statistics(module, optimizer, moons):
    """Without a bias in front of the norm, whose gradient would be rounding and no more."""
    settings = {"module__norm": True} if module is Curved else {}
    if module is chain:
        settings = {"module__n_features": 2, "module__n_outputs": 2}
    net = NetClassifier(module, batch_size=32, max_epochs=5, optimizer=optimizer, **settings)
    alone, vectorized = both(net, *moons)
    assert_same_nets(alone, vectorized, 5 * ROUNDING)
    assert_same_histories(alone, vectorized, 5 * ROUNDING)
    assert int(next(b for b in vectorized[0].module_.buffers() if b.ndim == 0)) == 15


def test_bias_in_front_of_batch_norm_is_trained_one_by_one(moons):
    """Its gradient is rounding and no more, which Adam makes steps of and SGD does not."""
    net = NetClassifier(**SMALL, module__norm="batch")
    assert not DeepEnsemble(net, 3, random_state=0).fit(*moons).vectorized_
    assert DeepEnsemble(net, 3, vectorize=True, random_state=0).fit(*moons).vectorized_
    net.set_params(optimizer=torch.optim.SGD, optimizer__momentum=0.9)
    assert DeepEnsemble(net, 3, random_state=0).fit(*moons).vectorized_
    assert_same_nets(*both(net, *moons))


def test_last_batch_of_one_sample_is_left_out_under_batch_norm(moons):
    X, y = moons[0][:65], moons[1][:65]
    net = NetClassifier(**SMALL, module__norm="batch", optimizer=torch.optim.SGD)
    alone, vectorized = both(net, X, y)
    assert_same_nets(alone, vectorized)
    assert vectorized[0].history[-1, "train_batch_count"] == 2


@pytest.mark.parametrize("module", [Curved, Convolutional, TokenClassifier])
def test_other_modules_equal_those_trained_one_by_one(module, moons):
    X, y = moons
    settings = {}
    if module is Convolutional:
        X = np.random.default_rng(0).normal(size=(96, 1, 4, 4)).astype("float32")
    if module is TokenClassifier:
        X, settings = np.arange(96 * 3).reshape(96, 3) % 10, {"dtype": None}
    net = NetClassifier(module, batch_size=32, max_epochs=5, **settings)
    alone, vectorized = both(net, X, y)
    assert_same_nets(alone, vectorized)
    assert_same_histories(alone, vectorized)


@pytest.mark.parametrize("settings", [{"module__width": 8}, {"module": Squeezed}])
def test_regressors_equal_those_trained_one_by_one(settings, moons, targets):
    net = NetRegressor(batch_size=32, max_epochs=5, train_split=ValidSplit(4), **settings)
    alone, vectorized = both(net, moons[0], targets)
    assert_same_nets(alone, vectorized)
    assert_same_histories(alone, vectorized)
    assert np.allclose(alone[0].predict(moons[0]), vectorized[0].predict(moons[0]), atol=1e-5)
    assert vectorized[1]._model_target(targets).shape == alone[1]._model_target(targets).shape


@pytest.mark.parametrize("criterion", [nn.MSELoss, nn.SmoothL1Loss])
def test_regressors_with_several_outputs(criterion, moons, targets):
    y = np.column_stack([targets, -targets, moons[0][:, 1]])
    net = NetRegressor(**SMALL, criterion=criterion, train_split=ValidSplit(4))
    alone, vectorized = both(net, moons[0], y)
    assert_same_nets(alone, vectorized)
    assert_same_histories(alone, vectorized)
    assert vectorized[0].predict(moons[0]).shape == (96, 3)


@pytest.mark.parametrize("load_best", [False, True])
def test_each_member_stops_for_itself(load_best, moons):
    stop = EarlyStopping(patience=2, threshold=0.05, load_best=load_best)
    net = NetClassifier(**{**SMALL, "max_epochs": 15, "lr": 0.03}, train_split=ValidSplit(4))
    net.set_params(callbacks=[stop])
    alone, vectorized = both(net, *moons, n_members=5)
    lengths = {len(member.history) for member in vectorized}
    assert len(lengths) > 1
    assert min(lengths) < 15
    assert_same_nets(alone, vectorized)
    assert_same_histories(alone, vectorized)
    for one, other in zip(alone, vectorized):
        twins = dict(one.callbacks_)["EarlyStopping"], dict(other.callbacks_)["EarlyStopping"]
        assert twins[0].best_epoch_ == twins[1].best_epoch_


@pytest.mark.parametrize("name", ["adam", "sgd", "cosine", "one-cycle"])
def test_training_goes_on_where_it_ended(name, moons):
    """Optimizer state, schedules and epoch seeds are written back."""
    net = NetClassifier(**{**SMALL, **SETTINGS[name], "max_epochs": 2})
    alone, vectorized = both(net, *moons)
    groups = [
        member.optimizer_.state_dict()["param_groups"] for member in (alone[0], vectorized[0])
    ]
    assert groups[0] == groups[1]
    if name in ("cosine", "one-cycle"):
        for members in (alone, vectorized):
            states = [dict(m.callbacks_)["LRScheduler"].lr_scheduler_.state_dict() for m in members]
        assert states[0]["last_epoch"] == (6 if name == "one-cycle" else 2)
        return
    for member in (*alone, *vectorized):
        member.partial_fit(*moons)
    assert_same_nets(alone, vectorized)
    assert_same_histories(alone, vectorized)


@pytest.mark.slow
def test_accuracies_are_spread_alike_after_many_epochs():
    """Rounding grows with the epochs, the population stays the same."""
    X, y = make_moons(300, noise=0.2, random_state=0)
    net = NetClassifier(module__width=4, max_epochs=40, lr=0.03)
    alone, vectorized = both(net, X[:100], y[:100], n_members=12)
    scores = [[m.score(X[100:], y[100:]) for m in members] for members in (alone, vectorized)]
    assert np.mean(scores[0]) == pytest.approx(np.mean(scores[1]), abs=0.005)
    assert np.std(scores[0]) == pytest.approx(np.std(scores[1]), abs=0.005)


def test_nets_are_independent_of_each_other(moons):
    """A view into what is vectorized would keep all members' memory alive."""
    _, vectorized = both(NetClassifier(**SMALL), *moons)
    for net in vectorized:
        tensors = [*net.module_.parameters()]
        tensors += [v for s in net.optimizer_.state.values() for v in s.values()]
        assert all(t.untyped_storage().nbytes() == t.numel() * t.element_size() for t in tensors)
        assert all(parameter.requires_grad for parameter in net.module_.parameters())
        assert not net.module_.training


# Which way an ensemble goes


def test_ensemble_says_whether_it_was_vectorized(moons):
    net = NetClassifier(**SMALL)
    vectorized = DeepEnsemble(net, 4, random_state=0).fit(*moons)
    alone = clone(vectorized).set_params(vectorize=False).fit(*moons)
    assert vectorized.vectorized_
    assert not alone.vectorized_
    assert vectorized.seeds_ == alone.seeds_
    assert_same_nets(alone.estimators_, vectorized.estimators_)
    assert [m.random_state for m in vectorized.estimators_] == vectorized.seeds_


@pytest.mark.parametrize(
    "n_jobs, backend",
    [(1, None), (2, "threading"), pytest.param(2, "loky", marks=pytest.mark.slow)],
)
def test_chunks_do_not_depend_on_jobs(n_jobs, backend, moons):
    net = NetClassifier(module__width=512, batch_size=96, max_epochs=2)
    ensemble = DeepEnsemble(net, 15, vectorize=True, random_state=0)
    first = clone(ensemble).fit(*moons)
    assert plan_training(net, *moons, 15, True, "DeepEnsemble").chunk < 15
    with joblib.parallel_config(backend or "sequential"):
        again = clone(ensemble).set_params(n_jobs=n_jobs).fit(*moons)
    assert_same_nets(first.estimators_, again.estimators_, 0)


def test_chunks_are_composed_by_position_alone(moons):
    plan = plan_training(NetClassifier(**SMALL), *moons, 60, "auto", "DeepEnsemble")
    assert [len(span) for span in plan.spans(120)] == [50, 50, 20]
    assert plan.spans(50) == plan.spans(120)[:1]


def test_chunks_shrink_as_nets_grow(moons):
    net = NetClassifier(**{**SMALL, "module__width": 512, "batch_size": 96})
    assert 4 <= plan_training(net, *moons, 50, "auto", "DeepEnsemble").chunk < 20


def test_memory_grows_with_the_chunk_not_with_the_members(moons, monkeypatch):
    """Counted in numbers put together at a time, whatever the machine frees when."""
    largest = []
    original = torch.stack

    def counting(tensors, *args, **kwargs):
        result = original(tensors, *args, **kwargs)
        largest.append(result.numel())
        return result

    monkeypatch.setattr(torch, "stack", counting)
    net = NetClassifier(module__width=512, batch_size=96, max_epochs=1)
    chunk = plan_training(net, *moons, 40, "auto", "DeepEnsemble").chunk
    peaks = []
    for n_members in (chunk, 3 * chunk):
        largest.clear()
        DeepEnsemble(net, n_members, random_state=0).fit(*moons)
        peaks.append(max(largest))
    assert peaks[0] == peaks[1] == chunk * 2 * 512


@pytest.mark.parametrize(
    "n_members, settings, vectorized",
    [
        (1, {}, False),
        (2, {}, True),
        (2, {"module": Curved, "module__width": 8}, False),
        (5, {"module": Curved, "module__width": 8}, True),
        (5, {"module": Curved, "module__width": 2000, "batch_size": 96}, False),
        (5, {"callbacks": [EpochScoring("f1")]}, False),
    ],
)
def test_auto_follows_the_rule(n_members, settings, vectorized, moons):
    net = NetClassifier(**{**SMALL, "max_epochs": 1, **settings})
    ensemble = DeepEnsemble(net, n_members, random_state=0).fit(*moons)
    assert ensemble.vectorized_ is vectorized


class Closure(torch.optim.LBFGS):
    pass


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"optimizer": torch.optim.LBFGS}, "'optimizer' is LBFGS"),
        ({"optimizer__differentiable": True}, "'optimizer__differentiable' is set"),
        ({"callbacks": [EpochScoring("f1")]}, "'callbacks' holds 'EpochScoring'"),
        ({"callbacks": [LRScheduler("ReduceLROnPlateau")]}, "'callbacks' holds 'LRScheduler'"),
        ({"compile": True}, "'compile' is set"),
        ({"iterator_train__num_workers": 1}, "'iterator_train'"),
        ({"module": Noisy}, "'module' Noisy cannot be vectorized .*random"),
        ({"module": Masked}, "'module' Masked cannot be vectorized .*depend on the seed"),
        ({"batch_size": 1, "module__norm": "batch", "module__width": 2}, "'batch_size'"),
    ],
)
def test_true_refuses_what_cannot_be_vectorized_and_names_it(settings, match, moons):
    small = {} if "module" in settings else SMALL
    net = NetClassifier(**{**small, "max_epochs": 1, **settings})
    with pytest.raises(ValueError, match=f"DeepEnsemble: 'vectorize' is True.*{match}"):
        DeepEnsemble(net, 3, vectorize=True).fit(*moons)
    if "batch_size" not in settings and "compile" not in settings:
        assert plan_training(net, *moons, 6, "auto", "DeepEnsemble").chunk is None


def test_true_refuses_estimators_that_are_no_net_of_ours(moons):
    class Own(NetClassifier):
        pass

    with pytest.raises(ValueError, match="'estimator' is a Own"):
        DeepEnsemble(Own(max_epochs=1), 2, vectorize=True).fit(*moons)


def test_wrong_size_is_the_nets_own_error(moons):
    net = NetClassifier(**SMALL, module__n_outputs=3)
    with pytest.raises(ValueError, match="returns 3 outputs for 2 classes"):
        DeepEnsemble(net, 3, vectorize=True).fit(*moons)


def test_frames_keep_their_column_names(moons):
    X = pd.DataFrame(moons[0], columns=["a", "b"])
    ensemble = DeepEnsemble(NetClassifier(**SMALL), 3, random_state=0).fit(X, moons[1])
    assert ensemble.vectorized_
    assert all(list(net.feature_names_in_) == ["a", "b"] for net in ensemble.estimators_)
    ensemble.predict(X)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_members_on_a_gpu_equal_those_trained_one_by_one(moons):
    net = NetClassifier(**SMALL, device="cuda")
    alone, vectorized = both(net, *moons)
    assert all(p.is_cuda for net in vectorized for p in net.module_.parameters())
    assert_same_nets(alone, vectorized, 1e-4)
