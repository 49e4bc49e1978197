"""What NetClassifier and NetRegressor share: parameters, random numbers, data, skorch's own."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import random

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, LRScheduler
from skorch.dataset import ValidSplit

from sklmc import NetClassifier
from sklmc._torch import seeded
from sklmc.estimators._seeds import epoch_seed
from sklmc.nets import MLP
from tests.estimators.modules import Convolutional, InPlace, Noisy, TokenClassifier
from tests.estimators.nets import NETS, small


def weights(net):
    return torch.cat([p.detach().ravel() for p in net.module_.parameters()])


def global_generators():
    numpy_state = np.random.get_state()  # noqa: NPY002
    return (
        torch.get_rng_state().tolist(),
        numpy_state[1].tolist(),
        numpy_state[2:],
        random.getstate(),
    )


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


# Random numbers


@pytest.mark.parametrize("kind", NETS)
def test_same_seed_same_bits_whatever_ran_before(kind, moons):
    first = small(kind).fit(*moons)
    torch.rand(3)
    np.random.standard_normal(3)  # noqa: NPY002
    assert torch.equal(weights(first), weights(small(kind).fit(*moons)))
    assert not torch.equal(weights(first), weights(small(kind, random_state=1).fit(*moons)))


def test_none_draws_afresh_each_time(moons):
    net = small(random_state=None)
    first = weights(net.fit(*moons))
    assert not torch.equal(first, weights(net.fit(*moons)))
    repeated = small(random_state=net.seed_).fit(*moons)
    assert torch.equal(weights(net), weights(repeated))


@pytest.mark.parametrize("random_state", [0, None])
def test_global_generators_stay_as_they_were(random_state, moons):
    before = global_generators()
    net = small(random_state=random_state, train_split=ValidSplit(0.3, stratified=True)).fit(*moons)
    net.partial_fit(*moons)
    net.predict(moons[0])
    assert global_generators() == before


def test_module_is_built_on_the_seed():
    net = small(max_epochs=0, random_state=5).fit(np.eye(3), [0, 1, 2])
    with seeded(5):
        module = MLP(3, 3, width=8)
    assert torch.equal(weights(net), torch.cat([p.detach().ravel() for p in module.parameters()]))


class Recorder(Callback):
    """Keeps the inputs of all training batches."""

    def __init__(self):
        self.epochs = []

    def on_epoch_begin(self, net, **kwargs):
        self.epochs.append([])

    def on_batch_begin(self, net, batch, training, **kwargs):
        if training:
            self.epochs[-1].append(batch[0])


def test_each_epoch_takes_its_order_from_its_own_seed(moons):
    X, y = moons
    recorder = Recorder()
    small(callbacks=[recorder], random_state=3, max_epochs=3).fit(X, y)
    for epoch, batches in enumerate(recorder.epochs):
        with seeded(epoch_seed(3, epoch)):
            order = torch.randperm(len(X)).numpy()
        assert np.array_equal(torch.cat(batches).numpy(), X[order].astype(np.float32))


@pytest.mark.parametrize("module", [MLP, Noisy])
def test_partial_fit_goes_on_where_fit_ended(module, moons):
    whole = NetClassifier(module, max_epochs=4, random_state=0).fit(*moons)
    half = NetClassifier(module, max_epochs=2, random_state=0).fit(*moons)
    assert torch.equal(weights(half.partial_fit(*moons)), weights(whole))
    warm = NetClassifier(module, max_epochs=2, random_state=0, warm_start=True)
    assert torch.equal(weights(warm.fit(*moons).fit(*moons)), weights(whole))
    restarted = NetClassifier(module, max_epochs=2, random_state=0).fit(*moons).fit(*moons)
    assert not torch.equal(weights(restarted), weights(whole))


def test_bits_do_not_depend_on_the_number_of_threads(moons):
    X = np.random.default_rng(0).random((300, 200))
    y = np.arange(300) % 3
    before = torch.get_num_threads()
    fitted = []
    try:
        for n_threads in (1, 4):
            torch.set_num_threads(n_threads)
            net = small(module__width=300, batch_size=-1).fit(X, y)
            fitted.append((weights(net), net.predict_proba(X)))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(fitted[0][0], fitted[1][0])
    assert np.array_equal(fitted[0][1], fitted[1][1])


class Counting(MLP):
    """Notes how many threads each pass may use."""

    seen: list[int] = []

    def forward(self, x):
        self.seen.append(torch.get_num_threads())
        return super().forward(x)


def test_training_and_prediction_run_on_one_thread(moons):
    Counting.seen.clear()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        net = small(module=Counting).fit(*moons)
        net.predict(moons[0])
        net.forward(moons[0])
    finally:
        torch.set_num_threads(before)
    assert set(Counting.seen) == {1}


# Data


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize(
    "convert",
    [
        lambda X: X.astype(np.float32),
        lambda X: X.astype(np.float64),
        lambda X: X.astype(np.float16),
        lambda X: X.astype(np.int32),
        lambda X: X.astype(bool),
        lambda X: X.astype(object),
        lambda X: X.tolist(),
        lambda X: np.asfortranarray(X),
        lambda X: X.astype(">f8"),
        lambda X: torch.from_numpy(X),
        lambda X: torch.from_numpy(X).float().requires_grad_(),
        lambda X: pd.DataFrame(X, columns=["a", "b"]).astype({"a": "float32", "b": "Int64"}),
        lambda X: pd.DataFrame(X, columns=["a", "b"]).astype(object),
    ],
)
def test_any_array_like_gives_the_same_net(kind, convert):
    X = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]] * 3)
    y = np.array([0, 1, 1, 0] * 3)
    expected = small(kind).fit(X, y)
    net = small(kind).fit(convert(X), y)
    assert torch.equal(weights(net), weights(expected))
    assert np.array_equal(net.predict(convert(X)), expected.predict(X))


def test_frame_columns_are_checked_at_predict(moons):
    frame = pd.DataFrame(moons[0], columns=["a", "b"])
    net = small().fit(frame, moons[1])
    assert net.feature_names_in_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="feature names"):
        net.predict(frame[["b", "a"]])
    with pytest.raises(ValueError, match="feature names"):
        net.predict(frame.rename(columns={"a": "z"}))


def test_images_reach_the_module_with_their_channels():
    images = np.random.default_rng(0).integers(0, 256, (20, 2, 4, 4), dtype=np.uint8)
    net = NetClassifier(Convolutional, max_epochs=1, random_state=0).fit(images, np.arange(20) % 3)
    assert net.module_.conv.in_channels == 2
    assert net.module_.output.out_features == 3
    assert net._model_sample().shape == (2, 2, 4, 4)
    assert net.predict_proba(images).shape == (20, 3)


def test_sizes_that_the_user_set_win():
    images = np.zeros((20, 2, 4, 4))
    net = NetClassifier(Convolutional, module__n_channels=3, max_epochs=1)
    with pytest.raises(ValueError, match=r"Convolutional cannot take a batch of shape \(20, 2, 4"):
        net.fit(images, np.arange(20) % 3)


def test_mlp_takes_images():
    images = np.random.default_rng(0).random((20, 2, 4, 4))
    net = small().fit(images, np.arange(20) % 3)
    assert net.module_.layers[0].in_features == 32


def test_token_ids_keep_their_dtype():
    tokens = np.random.default_rng(0).integers(0, 10, (20, 5))
    net = NetClassifier(TokenClassifier, dtype=None, max_epochs=1, random_state=0)
    net.fit(tokens.tolist(), np.arange(20) % 3)
    assert net._model_sample().dtype == np.int64
    assert net.predict(tokens).shape == (20,)


def test_foreign_byte_order_of_token_ids():
    tokens = np.random.default_rng(0).integers(0, 10, (20, 5))
    net = NetClassifier(TokenClassifier, dtype=None, max_epochs=1, random_state=0)
    expected = net.fit(tokens, np.arange(20) % 3).predict_proba(tokens)
    foreign = tokens.astype(tokens.dtype.newbyteorder())
    assert np.array_equal(net.fit(foreign, np.arange(20) % 3).predict_proba(foreign), expected)


def test_module_that_cannot_take_the_dtype_says_so():
    tokens = np.random.default_rng(0).integers(0, 10, (20, 5))
    net = NetClassifier(TokenClassifier, max_epochs=1)
    with pytest.raises(ValueError, match=r"dtype float32.*'dtype' \(None keeps integers\)"):
        net.fit(tokens, np.arange(20) % 3)


@pytest.mark.parametrize("kind", NETS)
def test_float64_computes_in_float64(kind, moons):
    net = small(kind, dtype="float64").fit(*moons)
    assert {p.dtype for p in net.module_.parameters()} == {torch.float64}
    assert net._model_input(moons[0]).dtype == np.float64


def test_data_handed_in_stay_as_they_were(moons):
    X = moons[0].astype(np.float32)
    before = X.copy()
    net = NetClassifier(InPlace, max_epochs=2, random_state=0).fit(X, moons[1])
    net.predict(X)
    assert np.array_equal(X, before)


def test_dataset_and_dict_go_to_skorch_as_they_are(moons):
    X, y = moons[0].astype(np.float32), moons[1]
    expected = small().fit(X, y)
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.tensor(y))
    by_dataset = small(max_epochs=2).fit(dataset, None)
    assert by_dataset.classes_.tolist() == [0, 1]
    assert by_dataset.predict(dataset).shape == y.shape
    by_dict = small(module__n_features=2).fit({"x": X}, y)
    assert np.array_equal(by_dict.predict({"x": X}), by_dict.predict({"x": X.copy()}))
    assert by_dict.module_.layers[-1].out_features == expected.module_.layers[-1].out_features
    with pytest.raises(ValueError, match="shape of a sample is not known"):
        by_dict._model_sample()


def test_labels_inside_a_dataset_must_be_codes(moons):
    dataset = torch.utils.data.TensorDataset(
        torch.tensor(moons[0]).float(), torch.tensor(moons[1] + 1)
    )
    with pytest.raises(ValueError, match=r"must be 0, 1, \.\.\., n_classes - 1, found \[1, 2\]"):
        small().fit(dataset, None)


def test_last_batch_of_one_is_left_out_under_batch_norm(moons):
    X, y = moons[0][:33], moons[1][:33]
    recorder = Recorder()
    small(module__norm="batch", callbacks=[recorder]).fit(X, y)
    assert [len(batch) for batch in recorder.epochs[0]] == [32]
    recorder = Recorder()
    small(module__norm="layer", callbacks=[recorder]).fit(X, y)
    assert [len(batch) for batch in recorder.epochs[0]] == [32, 1]


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
