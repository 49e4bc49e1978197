"""Averages along one training: the callback and the estimator."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import check_param_validation
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, LRScheduler
from torch import nn
from torch.optim.swa_utils import AveragedModel

from sklmc import NetClassifier, NetRegressor, SWAEnsembler
from sklmc.merging import StochasticWeightAveraging
from sklmc.merging._repairs._batch_norm import reestimate_statistics
from sklmc.models import view
from sklmc.nets import MLP
from tests.models.conftest import snapshot

X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
CODES = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(int)
Y = np.array(["no", "yes"])[CODES]


PAGES = []  # a clone of the net keeps a diary in the same place


class Diary(Callback):
    """Writes down weights and learning rate at the end of each epoch."""

    def on_epoch_end(self, net, **kwargs):
        rate = net.optimizer_.param_groups[0]["lr"]
        PAGES.append((copy.deepcopy(net.module_).eval(), rate))


def net(**parameters):
    return NetClassifier(**{"module__width": 6, "max_epochs": 8, "random_state": 0, **parameters})


def run(swa, epochs=8, **parameters):
    PAGES.clear()
    given = [("diary", Diary()), ("swa", swa)]
    fitted = net(callbacks=given, max_epochs=epochs, **parameters).fit(X, Y)
    return fitted, dict(fitted.callbacks_)["swa"], list(PAGES)


def reference(modules, avg_fn=None):
    average = AveragedModel(modules[0], avg_fn=avg_fn)
    for module in modules:
        average.update_parameters(module)
    return average.module


def bits(model):
    return [tensor.numpy().tobytes() for tensor in view(model, caller="test").state.values()]


# the callback


@pytest.mark.parametrize("start, cycle, taken", [(5, 1, [5, 6, 7]), (0.5, 2, [4, 6]), (7, 1, [7])])
def test_mean_is_that_of_swa_utils_bit_for_bit(start, cycle, taken):
    fitted, swa, pages = run(StochasticWeightAveraging(start=start, cycle=cycle))
    assert swa.n_averaged_ == len(taken)
    assert bits(fitted) == bits(reference([pages[i][0] for i in taken]))
    last = [tensor.numpy().tobytes() for tensor in swa.last_state_.values()]
    assert last == bits(pages[-1][0])


def test_statistics_are_those_of_all_training_samples():
    fitted, _, _ = run(StochasticWeightAveraging(start=5), module__norm="batch")
    look = view(fitted, caller="test")
    again = reestimate_statistics(look, look.state, look.to_input(X))
    assert bits(fitted) == [tensor.numpy().tobytes() for tensor in again.values()]
    kept, _, pages = run(
        StochasticWeightAveraging(start=5, update_batch_norm=False), module__norm="batch"
    )
    assert torch.equal(kept.module_.layers[1].running_mean, pages[-1][0].layers[1].running_mean)


def test_training_itself_is_not_disturbed():
    _, _, pages = run(StochasticWeightAveraging(start=3))
    alone = net(max_epochs=8).fit(X, Y)
    assert bits(alone) == bits(pages[-1][0])


def test_partial_fit_goes_on_where_training_had_ended():
    PAGES.clear()
    given = [("diary", Diary()), ("swa", StochasticWeightAveraging(start=3))]
    halves = net(callbacks=given, max_epochs=4).fit(X, Y).partial_fit(X, Y)
    pages = list(PAGES)
    whole, swa, _ = run(StochasticWeightAveraging(start=3), epochs=8)
    assert bits(pages[-1][0]) == [t.numpy().tobytes() for t in swa.last_state_.values()]
    assert bits(halves) == bits(whole)
    assert dict(halves.callbacks_)["swa"].n_averaged_ == 5


def test_new_fit_forgets_the_old_one():
    fitted, _, _ = run(StochasticWeightAveraging(start=5))
    before = bits(fitted)
    assert bits(fitted.fit(X, Y)) == before


def test_training_that_ends_before_the_start_stays_as_it_is():
    fitted, swa, pages = run(StochasticWeightAveraging(start=20))
    assert swa.n_averaged_ == 0
    assert bits(fitted) == bits(pages[-1][0])


def test_learning_rate_follows_the_schedule_of_the_paper():
    _, _, pages = run(StochasticWeightAveraging(start=10, swa_lr=0.002), epochs=14, lr=0.01)
    rates = [rate for _, rate in pages]
    ways = [0] * 6 + [0.25, 0.5, 0.75] + [1] * 5
    np.testing.assert_allclose(rates, [0.01 * (1 - w) + 0.002 * w for w in ways])


def test_plain_skorch_nets_take_the_callback():
    class Module(MLP):
        def __init__(self):
            super().__init__(3, 2, width=4, norm="batch")

    plain = NeuralNetClassifier(
        Module,
        criterion=nn.CrossEntropyLoss,
        max_epochs=3,
        train_split=None,
        verbose=0,
        callbacks=[("swa", StochasticWeightAveraging(start=1))],
    )
    plain.fit(X, CODES)
    assert dict(plain.callbacks_)["swa"].n_averaged_ == 2
    assert plain.predict(X).shape == (60,)


def test_callback_inside_pipeline_search_and_pickle():
    given = [("swa", StochasticWeightAveraging(start=2))]
    pipeline = make_pipeline(StandardScaler(), net(callbacks=given, max_epochs=4))
    search = GridSearchCV(
        pipeline, {"netclassifier__callbacks__swa__start": [1, 2]}, cv=2, error_score="raise"
    ).fit(X, Y)
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))
    again[-1].partial_fit(X, Y)
    assert dict(again[-1].callbacks_)["swa"].n_averaged_ >= 4


@pytest.mark.parametrize(
    "parameters, said",
    [
        ({"start": 0}, "'start' must be a part of max_epochs in .0, 1. or a number .*got 0"),
        ({"start": 1.5}, "'start' must be .*got 1.5"),
        ({"start": True}, "'start' must be .*got True"),
        ({"cycle": 0}, "'cycle' must be a number of epochs from 1 on, got 0"),
        ({"swa_lr": -1.0}, "'swa_lr' must be finite and at least 0, got -1.0"),
        ({"unit": "batch"}, "'unit' must be one of 'epoch', 'step', got 'batch'"),
        ({"cycle": 0, "unit": "step"}, "'cycle' must be a number of steps from 1 on, got 0"),
    ],
)
def test_bad_parameters_of_the_callback(parameters, said):
    given = [("swa", StochasticWeightAveraging(**parameters))]
    with pytest.raises(ValueError, match=f"StochasticWeightAveraging: {said}"):
        net(callbacks=given).fit(X, Y)


class NoRate(torch.optim.Optimizer):
    """An optimizer that knows no learning rate."""

    def __init__(self, params, lr=None):
        super().__init__(params, {})

    def step(self, closure=None):
        return closure()


def test_optimizer_without_learning_rate_is_refused():
    given = [("swa", StochasticWeightAveraging(start=2, swa_lr=0.1))]
    with pytest.raises(ValueError, match=r"Averaging: the optimizer \(NoRate\) has no learning"):
        net(callbacks=given, optimizer=NoRate).fit(X, Y)
    with pytest.raises(ValueError, match=r"SWAEnsembler: the optimizer \(NoRate\) has no learning"):
        SWAEnsembler(net(optimizer=NoRate)).fit(X, Y)


# the estimator


def ensembler(**parameters):
    inner = parameters.pop("estimator", None) or net(max_epochs=3)
    return SWAEnsembler(inner, **{"n_snapshots": 4, "random_state": 0, **parameters})


@pytest.fixture(scope="module")
def fitted():
    return ensembler(swa_lr=0.02).fit(X, Y)


def test_snapshots_are_the_epochs_of_one_training():
    swa = ensembler().fit(X, Y)
    whole = net(max_epochs=7, random_state=0).fit(X, Y)
    assert bits(swa.snapshots_[-1]) == bits(whole)
    assert len({tuple(bits(one)) for one in swa.snapshots_}) == 4
    assert [one.max_epochs for one in swa.snapshots_] == [3] * 4


def test_weights_are_the_mean_of_swa_utils_bit_for_bit(fitted):
    wanted = reference([one.module_ for one in fitted.snapshots_])
    assert bits(fitted.estimator_) == bits(wanted)
    np.testing.assert_array_equal(fitted.predict(X), fitted.estimator_.predict(X))
    assert fitted.score(X, Y) == (fitted.predict(X) == Y).mean()


def test_learning_rate_is_the_given_or_the_last_one():
    PAGES.clear()
    diary = ("diary", Diary())
    scheduler = ("schedule", LRScheduler("StepLR", step_size=1, gamma=0.5))
    inner = net(max_epochs=3, callbacks=[diary, scheduler], lr=0.01)
    ensembler(estimator=inner).fit(X, Y)
    rates = [rate for _, rate in PAGES]
    assert rates[3:] == [rates[3]] * 4
    assert rates[3] < 0.01
    PAGES.clear()
    ensembler(estimator=inner, swa_lr=0.003).fit(X, Y)
    assert [rate for _, rate in PAGES][3:] == [0.003] * 4


def test_statistics_of_the_average_are_those_of_all_samples():
    swa = ensembler(estimator=net(module__norm="batch", max_epochs=2)).fit(X, Y)
    look = view(swa.estimator_, caller="test")
    again = reestimate_statistics(look, look.state, look.to_input(X))
    assert bits(swa.estimator_) == [tensor.numpy().tobytes() for tensor in again.values()]


def test_predictions_can_be_averaged_instead(fitted):
    swa = ensembler(swa_lr=0.02, average="predictions").fit(X, Y)
    # summed in double precision, as every mean of predictions
    mean = np.mean([one.predict_proba(X) for one in swa.snapshots_], axis=0, dtype=np.float64)
    np.testing.assert_array_equal(swa.predict_proba(X), mean.astype(np.float32))
    assert (swa.predict(X) == np.array(["no", "yes"])[mean.argmax(axis=1)]).all()
    assert bits(swa.estimator_) == bits(fitted.estimator_)
    values = X[:, 0] * 2
    regressor = ensembler(estimator=NetRegressor(max_epochs=2), average="predictions")
    regressor.fit(X, values)
    assert not hasattr(regressor, "predict_proba")
    mean = np.mean([one.predict(X) for one in regressor.snapshots_], axis=0, dtype=np.float64)
    np.testing.assert_array_equal(regressor.predict(X), mean.astype(np.float32))


def test_frozen_net_goes_on_as_a_copy():
    inner = net(max_epochs=3).fit(X, Y)
    before = (
        snapshot(inner.module_),
        len(inner.history),
        copy.deepcopy(inner.optimizer_.state_dict()["param_groups"]),
    )
    swa = SWAEnsembler(FrozenEstimator(inner), n_snapshots=2, swa_lr=0.02).fit(X, Y)
    assert snapshot(inner.module_) == before[0]
    assert len(inner.history) == before[1]
    assert inner.optimizer_.state_dict()["param_groups"] == before[2]
    assert bits(swa.estimator_) != bits(inner)
    same = SWAEnsembler(FrozenEstimator(inner), n_snapshots=4).fit(X, Y)
    assert bits(same.snapshots_[-1]) == bits(net(max_epochs=7).fit(X, Y))


def test_estimator_handed_in_is_not_touched():
    inner = net()
    before = inner.get_params(), sorted(vars(inner))
    ensembler(estimator=inner).fit(X, Y)
    assert (inner.get_params(), sorted(vars(inner))) == before


def test_plain_skorch_net_is_seeded():
    class Module(MLP):
        def __init__(self):
            super().__init__(3, 2, width=4)

    plain = NeuralNetClassifier(
        Module, criterion=nn.CrossEntropyLoss, max_epochs=2, train_split=None, verbose=0
    )
    state = torch.get_rng_state()
    one, two = (ensembler(estimator=plain).fit(X, CODES) for _ in range(2))
    assert bits(one) == bits(two)
    assert torch.equal(torch.get_rng_state(), state)


def test_composition_and_round_trip(fitted):
    pipeline = make_pipeline(StandardScaler(), ensembler())
    assert cross_val_score(pipeline, X, Y, cv=2).min() > 0.3
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    with pytest.raises(NotFittedError):
        clone(fitted).predict(X)


def test_bar(capsys):
    ensembler(verbose=0).fit(X, Y)
    assert capsys.readouterr().err == ""
    ensembler(verbose=1).fit(X, Y)
    shown = capsys.readouterr().err
    assert "4/4" in shown
    assert "train_loss" in shown


@pytest.mark.parametrize(
    "parameters, error, said",
    [
        ({"n_snapshots": 0}, InvalidParameterError, "'n_snapshots' parameter of SWAEnsembler"),
        ({"swa_lr": 0.0}, InvalidParameterError, "'swa_lr' parameter of SWAEnsembler"),
        ({"average": "both"}, InvalidParameterError, "'average' parameter of SWAEnsembler"),
        ({"estimator": 3}, InvalidParameterError, "'estimator' parameter of SWAEnsembler"),
        ({"estimator": StandardScaler()}, InvalidParameterError, "'estimator' parameter"),
        (
            {"estimator": make_pipeline(StandardScaler(), net())},
            TypeError,
            "must be a skorch net, got Pipeline.*put the SWAEnsembler into the Pipeline",
        ),
        ({"estimator": FrozenEstimator(net())}, NotFittedError, "NetClassifier that is not fit"),
        ({"estimator": NetClassifier(MLP(3, 2))}, TypeError, "SWAEnsembler got a net whose 'mod"),
    ],
)
def test_bad_parameters(parameters, error, said):
    with pytest.raises(error, match=f"(?s){said}"):
        ensembler(**parameters).fit(X, Y)


@pytest.mark.parametrize(
    "data, said",
    [
        ((X, None), "SWAEnsembler requires y"),
        ((X, Y[:3]), "SWAEnsembler: 'X' and 'y' must have the same length"),
        ((X * np.nan, Y), "contains NaN"),
    ],
)
def test_bad_data(data, said):
    with pytest.raises(ValueError, match=said):
        ensembler().fit(*data)


def test_parameters_are_validated():
    check_param_validation("SWAEnsembler", ensembler())
