"""Arithmetic on states, and the two public functions on it."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

from sklmc.exceptions import ArchitectureMismatchError, NonFiniteError
from sklmc.models import (
    average_models,
    average_states,
    check_compatible,
    interpolate_models,
    interpolate_states,
    view,
)
from tests.models.conftest import chain, skorch_net


def bits(module):
    return [tensor.numpy().tobytes() for tensor in module.state_dict().values()]


@pytest.mark.parametrize("alpha, end", [(0.0, 0), (1.0, 1)])
def test_end_points_are_exact_copies(alpha, end):
    nets = chain(0), chain(1)
    assert bits(interpolate_models(*nets, alpha)) == bits(nets[end])


def test_interpolation_is_linear_in_alpha_from_a_to_b():
    a, b = chain(0), chain(1)
    quarter = interpolate_models(a, b, 0.25)
    torch.testing.assert_close(quarter[0].weight, 0.75 * a[0].weight + 0.25 * b[0].weight)
    torch.testing.assert_close(
        quarter[1].running_var, 0.75 * a[1].running_var + 0.25 * b[1].running_var
    )


def test_weights_are_scaled_to_sum_to_one():
    nets = [chain(seed) for seed in range(3)]
    assert bits(average_models(nets, weights=[2, 2, 4])) == bits(
        average_models(nets, weights=[0.25, 0.25, 0.5])
    )


def test_zero_weight_leaves_a_model_out_even_if_it_is_huge():
    huge = chain(1)
    with torch.no_grad():
        huge[0].weight.fill_(3e38)
    assert bits(average_models([chain(0), huge, chain(0)], weights=[1, 0, 1])) == bits(chain(0))


def test_mean_of_copies_is_the_model_itself():
    net = chain(0)
    assert bits(average_models([net] * 3)) == bits(net)


def test_half_precision_is_summed_in_double():
    """In float16 the running sum of ten thousands would overflow."""
    nets = [nn.Linear(1, 1).half() for _ in range(8)]
    for net in nets:
        nn.init.constant_(net.weight, 60000.0)
        nn.init.zeros_(net.bias)
    assert average_models(nets).weight.item() == nets[0].weight.item()


def test_complex_tensors_are_averaged():
    a, b = (nn.Linear(2, 2, dtype=torch.complex64) for _ in range(2))
    torch.testing.assert_close(average_models([a, b]).weight, (a.weight + b.weight) / 2)


def test_states_handed_in_are_not_changed_and_not_shared():
    a = {"w": torch.ones(2), "n": torch.tensor(3)}
    b = {"w": torch.zeros(2), "n": torch.tensor(4)}
    one = average_states([a, b], [1.0, 0.0])
    one["w"].fill_(7.0)
    half = interpolate_states(a, b, 0.5)
    assert torch.equal(a["w"], torch.ones(2))
    assert half["w"].tolist() == [0.5, 0.5]
    assert half["n"] == 3


def test_kind_of_the_first_model_comes_back():
    net, module = skorch_net(0), skorch_net(1).module_
    assert type(average_models([net, module])) is type(net)
    assert type(average_models([module, net])) is type(module)


# what cannot be combined


def refusal(a, b):
    with pytest.raises(ArchitectureMismatchError) as caught:
        average_models([a, b])
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


def test_missing_tensor_is_named_with_the_side_that_has_it():
    bias_free = nn.Linear(2, 2, bias=False)
    said = refusal(bias_free, nn.Linear(2, 2))
    assert "tensor 'bias' is in 'models[1]' and not in 'models[0]'" in said
    said = refusal(nn.Linear(2, 2), bias_free)
    assert "tensor 'bias' is in 'models[0]' and not in 'models[1]'" in said


def test_differing_shape_and_dtype_are_named():
    assert "shape of tensor 'weight' is (2, 3) and (2, 4)" in refusal(
        nn.Linear(3, 2), nn.Linear(4, 2)
    )
    assert "dtype of tensor 'weight' is torch.float32 and torch.float64" in refusal(
        nn.Linear(3, 2), nn.Linear(3, 2).double()
    )


def test_differing_integer_buffer_is_refused():
    nets = [nn.Linear(2, 2) for _ in range(2)]
    for shift, net in enumerate(nets):
        net.register_buffer("index", torch.arange(3) + shift)
    assert "integer buffer 'index'" in refusal(*nets)


def test_differing_classes_and_tasks_are_named():
    from sklmc import NetClassifier, NetRegressor

    X = np.random.default_rng(0).normal(size=(12, 3))
    y = np.arange(12) % 2
    options = {"max_epochs": 1, "module__width": 2, "random_state": 0}
    a = NetClassifier(**options).fit(X, y)
    b = NetClassifier(**options).fit(X, np.array(["no", "yes"])[y])
    assert re.search(r"different classes_: .*0.*1.* and .*'no'.*'yes'", refusal(a, b))
    double = NetRegressor(**options).fit(X, np.stack([y, y], axis=1).astype(float))
    assert "'models[0]' is a classifier and 'models[1]' is a regressor" in refusal(a, double)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(bad):
    net = chain(1)
    with torch.no_grad():
        net[3].bias[1] = bad
    with pytest.raises(NonFiniteError, match=r"tensor '3.bias' of 'models\[1\]' holds 1 value"):
        average_models([chain(0), net])
    with pytest.raises(NonFiniteError, match=r"tensor '3.bias' of 'model_b'"):
        interpolate_models(chain(0), net, 0.5)


def test_names_of_the_caller_are_used():
    views = [view(one, caller="f") for one in (nn.Linear(2, 2), nn.Linear(2, 3))]
    with pytest.raises(ArchitectureMismatchError, match="f: 'here' and 'there' are of different"):
        check_compatible(views, "f", ["here", "there"])


@pytest.mark.parametrize(
    "weights, error, said",
    [
        ([1.0], ValueError, r"one number per model \(2\), got shape \(1,\)"),
        ([1.0, -1.0], ValueError, "finite and not negative"),
        ([0.0, 0.0], ValueError, "at least one must be positive"),
        ([1.0, np.nan], ValueError, "finite and not negative"),
        ("ab", TypeError, "sequence of 2 numbers, got 'ab'"),
    ],
)
def test_bad_weights(weights, error, said):
    with pytest.raises(error, match=f"average_models: 'weights'.*{said}"):
        average_models([chain(0), chain(1)], weights=weights)


@pytest.mark.parametrize("alpha, error", [(-0.1, ValueError), (1.1, ValueError), ("a", TypeError)])
def test_bad_alpha(alpha, error):
    with pytest.raises(error, match=r"interpolate_models: 'alpha' must"):
        interpolate_models(chain(0), chain(1), alpha)
    with pytest.raises(ValueError, match="got nan"):
        interpolate_models(chain(0), chain(1), float("nan"))


@pytest.mark.parametrize(
    "models, error, said",
    [
        (chain(0), TypeError, "must be a list of models, got Sequential; put the models into"),
        ([], ValueError, "must hold at least 1 model, got 0"),
        ([None], TypeError, r"'models\[0\]' must be a fitted skorch net.*got NoneType"),
        ([nn.Linear], TypeError, r"'models\[0\]' is the class Linear; pass"),
        (3, TypeError, "must be a list of models, got int"),
    ],
)
def test_no_models(models, error, said):
    with pytest.raises(error, match=f"average_models: .*{said}"):
        average_models(models)


def test_copy_of_a_model_can_be_averaged_with_it():
    net = skorch_net(0)
    again = copy.deepcopy(net)
    assert bits(average_models([net, again]).module_) == bits(net.module_)
