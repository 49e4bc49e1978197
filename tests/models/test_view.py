"""What counts as a model, and what the other rooms may know of it."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklmc import NetClassifier, NetRegressor, average_models
from sklmc.models import ModelView, view
from tests.models.conftest import Chain, X, Y, chain, skorch_net

FAST = {"module__width": 3, "max_epochs": 1, "random_state": 0}


class Outer:
    """An estimator of ours: its estimator_ is the net."""

    def __init__(self, estimator_):
        self.estimator_ = estimator_
        self.fitted_on_ = "all"


def test_view_of_a_view_is_itself():
    look = view(chain(0), caller="f")
    assert view(look, caller="g") is look


def test_plain_module_has_no_task_and_no_classes():
    look = view(chain(0), caller="f")
    assert isinstance(look, ModelView)
    assert look.task is None
    assert look.classes is None
    assert look.net is None
    assert look.device == torch.device("cpu")


@pytest.mark.parametrize(
    "kind, task",
    [
        (NeuralNetClassifier, "classifier"),
        (NeuralNetBinaryClassifier, "classifier"),
        (NeuralNetRegressor, "regressor"),
    ],
)
def test_task_of_a_skorch_net(kind, task):
    net = kind(Chain).initialize()
    assert view(net, caller="f").task == task
    assert view(net, caller="f").classes is None


def test_task_of_a_bare_skorch_net_is_open():
    net = NeuralNet(Chain, criterion=nn.MSELoss).initialize()
    assert view(net, caller="f").task is None


def test_our_classifier_tells_its_classes():
    net = NetClassifier(**FAST).fit(X, np.array(["b", "a"])[Y])
    look = view(net, caller="f")
    assert look.classes.tolist() == ["a", "b"]
    assert look.to_target(["b", "a"]).tolist() == [1, 0]
    with pytest.raises(ValueError, match="'c'"):
        look.to_target(["c"])


def test_our_regressor_gives_float_targets():
    net = NetRegressor(**FAST).fit(X, X[:, 0])
    target = view(net, caller="f").to_target([1, 2])
    assert target.dtype == torch.float64
    assert view(net, caller="f").task == "regressor"
    assert view(net, caller="f").classes is None


def test_plain_skorch_classifier_takes_floats_as_codes():
    assert view(skorch_net(0), caller="f").to_target([1.0, 0.0]).tolist() == [1, 0]
    assert view(skorch_net(0), caller="f").to_target([1.0, 0.0]).dtype == torch.int64


def test_our_net_checks_its_input():
    look = view(NetClassifier(**FAST).fit(pd.DataFrame(X, columns=list("abc")), Y), caller="f")
    assert look.to_input(pd.DataFrame(X, columns=list("abc"))).args[0].dtype == torch.float32
    with pytest.raises(ValueError, match=r"features|feature names"):
        look.to_input(pd.DataFrame(X[:, :2], columns=list("ab")))
    with pytest.raises(ValueError, match="feature names"):
        look.to_input(pd.DataFrame(X, columns=list("abd")))
    with pytest.raises(ValueError, match="NaN"):
        look.to_input(pd.DataFrame(X * np.nan, columns=list("abc")))


# the same kind comes back


def test_frozen_estimators_come_back_frozen():
    nets = [FrozenEstimator(skorch_net(seed)) for seed in range(2)]
    merged = average_models(nets)
    assert isinstance(merged, FrozenEstimator)
    assert merged.estimator is not nets[0].estimator
    make_pipeline(StandardScaler(), merged).fit(X, Y).predict(X)


def test_estimators_around_nets_come_back_around_nets():
    outer = Outer(FrozenEstimator(skorch_net(0)))
    inner = outer.estimator_
    merged = average_models([outer, skorch_net(1)])
    assert isinstance(merged, Outer)
    assert isinstance(merged.estimator_, FrozenEstimator)
    assert merged.fitted_on_ == "all"
    assert outer.estimator_ is inner
    assert merged.estimator_ is not inner


def test_rebuilt_classifier_predicts_labels():
    labels = np.array(["no", "yes"])[Y]
    nets = [NetClassifier(**{**FAST, "random_state": s}).fit(X, labels) for s in range(2)]
    merged = average_models(nets)
    assert set(merged.predict(X)) <= {"no", "yes"}
    assert merged.n_features_in_ == 3
    assert merged.get_params(deep=False) == nets[0].get_params(deep=False)


def test_state_is_a_window_on_the_model():
    module = chain(0)
    state = view(module, caller="f").state
    assert list(state) == list(module.state_dict())
    assert all(not tensor.requires_grad for tensor in state.values())
    assert state["0.weight"].data_ptr() == module[0].weight.data_ptr()


# what is no model


@pytest.mark.parametrize(
    "model, error, said",
    [
        (None, TypeError, "must be a fitted skorch net, .*got NoneType"),
        (3, TypeError, ".*torch.nn.Module, got int"),
        (nn.Linear, TypeError, "is the class Linear; pass a fitted net or an instance"),
        (NetClassifier(), NotFittedError, "is a NetClassifier that is not fitted; call fit first"),
        (NeuralNetClassifier(Chain), NotFittedError, "NeuralNetClassifier that is not fitted"),
        (FrozenEstimator(NetClassifier()), NotFittedError, "NetClassifier that is not fitted"),
        (GridSearchCV(NetClassifier(), {}), NotFittedError, "GridSearchCV that is not fitted"),
        (StandardScaler(), TypeError, "must be .*got StandardScaler"),
    ],
)
def test_no_model_is_refused_by_name(model, error, said):
    with pytest.raises(error, match=f"f: 'a' (is a )?{said}"):
        view(model, caller="f", name="a")


def test_many_nets_are_not_one_model():
    net = skorch_net(0)
    with pytest.raises(TypeError, match=r"BaggingClassifier, which holds many nets; .*estimators_"):
        view(BaggingClassifier(net, n_estimators=2).fit(X, Y), caller="f")
    with pytest.raises(TypeError, match="GridSearchCV; pass its best_estimator_"):
        view(GridSearchCV(net, {"lr": [0.1]}, cv=2).fit(X, Y), caller="f")
    with pytest.raises(TypeError, match="Pipeline; pass its last step"):
        view(make_pipeline(StandardScaler(), net), caller="f")


def test_script_module_is_refused():
    with pytest.warns((DeprecationWarning, FutureWarning), match="script"):  # the latter from 2.14
        script = torch.jit.script(chain(0))
    with pytest.raises(TypeError, match=r"TorchScript module, .*compiled from"):
        view(script, caller="f")


# samples for a trace


def test_sample_of_a_plain_chain_has_its_width():
    (sample,) = view(chain(0), caller="f").sample()
    assert sample.shape == (8, 3)
    assert sample.dtype == torch.float32
    assert torch.equal(sample, view(chain(1), caller="f").sample()[0])
    assert view(chain(0).double(), caller="f").sample()[0].dtype == torch.float64


def test_sample_of_our_net_has_the_remembered_shape():
    (sample,) = view(NetClassifier(**FAST).fit(X, Y), caller="f").sample()
    assert sample.shape == (8, 3)
    assert sample.std() > 0


@pytest.mark.parametrize(
    "given, rows",
    [
        (X, 8),
        (X.tolist(), 8),
        (pd.DataFrame(X), 8),
        (X[:1], 2),
        (tuple(X[:4]), 4),
        (torch.from_numpy(X), 8),
    ],
)
def test_sample_takes_the_first_rows_of_any_array(given, rows):
    sample = view(chain(0), caller="f").sample(given)
    assert len(sample) == 1
    assert sample[0].shape == (rows, 3)
    np.testing.assert_array_equal(sample[0][0], X[0])


class OfAll(nn.Module):
    """Gives one number for each row of its longest argument."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, *parts):
        n = max(len(part) for part in parts if part.ndim and part.shape[1:] != (12,))
        whole = next(part for part in parts if part.ndim and len(part) == n)
        return self.layer(whole.reshape(n, -1).float().mean(dim=1, keepdim=True))


def test_tuple_of_tensors_holds_the_arguments_of_forward():
    parts = torch.from_numpy(X), torch.arange(30)
    sample = view(OfAll(), caller="f").sample(parts)
    assert [len(part) for part in sample] == [8, 8]
    assert sample[1].dtype == torch.int64


@pytest.mark.parametrize(
    "shapes, expected",
    [
        ([(1, 3), (1, 5)], [(2, 3), (2, 5)]),
        ([(4, 3), (1, 5)], [(4, 3), (1, 5)]),
        ([(1, 5), (4, 3)], [(1, 5), (4, 3)]),
        ([(30, 3), (1, 5, 5)], [(8, 3), (1, 5, 5)]),
        ([(30, 3), (12, 12)], [(8, 3), (12, 12)]),
        ([(1, 5), (30, 3), (30,)], [(1, 5), (8, 3), (8,)]),
        ([(30, 3), ()], [(8, 3), ()]),
        ([(1, 3), ()], [(2, 3), ()]),
    ],
)
def test_only_arguments_that_hold_the_batch_are_cut_or_repeated(shapes, expected):
    parts = tuple(torch.randn(shape) for shape in shapes)
    sample = view(OfAll(), caller="f").sample(parts)
    assert [tuple(part.shape) for part in sample] == expected
    for part, given in zip(sample, parts, strict=True):
        assert torch.equal(part, given[: len(part)].expand_as(part) if part.ndim else given)


def test_unknown_shape_asks_for_samples():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(ValueError, match="f: the shape of net's input is not known; pass 'X'"):
        view(net, caller="f", name="net").sample()
