from __future__ import annotations

import pytest
import torch
from torch import nn

from sklmc._torch import seeded
from sklmc.nets import MLP


def layer_types(module):
    return [type(layer) for layer in module.layers]


def test_one_hidden_layer_of_the_given_width():
    module = MLP(3, 2, width=5)
    assert layer_types(module) == [nn.Linear, nn.ReLU, nn.Linear]
    assert [tuple(p.shape) for p in module.parameters()] == [(5, 3), (5,), (2, 5), (2,)]


def test_depth_zero_is_linear():
    assert layer_types(MLP(3, 2, depth=0)) == [nn.Linear]


@pytest.mark.parametrize("norm, kind", [("layer", nn.LayerNorm), ("batch", nn.BatchNorm1d)])
def test_norm_stands_between_linear_and_relu(norm, kind):
    module = MLP(3, 2, width=5, depth=2, norm=norm)
    assert layer_types(module) == [nn.Linear, kind, nn.ReLU] * 2 + [nn.Linear]


def test_no_bias():
    module = MLP(3, 2, depth=2, bias=False)
    assert all(not name.endswith("bias") for name, _ in module.named_parameters())


@pytest.mark.parametrize("init", ["kaiming_normal", "kaiming_uniform"])
def test_kaiming_scale_and_zero_biases(init):
    with seeded(0):
        module = MLP(200, 2, width=300, init=init)
    first = module.layers[0]
    # 60,000 draws of standard deviation sqrt(2 / 200): within two percent
    assert first.weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert all((layer.bias == 0).all() for layer in module.layers if isinstance(layer, nn.Linear))
    uniform = first.weight.abs().max().item() <= 0.1 * 3**0.5
    assert uniform == (init == "kaiming_uniform")


def test_default_init_is_torchs_own():
    with seeded(0):
        ours = MLP(3, 2, width=4)
    with seeded(0):
        plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    for a, b in zip(ours.parameters(), plain.parameters()):
        assert torch.equal(a, b)


def test_images_are_flattened():
    module = MLP(2 * 3 * 3, 4)
    images = torch.arange(36.0).reshape(2, 2, 3, 3)
    assert torch.equal(module(images), module(images.reshape(2, 18)))


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        ({}, ValueError, "MLP: 'n_features' is None"),
        ({"n_features": 2}, ValueError, "MLP: 'n_outputs' is None"),
        ({"n_features": 2, "n_outputs": 0}, ValueError, "'n_outputs' must be at least 1, got 0"),
        ({"n_features": 2.0, "n_outputs": 1}, TypeError, "'n_features' must be an integer"),
        ({"n_features": 2, "n_outputs": 1, "width": 0}, ValueError, "'width' must be at least 1"),
        ({"n_features": 2, "n_outputs": 1, "depth": -1}, ValueError, "'depth' must be at least 0"),
        (
            {"n_features": 2, "n_outputs": 1, "norm": "bacth"},
            ValueError,
            r"'norm' .* Did you mean 'batch'",
        ),
        ({"n_features": 2, "n_outputs": 1, "bias": "no"}, ValueError, "'bias' must be one of"),
        ({"n_features": 2, "n_outputs": 1, "init": "zeros"}, ValueError, "'init' must be one of"),
    ],
)
def test_bad_arguments_are_named(arguments, error, match):
    with pytest.raises(error, match=match):
        MLP(**arguments)
