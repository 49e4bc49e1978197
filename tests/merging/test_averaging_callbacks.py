"""Averages along one training: what enters them, and what the net holds when."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, EpochScoring, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sklmc import DeepEnsemble, NetClassifier, NetRegressor, merge_models
from sklmc.exceptions import SklmcWarning
from sklmc.merging import ExponentialMovingAverage, StochasticWeightAveraging
from sklmc.merging._running_average import RunningAverage
from sklmc.models import view
from sklmc.nets import MLP
from tests.merging.runs import PAGES, X, Y, average_of, bits, net, run

BOTH = pytest.mark.parametrize(
    "make",
    [lambda **o: ExponentialMovingAverage(0.9, **o), lambda **o: StochasticWeightAveraging(2, **o)],
    ids=["ema", "swa"],
)


def reference(modules, **rule):
    average = AveragedModel(modules[0], **rule)
    for module in modules:
        average.update_parameters(module)
    return average.module


# what enters


@pytest.mark.parametrize("unit, cycle", [("step", 1), ("step", 4), ("epoch", 1), ("epoch", 2)])
def test_exponential_average_is_that_of_swa_utils_bit_for_bit(unit, cycle):
    ema = ExponentialMovingAverage(0.9, warmup=False, cycle=cycle, unit=unit)
    fitted, ema, pages = run(ema)
    taken = pages[unit][::cycle]
    assert bits(fitted) == bits(reference(taken, multi_avg_fn=get_ema_multi_avg_fn(0.9)))
    assert ema.n_averaged_ == len(taken)


def test_decay_of_a_young_average_is_small():
    fitted, _, pages = run(ExponentialMovingAverage(0.5, unit="step"))
    average = pages["step"][0].layers[0].weight.detach().double()
    for n, module in enumerate(pages["step"][1:], 1):
        decay = min(0.5, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * module.layers[0].weight.detach()
    assert len(pages["step"]) == 18  # the decay is .5 from update 8 on
    weight = fitted.module_.layers[0].weight.detach().double()
    torch.testing.assert_close(weight, average, rtol=0, atol=1e-6)  # float32 sums


def test_mean_of_steps_begins_with_the_epoch_after_start():
    fitted, swa, pages = run(StochasticWeightAveraging(start=4, unit="step", cycle=2))
    assert bits(fitted) == bits(reference(pages["step"][12::2]))
    assert swa.n_averaged_ == 3


@BOTH
def test_training_itself_is_not_disturbed(make):
    _, average, pages = run(make(), module__norm="batch")
    alone = net(module__norm="batch").fit(X, Y)
    last = [tensor.numpy().tobytes() for tensor in average.last_state_.values()]
    assert bits(alone) == last
    assert bits(alone) == bits(pages["epoch"][-1])


@BOTH
def test_randomness_of_plain_nets_is_not_disturbed(make):
    """Reading batches again draws from the generators that shuffle plain nets' next epoch."""

    def train(*callbacks):
        torch.manual_seed(0)
        return NeuralNetClassifier(
            MLP,
            module__n_features=3,
            module__n_outputs=2,
            module__norm="batch",
            criterion=nn.CrossEntropyLoss,
            max_epochs=4,
            batch_size=16,
            iterator_train__shuffle=True,
            train_split=ValidSplit(5),
            verbose=0,
            callbacks=list(callbacks),
        ).fit(X, Y)

    averaged = average_of(train(("average", make())))
    last = [tensor.numpy().tobytes() for tensor in averaged.last_state_.values()]
    assert last == bits(train())


def test_low_precision_is_averaged_in_float32():
    """A bfloat16 of size one does not move by less than 1 / 256."""
    module = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    average = RunningAverage(0.999)
    with torch.no_grad():
        module.weight.fill_(1.0)
        average.update(module)
        module.weight.fill_(2.0)
        for _ in range(2000):
            average.update(module)
    state = average.state_for(module)
    assert state["weight"].dtype is torch.bfloat16
    assert float(state["weight"]) == pytest.approx(2 - 0.999**2000, abs=1 / 128)


def test_tied_weights_stay_tied_and_enter_once():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight
    average = RunningAverage()
    average.update(module)
    first = module[0].weight.detach().clone()
    with torch.no_grad():
        module[0].weight += 1.0
    average.update(module)
    assert average.tensors["0.weight"] is average.tensors["1.weight"]
    torch.testing.assert_close(average.tensors["1.weight"], first + 0.5)


# validating with the average


def valid_loss(fitted, module):
    """Return the loss of a module on the samples that a net validates on."""
    rows = fitted.get_split_datasets(X, Y)[1].indices
    with torch.no_grad():
        logits = module(torch.from_numpy(X[rows]))
    return float(nn.functional.cross_entropy(logits, torch.from_numpy(Y[rows])))


@BOTH
def test_score_is_the_validation_loss_of_the_average(make):
    fitted, _, pages = run(make(), lr=1.0)
    history = fitted.history
    assert history[-1, "valid_loss_avg"] == pytest.approx(valid_loss(fitted, fitted.module_))
    own = valid_loss(fitted, pages["epoch"][-1])
    assert history[-1, "valid_loss"] == pytest.approx(own)
    assert history[-1, "valid_loss_avg"] != history[-1, "valid_loss"]
    losses = history[:, "valid_loss_avg"]
    lowest = [loss < min([np.inf, *losses[:k]]) for k, loss in enumerate(losses)]
    assert history[:, "valid_loss_avg_best"] == lowest
    assert not all(lowest)
    assert history[:, "valid_loss"] == net(lr=1.0).fit(X, Y).history[:, "valid_loss"]


def test_score_is_that_of_the_net_until_averaging_begins():
    history = run(StochasticWeightAveraging(start=4))[0].history
    assert history[:4, "valid_loss_avg"] == history[:4, "valid_loss"]
    assert history[5, "valid_loss_avg"] != history[5, "valid_loss"]


def test_score_counts_weights_of_samples_as_the_net_does():
    weights = np.linspace(0.1, 3.0, 60)
    fitted = net(("average", ExponentialMovingAverage(0.0))).fit(X, Y, sample_weight=weights)
    assert fitted.history[:, "valid_loss_avg"] == fitted.history[:, "valid_loss"]
    assert fitted.history[0, "valid_loss"] != net().fit(X, Y).history[0, "valid_loss"]


@BOTH
def test_without_validation_set_there_is_no_score(make):
    fitted, _, _ = run(make(), train_split=None)
    assert "valid_loss_avg" not in fitted.history[-1]


def test_scores_of_regressors():
    ema = ("average", ExponentialMovingAverage(0.9))
    fitted = NetRegressor(
        max_epochs=3, train_split=ValidSplit(5), callbacks=[ema], random_state=0
    ).fit(X, X[:, 0])
    rows = fitted.get_split_datasets(X, X[:, :1])[1].indices
    loss = np.mean((fitted.predict(X[rows]) - X[rows, 0]) ** 2)
    assert fitted.history[-1, "valid_loss_avg"] == pytest.approx(loss)


# callbacks that stand behind


@BOTH
def test_callbacks_behind_see_the_average(make, tmp_path):
    accuracy = EpochScoring("accuracy", name="valid_acc_avg", use_caching=False)
    checkpoint = Checkpoint(monitor="valid_loss_avg_best", dirname=str(tmp_path), f_optimizer=None)
    fitted, _, pages = run(make(), ("accuracy", accuracy), ("checkpoint", checkpoint))
    best = int(np.argmin(fitted.history[:, "valid_loss_avg"]))
    saved = torch.load(tmp_path / "params.pt", weights_only=True)
    module = copy.deepcopy(pages["epoch"][best])
    module.load_state_dict(saved)
    assert valid_loss(fitted, module) == pytest.approx(fitted.history[best, "valid_loss_avg"])
    rows = fitted.get_split_datasets(X, Y)[1].indices
    assert fitted.history[-1, "valid_acc_avg"] == fitted.score(X[rows], Y[rows])


def test_best_average_can_be_kept_and_gone_on_from(tmp_path):
    stop = EarlyStopping(monitor="valid_loss_avg", patience=2, load_best=True)
    fitted, _, _ = run(ExponentialMovingAverage(0.5), ("stop", stop), lr=0.5, max_epochs=20)
    losses = fitted.history[:, "valid_loss_avg"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3
    assert valid_loss(fitted, fitted.module_) == pytest.approx(losses[best])
    before = bits(fitted)
    fitted.set_params(lr=0.0, max_epochs=1).partial_fit(X, Y)
    last = [tensor.numpy().tobytes() for tensor in average_of(fitted).last_state_.values()]
    assert last == before


def test_schedules_follow_the_average():
    plateau = LRScheduler("ReduceLROnPlateau", monitor="valid_loss_avg", patience=0, threshold=10)
    fitted, _, _ = run(ExponentialMovingAverage(0.9), ("plateau", plateau))
    assert fitted.optimizer_.param_groups[0]["lr"] < 0.01


@pytest.mark.parametrize("monitor", ["valid_loss_avg", "valid_loss_avg_best"])
def test_callbacks_before_are_refused_by_name(monitor):
    stop = ("stop", EarlyStopping(monitor=monitor))
    said = f"EarlyStopping, which monitors '{monitor}', before Exponential.*behind Exponential"
    with pytest.raises(ValueError, match=said):
        net(stop, ("average", ExponentialMovingAverage())).fit(X, Y)


def test_monitors_without_validation_set_are_refused_by_name():
    stop = ("stop", EarlyStopping(monitor="valid_loss_avg"))
    with pytest.raises(ValueError, match=r"EarlyStopping, which .*there is no validation set"):
        net(("average", ExponentialMovingAverage()), stop, train_split=None).fit(X, Y)


def test_a_second_average_is_refused():
    two = [("one", StochasticWeightAveraging()), ("two", ExponentialMovingAverage())]
    with pytest.raises(ValueError, match=r"StochasticWeightAveraging and Exponential.*one average"):
        net(*two).fit(X, Y)


# going on


@BOTH
@pytest.mark.parametrize("pickled", [False, True])
def test_two_halves_make_the_whole(make, pickled):
    options = {"module__norm": "batch"}
    half = net(("average", make()), max_epochs=3, **options).fit(X, Y)
    half = pickle.loads(pickle.dumps(half)) if pickled else half
    half.partial_fit(X, Y)
    whole = net(("average", make()), max_epochs=6, **options).fit(X, Y)
    assert bits(half) == bits(whole)
    for name in ("valid_loss_avg", "valid_loss_avg_best"):
        assert half.history[:, name] == whole.history[:, name]


@BOTH
def test_saved_parameters_and_state_make_the_whole(make, tmp_path):
    def plain(epochs):
        return NeuralNetClassifier(
            MLP,
            module__n_features=3,
            module__n_outputs=2,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            max_epochs=epochs,
            batch_size=16,
            train_split=ValidSplit(5),
            verbose=0,
            callbacks=[("average", make())],
        )

    torch.manual_seed(0)
    whole = plain(6).fit(X, Y)
    torch.manual_seed(0)
    half = plain(3).fit(X, Y)
    files = {f"f_{name}": str(tmp_path / name) for name in ("params", "optimizer", "history")}
    half.save_params(**files)
    torch.save(average_of(half).state_dict(), tmp_path / "average")
    again = plain(3).initialize()
    again.load_params(**files)
    average_of(again).load_state_dict(torch.load(tmp_path / "average", weights_only=True))
    again.partial_fit(X, Y)
    assert bits(again) == bits(whole)
    for name in ("valid_loss_avg", "valid_loss_avg_best"):
        assert again.history[:, name] == whole.history[:, name]


@pytest.mark.parametrize("state", [None, {"average": None}])
def test_state_of_something_else_is_refused(state):
    with pytest.raises(ValueError, match="'state' must be what state_dict"):
        ExponentialMovingAverage().load_state_dict(state)


def test_state_is_a_snapshot():
    fitted, average, _ = run(ExponentialMovingAverage(0.9))
    state = average.state_dict()
    before = pickle.dumps(state)
    average.load_state_dict(state)
    fitted.partial_fit(X, Y)
    assert pickle.dumps(state) == before


@pytest.mark.parametrize("merged", [False, True])
def test_averaging_begins_anew_from_other_weights(merged):
    fitted, _, _ = run(ExponentialMovingAverage(0.9))
    other = net(random_state=1).fit(X, Y)
    if merged:
        fitted = merge_models([fitted, other], aligner=None, repair=None)
    else:
        fitted.module_.load_state_dict(other.module_.state_dict())
    before = bits(fitted)
    fitted.set_params(lr=0.0, max_epochs=1).partial_fit(X, Y)
    last = [tensor.numpy().tobytes() for tensor in average_of(fitted).last_state_.values()]
    assert last == before == bits(fitted)
    assert average_of(fitted).n_averaged_ == 3


def test_warm_start_goes_on_and_fit_begins_anew():
    fitted, _, _ = run(ExponentialMovingAverage(0.9, cycle=4))
    before = bits(fitted), fitted.history[:, "valid_loss_avg_best"]
    fitted.fit(X, Y)
    assert (bits(fitted), fitted.history[:, "valid_loss_avg_best"]) == before
    assert average_of(fitted.set_params(warm_start=True).fit(X, Y)).n_averaged_ == 9


def test_module_of_another_size_begins_anew():
    fitted, _, _ = run(StochasticWeightAveraging(start=2))
    with pytest.warns(SklmcWarning, match="other tensors than .*averaging begins anew"):
        fitted.set_params(module__width=4).partial_fit(X, Y)
    assert average_of(fitted).n_averaged_ == 6
    assert fitted.module_.layers[0].weight.shape == (4, 3)


class Interrupt(Callback):
    """Stops the training in the middle of an epoch, as a user would."""

    def on_batch_begin(self, net, **kwargs):
        if len(PAGES["step"]) == 7:
            raise KeyboardInterrupt


def test_interrupted_training_keeps_the_average():
    ema = ExponentialMovingAverage(0.9, warmup=False)
    fitted, ema, pages = run(ema, ("interrupt", Interrupt()))
    assert ema.n_averaged_ == 7
    assert bits(fitted) == bits(reference(pages["step"], multi_avg_fn=get_ema_multi_avg_fn(0.9)))


# the net as an estimator


@BOTH
def test_fitted_nets_are_cloned_and_pickled_without_their_data(make, tmp_path):
    path = tmp_path / "net.pkl"
    keep = Checkpoint(monitor=None, f_pickle=str(path), f_params=None, f_optimizer=None)
    keep.set_params(f_criterion=None, f_history=None)
    fitted, _, _ = run(make(), ("keep", keep))
    fresh = clone(fitted)
    assert bits(fresh.fit(X, Y)) == bits(fitted)
    assert not [name for name in fitted.get_params() if "average___" in name]
    assert "_dataset" not in vars(average_of(pickle.loads(path.read_bytes())))


def test_jobs_and_backends_do_not_matter():
    estimator = net(("average", ExponentialMovingAverage(0.9)), max_epochs=2)
    one, two = (
        DeepEnsemble(estimator, 2, random_state=0, n_jobs=n_jobs).fit(X, Y) for n_jobs in (1, 2)
    )
    assert [bits(member) for member in one.estimators_] == [bits(m) for m in two.estimators_]


@pytest.mark.parametrize(
    "parameters, said",
    [
        ({"decay": 1.0}, r"'decay' must be a number in \[0, 1\), got 1.0"),
        ({"decay": None}, "'decay' must be a number"),
        ({"decay": True}, "'decay' must be a number"),
        ({"warmup": 1}, "'warmup' must be True or False"),
        ({"start": -1}, "'start' must be .* from 0 on, got -1"),
        ({"cycle": 1.5}, "'cycle' must be a number of steps from 1 on, got 1.5"),
        ({"unit": "batch"}, "'unit' must be one of 'epoch', 'step'"),
        ({"update_batch_norm": None}, "'update_batch_norm' must be True or False"),
    ],
)
def test_bad_parameters(parameters, said):
    with pytest.raises((TypeError, ValueError), match=f"ExponentialMovingAverage: {said}"):
        net(("average", ExponentialMovingAverage(**parameters))).fit(X, Y)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weights_that_a_pass_computes_enter():
    """Old-style weight norm keeps a computed tensor, which deepcopy refuses."""

    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.utils.weight_norm(nn.Linear(3, 2))

        def forward(self, x):
            return self.layer(x)

    ema = ("average", ExponentialMovingAverage(0.9))
    fitted = NetClassifier(Normed, max_epochs=2, callbacks=[ema], random_state=0).fit(X, Y)
    alone = NetClassifier(Normed, max_epochs=2, random_state=0).fit(X, Y)
    assert set(average_of(fitted).last_state_) == set(view(fitted, caller="test").state)
    assert bits(fitted) != bits(alone)
