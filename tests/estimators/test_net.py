"""What NetClassifier and NetRegressor share: parameters, skorch's own."""

from __future__ import annotations

import copy
import inspect
import io
import pickle

import joblib
import numpy as np
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import EarlyStopping, EpochScoring, LRScheduler
from skorch.dataset import ValidSplit

from sklmc import NetClassifier
from sklmc.nets import MLP
from tests.estimators.nets import NETS, small, weights

# Parameters


@pytest.mark.parametrize("kind", NETS)
def test_parameters_are_equal_before_and_after_fit(kind, moons):
    net = small(
        kind,
        optimizer__weight_decay=1e-3,
        callbacks=[("stop", EarlyStopping("train_loss"))],
        callbacks__print_log__floatfmt=".2f",
    )
    before = net.get_params()
    net.fit(*moons)
    assert net.get_params() == before
    assert before["callbacks__stop__monitor"] == "train_loss"
    assert before["callbacks__print_log__floatfmt"] == ".2f"


@pytest.mark.parametrize("kind", NETS)
def test_init_only_stores(kind):
    instance = MLP(2, 2)
    net = kind(instance, lr="fast", nonsense=3)
    assert net.get_params(deep=False)["nonsense"] == 3
    assert net.module is instance


def test_clone_of_a_fitted_net_is_unfitted(moons):
    net = small(lr=0.05).fit(*moons)
    twin = clone(net)
    assert twin.get_params(deep=False) == net.get_params(deep=False)
    with pytest.raises(NotFittedError):
        twin.predict(moons[0])
    assert not hasattr(twin, "classes_")


def test_all_constructor_defaults_are_validated():
    for kind in NETS:
        names = set(inspect.signature(kind).parameters) - {"kwargs"}
        assert names == kind._parameter_constraints.keys()


def test_set_params_reaches_module_optimizer_and_callbacks(moons):
    net = small().set_params(
        module__width=5,
        optimizer__weight_decay=0.1,
        callbacks__print_log=None,
        iterator_train__shuffle=False,
    )
    net.fit(*moons)
    assert net.module_.layers[0].out_features == 5
    assert net.optimizer_.param_groups[0]["weight_decay"] == 0.1
    assert "print_log" not in dict(net.callbacks_)


def test_set_params_on_a_fitted_net_lasts(moons):
    net = small().fit(*moons)
    net.set_params(optimizer__weight_decay=0.1, lr=0.5, callbacks__print_log=None)
    assert net.optimizer_.param_groups[0]["lr"] == 0.5
    assert "print_log" not in dict(net.callbacks_)
    net.set_params(**net.get_params(deep=False)).fit(*moons)
    assert net.optimizer_.param_groups[0]["weight_decay"] == 0.1
    assert clone(net).get_params(deep=False)["optimizer__weight_decay"] == 0.1


def test_set_params_on_a_fitted_net_builds_its_module_anew_with_its_seed(moons):
    net = small().fit(*moons)
    state = torch.get_rng_state()
    net.set_params(module__width=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(weights(net), weights(small(module__width=4, max_epochs=0).fit(*moons)))


def test_grid_search_over_the_module(moons):
    search = GridSearchCV(small(), {"module__width": [2, 16], "lr": [0.1]}, cv=2).fit(*moons)
    assert set(search.cv_results_["param_module__width"]) == {2, 16}


# skorch's own


@pytest.mark.parametrize("kind", NETS)
def test_round_trips_keep_predictions(kind, moons):
    net = small(kind, module__norm="batch").fit(*moons)
    buffer = io.BytesIO()
    joblib.dump(net, buffer)
    buffer.seek(0)
    dumped = skops.io.dumps(net)
    unknown = skops.io.get_untrusted_types(data=dumped)
    for copied in (
        pickle.loads(pickle.dumps(net)),
        joblib.load(buffer),
        skops.io.loads(dumped, trusted=unknown),
        copy.deepcopy(net),
    ):
        assert np.array_equal(copied.predict(moons[0]), net.predict(moons[0]))
        again = clone(net).fit(*moons).partial_fit(*moons)
        assert torch.equal(weights(copied.partial_fit(*moons)), weights(again))


def test_module_from_a_notebook_can_be_pickled(moons):
    class Local(MLP):
        pass

    net = small().set_params(module=Local).fit(*moons)
    state = net.__getstate__()
    restored = NetClassifier.__new__(NetClassifier)
    restored.__setstate__(state)
    assert np.array_equal(restored.predict(moons[0]), net.predict(moons[0]))


def test_saved_parameters_load_into_an_initialized_net(moons, tmp_path):
    net = small().fit(*moons)
    net.save_params(f_params=tmp_path / "net.pt")
    other = small(module__n_features=2, module__n_outputs=2, classes=[0, 1]).initialize()
    other.load_params(f_params=tmp_path / "net.pt")
    assert np.array_equal(other.predict_proba(moons[0]), net.predict_proba(moons[0]))
    assert np.array_equal(other.predict(moons[0]), net.predict(moons[0]))


def test_scheduler_and_history(moons):
    scheduler = LRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=4)
    net = small(max_epochs=4, callbacks=[scheduler]).fit(*moons)
    assert len(net.history) == 4
    rates = net.history[:, "event_lr"]
    assert rates == pytest.approx([0.01 * (1 + np.cos(np.pi * e / 4)) / 2 for e in range(4)])
    assert net.history[-1, "train_loss"] > 0


def test_early_stopping_and_trimming(moons):
    stop = EarlyStopping("train_loss", patience=1, threshold=0.99)
    net = small(max_epochs=50, callbacks=[stop]).fit(*moons)
    assert len(net.history) < 50
    before = net.predict(moons[0])
    net.trim_for_prediction()
    assert np.array_equal(net.predict(moons[0]), before)


def test_closure_optimizers_work(moons):
    net = small(optimizer=torch.optim.LBFGS, batch_size=-1, max_epochs=3).fit(*moons)
    assert net.score(*moons) > 0.8


def test_silent_by_default(moons, capsys):
    small().fit(*moons)
    assert capsys.readouterr() == ("", "")
    small(verbose=1).fit(*moons)
    assert "train_loss" in capsys.readouterr().out


@pytest.mark.parametrize("kind", NETS)
def test_scoring_callbacks_see_targets_as_handed_in(kind, moons):
    X, y = moons
    labels = np.array(["no", "yes"])[y] if kind is NetClassifier else y.astype(float)
    seen = []

    def score(net, X, y):
        seen.append(y)
        return net.score(X, y)

    net = small(
        kind,
        max_epochs=1,
        train_split=ValidSplit(2),
        callbacks=[
            EpochScoring(score, name="cached", lower_is_better=False),
            EpochScoring(score, name="fresh", lower_is_better=False, use_caching=False),
        ],
    ).fit(X, labels)
    assert all(y.dtype.kind == labels.dtype.kind and y.ndim == 1 for y in seen)
    row = net.history[-1]
    assert row["cached"] == pytest.approx(row["fresh"])
    valid = np.arange(len(X))[: len(X) // 2]
    assert row["fresh"] == pytest.approx(net.score(X[valid], labels[valid]), abs=1e-6)


def test_predicting_changes_nothing(moons):
    net = small(module__norm="batch").fit(*moons)
    before = {name: value.clone() for name, value in net.module_.state_dict().items()}
    assert not net.module_.training
    net.predict_proba(moons[0])
    assert not net.module_.training
    for name, value in net.module_.state_dict().items():
        assert torch.equal(value, before[name])
