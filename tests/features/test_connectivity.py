"""Linear and exponential connectivity of features, and the conditions behind them."""

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import interpolate_models
from sklmc.features import (
    commutativity,
    error_bound,
    inverse_temperatures,
    layerwise_exponential_connectivity,
    layerwise_linear_connectivity,
    reciprocal_orthogonality,
    weak_additivity,
)
from sklmc.features._weak_additivity import additivity_sides, gaussian_null
from tests.features.nets import (
    differing_in_last_layer,
    disjoint_pair,
    functional,
    images,
    linears,
    mlp,
    samples,
    scaled_pair,
)
from tests.models.conftest import snapshot

EXACT = 1e-12  # float64 rounding of a few dozen operations
PAIR_MEASURES = [
    commutativity,
    layerwise_exponential_connectivity,
    layerwise_linear_connectivity,
    reciprocal_orthogonality,
    weak_additivity,
]


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_blocks_make_no_difference_and_nets_are_left_alone(measure, monkeypatch):
    a, b, x = mlp(0).train(), mlp(1).train(), samples(50)
    before = snapshot(a), snapshot(b)
    whole = measure(a, b, x)
    assert (snapshot(a), snapshot(b)) == before
    monkeypatch.setattr("sklmc.features._nets_on_samples.BLOCK_NUMBERS", 250)
    blocks = measure(a, b, x)
    assert list(whole.columns) == list(blocks.columns)
    numbers = whole.select_dtypes("number").columns
    np.testing.assert_allclose(whole[numbers], blocks[numbers], rtol=1e-9, atol=EXACT)
    assert (whole.layer == blocks.layer).all()


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_any_module_serves(measure):
    frame = measure(functional(0), functional(1), images())
    assert len(frame) >= 3
    assert np.isfinite(frame.select_dtypes("number").to_numpy()).all()


def test_linear_connectivity_against_its_definition():
    a, b, x = mlp(0), mlp(1), samples()
    frame = layerwise_linear_connectivity(a, b, x, alphas=0.25, layers=["layers.1"])
    u, v = a.layers[:2](x), b.layers[:2](x)
    w = interpolate_models(a, b, 0.25).layers[:2](x)
    mean = 0.75 * u + 0.25 * v
    expected = 1 - torch.cosine_similarity(w, mean)
    row = frame.iloc[0]
    assert row.one_minus_cosine == pytest.approx(expected.mean().item(), abs=EXACT)
    assert row.one_minus_cosine_std == pytest.approx(expected.std(unbiased=False).item(), abs=EXACT)
    apart = 1 - torch.cosine_similarity(u, v)
    assert row.one_minus_cosine_ab == pytest.approx(apart.mean().item(), abs=EXACT)
    assert row.coef == pytest.approx(((w * mean).sum() / mean.square().sum()).item(), abs=EXACT)


def test_nets_that_differ_in_the_last_layer_are_linearly_connected():
    a, b = differing_in_last_layer()
    frame = layerwise_linear_connectivity(a, b, samples())
    assert frame.layer.unique().tolist() == [f"layers.{i}" for i in range(5)]
    assert frame.one_minus_cosine.abs().max() < EXACT
    np.testing.assert_allclose(frame.coef, 1.0, atol=EXACT)
    assert frame[frame.layer == "layers.4"].one_minus_cosine_ab.min() > 0.01
    assert commutativity(a, b, samples()).dist_com.max() < EXACT


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.9])
def test_scaled_nets_have_the_factor_of_their_depth(alpha):
    a, b = scaled_pair(2.0)
    frame = layerwise_linear_connectivity(a, b, samples(), alphas=alpha, layers="feature")
    depth = np.arange(1, 4)
    factor = ((1 - alpha) * 2.0**depth + alpha) / (2 - alpha) ** depth
    np.testing.assert_allclose(1 / frame.coef, factor, rtol=1e-12)
    assert frame.one_minus_cosine.abs().max() < EXACT


def test_opposite_features_are_near_only_by_absolute_cosine():
    b = mlp(0, depth=0)
    a = mlp(0, depth=0)
    with torch.no_grad():
        for parameter in a.parameters():
            parameter.mul_(-3)
    signed = layerwise_linear_connectivity(a, b, samples(), alphas=0.5)
    absolute = layerwise_linear_connectivity(a, b, samples(), alphas=0.5, absolute=True)
    assert signed.one_minus_cosine_ab[0] == pytest.approx(2.0)
    assert absolute.one_minus_cosine_ab[0] == pytest.approx(0.0, abs=EXACT)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.75])
def test_disjoint_nets_are_exponentially_connected(alpha):
    a, b = disjoint_pair()
    x = samples()
    frame = layerwise_exponential_connectivity(a, b, x, alphas=alpha)
    assert frame.depth.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(frame.cosine, 1.0, atol=EXACT)
    np.testing.assert_allclose(frame.coef, 1.0, atol=EXACT)
    additive = weak_additivity(a, b, x, alphas=alpha)
    np.testing.assert_allclose(additive.cosine, 1.0, atol=EXACT)
    orthogonal = reciprocal_orthogonality(a, b, x)
    assert orthogonal.depth.tolist() == [1, 2, 3, 4]
    assert orthogonal.ratio[1:].max() == 0
    assert orthogonal.ratio[0] == 0 or np.isfinite(orthogonal.ratio[0])


def test_other_nets_are_not_exponentially_connected():
    frame = layerwise_exponential_connectivity(mlp(0), mlp(1), samples(), alphas=0.25)
    assert (frame.cosine < 0.99).all()


def test_gaussian_preactivations_reach_the_null():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 100, 20000, generator=generator, dtype=torch.float64)
    assert gaussian_null(0.5) == pytest.approx((3 / 4 + 1 / np.pi) / np.sqrt(1 + 1 / np.pi))
    for alpha in (0.2, 0.5):
        found = torch.cosine_similarity(*additivity_sides(torch.relu, *z, alpha)).mean()
        # 2 million draws: Monte-Carlo error below 2e-4
        assert found.item() == pytest.approx(gaussian_null(alpha), abs=3e-4)


def test_gaussian_nets_reach_the_null_through_the_frame():
    """Two random layers of great width see Gaussian pre-activations."""
    nets = [mlp(seed, d=50, width=4000, depth=1, bias=False) for seed in (0, 1)]
    frame = weak_additivity(*nets, samples(30, 50))
    assert frame.cosine[0] == pytest.approx(frame.null[0], abs=3e-3)
    assert frame.null[0] == pytest.approx(0.9304, abs=5e-5)


def test_weak_additivity_of_other_activations():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.PReLU()).double()
    frame = weak_additivity(net, net, samples(), layers="1")
    assert frame.cosine[0] == pytest.approx(1.0, abs=EXACT)
    assert np.isnan(frame.null[0])
    for layer in ("0", "3"):
        with pytest.raises(ValueError, match=r"no activation function.*\['1'"):
            weak_additivity(net, net, samples(), layers=layer)


def test_commutativity_against_its_definition():
    a, b, x = mlp(0), mlp(1), samples()
    frame = commutativity(a, b, x).set_index("layer")
    h_a, h_b = a.layers[:2](x), b.layers[:2](x)
    w_a, w_b = a.layers[2].weight, b.layers[2].weight

    def distance(p, q):
        return ((p - q).square().sum() / (p.norm() * q.norm())).item()

    com = distance(h_a @ w_a.T + h_b @ w_b.T, h_a @ w_b.T + h_b @ w_a.T)
    assert frame.dist_com["layers.2"] == pytest.approx(com, rel=1e-9)
    assert frame.dist_w["layers.2"] == pytest.approx(distance(w_a, w_b), rel=1e-9)
    assert frame.dist_h["layers.2"] == pytest.approx(distance(h_a, h_b), rel=1e-9)
    assert frame.dist_h["layers.0"] == 0


def test_reciprocal_orthogonality_against_its_definition():
    a, b, x = mlp(0), mlp(1), samples()
    frame = reciprocal_orthogonality(a, b, x).set_index("layer")
    z_a, w_a, w_b = a.layers[:2](x), a.layers[2].weight, b.layers[2].weight
    expected = ((z_a @ w_b.T).norm(dim=1) / (z_a @ w_a.T).norm(dim=1)).mean().item()
    assert frame.ratio_a["layers.2"] == pytest.approx(expected, rel=1e-9)
    assert frame.ratio["layers.2"] == pytest.approx(
        (frame.ratio_a["layers.2"] + frame.ratio_b["layers.2"]) / 2
    )


def test_zero_features_are_counted_not_averaged():
    a, b, x = mlp(0, bias=False), mlp(1, bias=False), samples(10)
    x[:4] = 0
    frame = layerwise_linear_connectivity(a, b, x, alphas=0.5)
    assert (frame.n_undefined == 4).all()
    expected = layerwise_linear_connectivity(a, b, x[4:], alphas=0.5)
    np.testing.assert_allclose(frame.one_minus_cosine, expected.one_minus_cosine, atol=EXACT)
    assert (weak_additivity(a, b, x).n_undefined == 4).all()


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_dead_nets_give_nan_with_a_count(measure):
    dead = mlp(0, bias=False)
    with torch.no_grad():
        linears(dead)[0].weight.zero_()
    frame = measure(dead, dead, samples(10))
    assert (
        frame.select_dtypes("float")
        .drop(columns=["alpha", "null"], errors="ignore")
        .isna()
        .any(axis=1)
        .any()
    )
    if "n_undefined" in frame:
        assert frame.n_undefined.max() >= 10


def test_error_is_within_twice_the_ends_under_connectivity():
    a, b = differing_in_last_layer()
    x = samples(200)
    y = (a(x) + b(x)).argmax(dim=1).numpy()
    frame = error_bound(a, b, x, y)
    errors = [(net(x).argmax(dim=1).numpy() != y).mean() for net in (a, b)]
    assert frame.error_a[0] == pytest.approx(errors[0])
    assert frame.error_b[0] == pytest.approx(errors[1])
    assert frame.bound[0] == pytest.approx(2 * max(errors))
    assert frame.holds.all()
    middle = interpolate_models(a, b, 0.5)
    assert frame.error[1] == pytest.approx((middle(x).argmax(dim=1).numpy() != y).mean())


def test_error_beyond_the_bound_is_seen():
    a = mlp(0, depth=1, width=4)
    perm = [3, 2, 1, 0]
    b = mlp(0, depth=1, width=4)
    with torch.no_grad():
        for layer, axis in ((b.layers[0], 0), (b.layers[2], 1)):
            layer.weight.copy_(layer.weight.index_select(axis, torch.tensor(perm)))
        b.layers[0].bias.copy_(b.layers[0].bias[perm])
    x = samples(100)
    frame = error_bound(a, b, x, a(x).argmax(dim=1))
    assert frame.error_a.max() == frame.error_b.max() == 0
    assert not frame.holds.all()
    with pytest.raises(ValueError, match="regression"):
        error_bound(a, b, x, np.zeros(100))


@pytest.mark.parametrize("alpha", [0.25, 0.5])
def test_predicted_temperature_is_exact_for_disjoint_nets(alpha):
    a, b = disjoint_pair(depth=2)
    x = samples(300)
    y = torch.distributions.Categorical(logits=0.3 * (a(x) + b(x))).sample()
    frame = inverse_temperatures(a, b, x, y, alphas=alpha)
    assert frame.n_weight_layers[0] == 3
    assert frame.fitted[0] == pytest.approx(frame.predicted[0], rel=1e-6)
    if alpha == 0.5:
        assert frame.fitted[0] == pytest.approx(4 * frame.ensemble[0], rel=1e-6)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_nets_of_different_shape_and_single_samples_are_refused(measure):
    with pytest.raises(ValueError, match="different architecture"):
        measure(mlp(0), mlp(1, width=9), samples())
    with pytest.raises(ValueError, match="different architecture"):
        measure(mlp(0), mlp(1, depth=3), samples())
    with pytest.raises(ValueError, match="too few"):
        measure(mlp(0), mlp(1), samples(1))
    with pytest.raises(ValueError, match="cannot run on 'X'"):
        measure(mlp(0), mlp(1), samples(10, 7))
