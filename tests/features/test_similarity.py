"""Similarity of hidden units."""

import numpy as np
import pytest
import torch
from torch import nn

from sklmc.features import feature_similarity
from sklmc.features._similarity import cluster_order
from tests.features.nets import functional, images, mlp, samples
from tests.models.conftest import snapshot


def matrix(frame, layer):
    """The similarities of a layer, units in their own order."""
    part = frame[frame.layer == layer]
    return part.pivot(index="unit_a", columns="unit_b", values="similarity").to_numpy()


def test_weights_with_bias_by_cosine():
    net = mlp(0)
    before = snapshot(net)
    frame = feature_similarity(net)
    assert snapshot(net) == before
    assert frame.layer.unique().tolist() == ["layers.0", "layers.2"]
    layer = net.layers[2]
    rows = torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach()
    expected = torch.cosine_similarity(rows[:, None], rows[None], dim=2)
    np.testing.assert_allclose(matrix(frame, "layers.2"), expected, atol=1e-12)


def test_units_of_two_nets():
    a, b = mlp(0), mlp(1)
    found = matrix(feature_similarity(a, b, layers="layers.2"), "layers.2")
    rows = [
        torch.cat([net.layers[2].weight, net.layers[2].bias[:, None]], dim=1).detach()
        for net in (a, b)
    ]
    expected = torch.cosine_similarity(rows[0][:, None], rows[1][None], dim=2)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("two", [False, True])
def test_activations_by_correlation_in_blocks(two, monkeypatch):
    monkeypatch.setattr("sklmc.features._nets_on_samples.BLOCK_NUMBERS", 200)
    a, x = mlp(0), samples(60)
    b = mlp(1) if two else a
    frame = feature_similarity(a, b if two else None, x, on="activation")
    assert frame.layer.unique().tolist() == ["layers.1", "layers.3"]
    h_a, h_b = (net.layers[:4](x).detach().numpy() for net in (a, b))
    with np.errstate(invalid="ignore"):
        expected = np.corrcoef(h_a.T, h_b.T)[:8, 8:]
    np.testing.assert_allclose(matrix(frame, "layers.3"), expected, atol=1e-9)


def test_channels_are_compared_over_positions():
    net, x = functional(0), images()
    frame = feature_similarity(net, X=x, on="activation", layers=["conv1"])
    values = net.conv1(x).detach().movedim(1, 0).flatten(1).numpy()
    np.testing.assert_allclose(matrix(frame, "conv1"), np.corrcoef(values), atol=1e-9)


def test_units_are_ordered_by_cluster():
    net = nn.Sequential(nn.Linear(2, 6, bias=False), nn.ReLU(), nn.Linear(6, 1))
    angles = torch.tensor([0.0, 1.5, 0.1, 1.6, 0.05, 1.55])
    with torch.no_grad():
        net[0].weight.copy_(torch.stack([angles.cos(), angles.sin()], dim=1))
    order = feature_similarity(net).unit_a.unique()
    assert {frozenset(order[:3]), frozenset(order[3:])} == {
        frozenset({0, 2, 4}),
        frozenset({1, 3, 5}),
    }
    assert sorted(cluster_order(np.full((4, 4), np.nan))) == [0, 1, 2, 3]


def test_units_without_weights_are_nan():
    net = mlp(0)
    with torch.no_grad():
        net.layers[0].weight[3] = 0
        net.layers[0].bias[3] = 0
    found = matrix(feature_similarity(net, layers="layers.0"), "layers.0")
    assert np.isnan(found[3]).all()
    assert np.isnan(found[:, 3]).all()
    assert np.isfinite(np.delete(np.delete(found, 3, 0), 3, 1)).all()
    dead = matrix(feature_similarity(net, X=samples(), on="activation"), "layers.1")
    assert np.isnan(dead[3]).all()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="needs 'X'"):
        feature_similarity(mlp(0), on="activation")
    with pytest.raises(ValueError, match="Did you mean 'weight'"):
        feature_similarity(mlp(0), on="weights")
    with pytest.raises(ValueError, match=r"'layers' must be one of .*'layers\.2'"):
        feature_similarity(mlp(0), layers="layers.1")
    with pytest.raises(ValueError, match="no hidden"):
        feature_similarity(nn.Linear(2, 1))
    with pytest.raises(ValueError, match="different architecture"):
        feature_similarity(mlp(0), mlp(0, width=9))
