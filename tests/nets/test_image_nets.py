"""VGG11 and ResNet20: widths, norms, and the road through NetClassifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sklmc._torch import seeded
from sklmc.nets import VGG11, ResNet20

NETS = [VGG11, ResNet20]


def made(kind, **options):
    with seeded(0):
        return kind(**options)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("norm", [None, "batch", "layer"])
@pytest.mark.parametrize("size", [16, 28, 32])
def test_logits_are_finite_for_small_images(kind, norm, size):
    module = made(kind, n_channels=1, n_outputs=4, width_multiplier=0.125, norm=norm)
    with torch.no_grad():
        logits = module(torch.randn(3, 1, size, size))
    assert logits.shape == (3, 4)
    assert torch.isfinite(logits).all()


def test_vgg11_has_eight_convolutions_and_two_linear_layers():
    module = made(VGG11, width_multiplier=0.125)
    widths = [part.out_channels for part in module.modules() if isinstance(part, nn.Conv2d)]
    assert widths == [8, 16, 32, 32, 64, 64, 64, 64]
    assert [p.out_features for p in module.modules() if isinstance(p, nn.Linear)] == [64, 10]


def test_resnet20_has_nineteen_layers_before_the_logits_and_two_projections():
    module = made(ResNet20)
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    assert sum(part.kernel_size == (3, 3) for part in convolutions) == 19
    assert sum(part.kernel_size == (1, 1) for part in convolutions) == 2
    assert sorted({part.out_channels for part in convolutions}) == [16, 32, 64]


def test_resnet20_has_the_size_that_is_known():
    assert sum(p.numel() for p in made(ResNet20).parameters()) == 272_474


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize(
    "norm, layer", [(None, nn.Identity), ("batch", nn.BatchNorm2d), ("layer", nn.GroupNorm)]
)
def test_norm_is_the_one_that_was_asked_for(kind, norm, layer):
    module = made(kind, width_multiplier=0.125, norm=norm)
    norms = {type(p) for p in module.modules() if isinstance(p, (nn.BatchNorm2d, nn.GroupNorm))}
    assert norms == (set() if norm is None else {layer})
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    assert all((part.bias is None) == (norm is not None) for part in convolutions)


@pytest.mark.parametrize("kind", NETS)
def test_signals_keep_their_size_without_norm(kind):
    module = made(kind, norm=None, width_multiplier=0.5)
    with seeded(1), torch.no_grad():
        spread = float(module(torch.randn(8, 3, 32, 32)).std())
    assert 0.05 < spread < 20


@pytest.mark.parametrize("kind", NETS)
def test_bad_arguments_are_named(kind):
    name = kind.__name__
    with pytest.raises(ValueError, match=f"{name}: 'width_multiplier' must be positive .* got 0"):
        kind(width_multiplier=0)
    with pytest.raises(TypeError, match=f"{name}: 'width_multiplier' must be a number, got '1'"):
        kind(width_multiplier="1")
    with pytest.raises(ValueError, match=f"{name}: 'norm' must be one of"):
        kind(norm="group")
    with pytest.raises(ValueError, match=f"{name}: 'n_outputs' must be at least 1"):
        kind(n_outputs=0)


@pytest.mark.parametrize("kind", NETS)
def test_classifier_hands_sizes_from_the_images(kind):
    from sklmc import NetClassifier

    X = np.random.RandomState(0).standard_normal((24, 1, 16, 16))
    y = np.array(["a", "b", "c"] * 8)
    net = NetClassifier(
        kind, module__width_multiplier=0.0625, max_epochs=1, batch_size=8, random_state=0
    ).fit(X, y)
    assert net.module_.n_channels == 1
    assert net.module_.n_outputs == 3
    assert net.predict_proba(X).shape == (24, 3)
