from __future__ import annotations

import joblib
import numpy as np
import pytest
import skorch
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.cluster import KMeans
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EarlyStopping
from skorch.toy import MLPModule
from torch import nn

from sklmc import DeepEnsemble, NetClassifier, NetRegressor
from sklmc.exceptions import DivergedMemberWarning, NonFiniteError
from sklmc.nets import MLP
from tests.estimators.modules import Explosive

NET = NetClassifier(module__width=4, max_epochs=2)


def weights(ensemble):
    return [
        torch.cat([p.detach().ravel() for p in net.module_.parameters()]).numpy()
        for net in ensemble.estimators_
    ]


def skorch_net(**parameters):
    return skorch.NeuralNetClassifier(
        MLPModule,
        module__input_units=2,
        module__hidden_units=4,
        criterion=nn.CrossEntropyLoss,
        max_epochs=2,
        iterator_train__shuffle=True,
        **parameters,
    )


# Members


def test_members_are_nets_with_their_own_seeds(moons):
    ensemble = DeepEnsemble(NET, 3, vectorize=False, random_state=0).fit(*moons)
    assert len(ensemble.estimators_) == len(set(ensemble.seeds_)) == 3
    for net, vector, seed in zip(ensemble.estimators_, weights(ensemble), ensemble.seeds_):
        alone = clone(NET).set_params(random_state=seed).fit(*moons)
        assert net.random_state == seed
        assert np.array_equal(
            vector, torch.cat([p.detach().ravel() for p in alone.module_.parameters()]).numpy()
        )
    assert not np.array_equal(*weights(ensemble)[:2])


def test_larger_ensemble_begins_with_the_members_of_a_smaller_one(moons):
    few = DeepEnsemble(NET, 2, random_state=3).fit(*moons)
    many = DeepEnsemble(NET, 4, random_state=3).fit(*moons)
    assert np.array_equal(weights(few), weights(many)[:2])


def test_estimator_stays_unfitted_and_as_it_was(moons):
    net = clone(NET)
    before = net.get_params()
    DeepEnsemble(net, 2, random_state=0).fit(*moons)
    assert net.get_params() == before
    assert not net.initialized_


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
def test_members_do_not_depend_on_jobs_or_backend(backend, n_jobs, moons):
    expected = DeepEnsemble(NET, 3, random_state=0).fit(*moons)
    with joblib.parallel_config(backend, n_jobs=n_jobs):
        ensemble = DeepEnsemble(NET, 3, random_state=0).fit(*moons)
    assert np.array_equal(weights(ensemble), weights(expected))


@pytest.mark.slow
def test_members_do_not_depend_on_loky_nor_on_nesting(moons):
    """The module's class is local, as one from a notebook would be."""

    class Local(MLP):
        pass

    for net in (NET, clone(NET).set_params(module=Local)):
        expected = DeepEnsemble(net, 3, random_state=0).fit(*moons)
        ensemble = DeepEnsemble(net, 3, random_state=0, n_jobs=2).fit(*moons)
        assert np.array_equal(weights(ensemble), weights(expected))
        assert type(ensemble.estimators_[0].module_) is net.module
    scores = []
    for n_jobs in (None, 2):
        search = GridSearchCV(
            DeepEnsemble(NET, 2, random_state=0, n_jobs=n_jobs),
            {"estimator__module__width": [2, 8]},
            cv=2,
            n_jobs=n_jobs,
        )
        scores.append(search.fit(*moons).cv_results_["mean_test_score"])
    assert np.array_equal(*scores)


def test_scores_of_a_search_do_not_depend_on_threads(moons):
    def scores():
        ensemble = make_pipeline(StandardScaler(), DeepEnsemble(NET, 2, random_state=0, n_jobs=2))
        grid = {"deepensemble__estimator__module__width": [2, 8]}
        return GridSearchCV(ensemble, grid, cv=2).fit(*moons).cv_results_["mean_test_score"]

    expected = scores()
    with joblib.parallel_config("threading", n_jobs=2):
        assert np.array_equal(scores(), expected)


def test_none_draws_other_members_each_time(moons):
    ensemble = DeepEnsemble(NET, 2)
    first = weights(ensemble.fit(*moons))
    assert not np.array_equal(first, weights(ensemble.fit(*moons)))


def test_pipeline_as_estimator(moons):
    ensemble = DeepEnsemble(make_pipeline(StandardScaler(), NET), 2, random_state=0).fit(*moons)
    nets = [member[-1] for member in ensemble.estimators_]
    assert [net.random_state for net in nets] == ensemble.seeds_
    assert ensemble.predict_proba(moons[0]).shape == (96, 2)


def test_plain_skorch_nets_get_seeds_of_their_own(moons):
    X, y = moons[0].astype(np.float32), moons[1]
    state = torch.get_rng_state()
    ensemble = DeepEnsemble(skorch_net(), 2, random_state=0).fit(X, y)
    with joblib.parallel_config("threading", n_jobs=2):
        threaded = DeepEnsemble(skorch_net(), 2, random_state=0).fit(X, y)
    assert torch.equal(torch.get_rng_state(), state)
    assert not np.array_equal(*weights(ensemble))
    assert np.array_equal(weights(ensemble), weights(threaded))


def test_other_estimators_with_a_random_state(moons):
    ensemble = DeepEnsemble(SGDClassifier(), 3, random_state=0).fit(*moons)
    assert not hasattr(ensemble, "predict_proba")
    votes = np.mean([member.predict(moons[0]) for member in ensemble.estimators_], axis=0)
    assert np.array_equal(ensemble.predict(moons[0]), (votes > 0.5).astype(int))


# Predictions


def test_probabilities_are_the_mean_and_labels_their_argmax(moons):
    X, y = moons
    labels = np.array(["a", "b"])[y]
    ensemble = DeepEnsemble(NET, 3, random_state=0).fit(X, labels)
    mean = np.mean([net.predict_proba(X) for net in ensemble.estimators_], axis=0)
    assert np.allclose(ensemble.predict_proba(X), mean, atol=1e-7)
    assert ensemble.classes_.tolist() == ["a", "b"]
    assert np.array_equal(ensemble.predict(X), ensemble.classes_[mean.argmax(axis=1)])
    assert ensemble.score(X, labels) == np.mean(ensemble.predict(X) == labels)


@pytest.mark.parametrize("columns", [None, 2])
def test_regression_predicts_the_mean(columns, moons, targets):
    y = targets if columns is None else np.stack([targets] * columns, axis=1)
    net = NetRegressor(module__width=4, max_epochs=2)
    ensemble = DeepEnsemble(net, 3, random_state=0).fit(moons[0], y)
    mean = np.mean([net.predict(moons[0]) for net in ensemble.estimators_], axis=0)
    assert ensemble.predict(moons[0]).shape == y.shape
    assert np.allclose(ensemble.predict(moons[0]), mean)
    assert not hasattr(ensemble, "predict_proba")
    assert not hasattr(ensemble, "classes_")


def test_kind_follows_the_estimator():
    assert is_classifier(DeepEnsemble(NET))
    assert is_regressor(DeepEnsemble(NetRegressor()))


def test_cross_validation(moons):
    assert cross_val_score(DeepEnsemble(NET, 2, random_state=0), *moons, cv=3).shape == (3,)


# What is shown


def test_silent_unless_asked(moons, capsys):
    noisy = clone(NET).set_params(verbose=1)
    DeepEnsemble(noisy, 2, random_state=0).fit(*moons)
    assert capsys.readouterr() == ("", "")


def test_bar_tells_the_last_loss(moons, capsys):
    ensemble = DeepEnsemble(NET, 2, random_state=0, verbose=1).fit(*moons)
    loss = ensemble.estimators_[-1].history[-1, "train_loss"]
    captured = capsys.readouterr()
    assert f"train_loss {loss:.4f}" in captured.err
    assert captured.out == ""


def test_verbose_two_gives_a_line_for_each_member(moons, capsys):
    with joblib.parallel_config("multiprocessing", n_jobs=2):
        DeepEnsemble(NET, 3, random_state=0, verbose=2).fit(*moons)
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [line.split(":")[0] for line in lines] == [f"DeepEnsemble {i}/3" for i in (1, 2, 3)]


# What goes wrong


@pytest.mark.filterwarnings("ignore:NetClassifier. training diverged")
def test_diverged_members_are_named_and_left_out(moons):
    net = NetClassifier(Explosive, max_epochs=1)
    with pytest.warns(DivergedMemberWarning, match="diverged in members") as caught:
        ensemble = DeepEnsemble(net, 6, random_state=0).fit(*moons)
    bad = [i for i, vector in enumerate(weights(ensemble)) if not np.isfinite(vector).all()]
    assert 0 < len(bad) < 6
    assert ensemble.diverged_ == bad
    own = [str(w.message) for w in caught if w.category is DivergedMemberWarning]
    assert f"members {', '.join(map(str, bad))} of 6" in own[0]
    good = [net for i, net in enumerate(ensemble.estimators_) if i not in bad]
    mean = np.mean([net.predict_proba(moons[0]) for net in good], axis=0)
    assert np.allclose(ensemble.predict_proba(moons[0]), mean, atol=1e-7)


@pytest.mark.filterwarnings("ignore:NetClassifier. training diverged")
def test_nothing_left_is_an_error(moons):
    net = NetClassifier(Explosive, module__always=True, max_epochs=1)
    with pytest.raises(NonFiniteError, match="diverged in all 2 members"):
        DeepEnsemble(net, 2, random_state=0).fit(*moons)


def test_failing_member_is_named(moons):
    with pytest.raises(ValueError, match="one class") as caught:
        DeepEnsemble(NET, 2, vectorize=False, random_state=0).fit(moons[0], np.zeros(96))
    assert caught.value.__notes__ == ["This happened in member 0."]


class Interrupting(MLP):
    def forward(self, x):
        raise KeyboardInterrupt


def test_interrupt_ends_the_ensemble(moons):
    """skorch swallows it, and keeps a net that is not trained to the end."""
    net = clone(NET).set_params(module=Interrupting)
    assert net.fit(*moons).initialized_
    with pytest.raises(KeyboardInterrupt, match="member 0"):
        DeepEnsemble(net, 2, vectorize=False, random_state=0).fit(*moons)


def test_callbacks_may_stop_members_early(moons):
    stop = EarlyStopping("train_loss", patience=1, threshold=0.99)
    net = clone(NET).set_params(max_epochs=50, callbacks=[stop])
    ensemble = DeepEnsemble(net, 2, random_state=0).fit(*moons)
    assert all(len(member.history) < 50 for member in ensemble.estimators_)


@pytest.mark.parametrize(
    "ensemble, error, match",
    [
        (DeepEnsemble(NET, 0), ValueError, "'n_estimators' parameter of DeepEnsemble"),
        (DeepEnsemble(NET, vectorize="yes"), ValueError, "'vectorize' parameter .* Got 'yes'"),
        (DeepEnsemble("net"), ValueError, "'estimator' parameter of DeepEnsemble"),
        (DeepEnsemble(KMeans()), TypeError, "must be a classifier or a regressor"),
        (DeepEnsemble(KNeighborsClassifier()), ValueError, "has no random_state"),
        (
            DeepEnsemble(NetClassifier(MLP(2, 2))),
            TypeError,
            r"DeepEnsemble got a net whose 'module' is an instance \(MLP\)",
        ),
        (
            DeepEnsemble(make_pipeline(StandardScaler(), skorch.NeuralNetClassifier(MLP(2, 2)))),
            TypeError,
            r"DeepEnsemble got a net whose 'module' is an instance \(MLP\)",
        ),
    ],
)
def test_bad_values_are_named(ensemble, error, match, moons):
    with pytest.raises(error, match=match):
        ensemble.fit(*moons)
