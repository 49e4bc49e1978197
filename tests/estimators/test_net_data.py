"""The data that NetClassifier and NetRegressor take."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from sklmc import NetClassifier
from tests.estimators.modules import Convolutional, InPlace, TokenClassifier
from tests.estimators.nets import NETS, Recorder, small, weights


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
