"""Measures of single nets and merged nets, unit by unit: scale, variance, rank; stitching."""

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import NetClassifier, interpolate_models
from sklmc.features import preactivation_scale, stable_rank, stitch_models, variance_ratio
from tests.features.nets import functional, images, linears, mlp, samples
from tests.models.conftest import snapshot


def test_scale_is_the_root_mean_square_of_relu_inputs():
    net, x = mlp(0), samples()
    frame = preactivation_scale(net, x)
    for name, stop in (("layers.1", 1), ("layers.3", 3)):
        expected = net.layers[:stop](x).square().mean(dim=0).sqrt().detach()
        part = frame[frame.layer == name]
        np.testing.assert_allclose(part.scale, expected, rtol=1e-12)
        assert part.unit.tolist() == list(range(8))


def test_scale_of_channels_runs_over_positions():
    net, x = functional(0), images()
    frame = preactivation_scale(net, x).set_index("layer")
    expected = net.bn1(net.conv1(x)).square().mean(dim=(0, 2, 3)).sqrt().detach()
    np.testing.assert_allclose(frame.scale["relu()"], expected, rtol=1e-12)


def test_scale_of_tokens_runs_over_positions():
    net = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double().eval()
    frame = preactivation_scale(net, torch.randn(4, 3, 8, dtype=torch.float64))
    assert len(frame) == 16


def test_variance_ratio_against_its_definition(monkeypatch):
    a, b, x = mlp(0), mlp(1), samples(60)
    monkeypatch.setattr("sklmc.features._nets_on_samples.BLOCK_NUMBERS", 375)
    frame = variance_ratio(a, b, x, alphas=0.25).set_index("layer")
    var = [
        net.layers[:3](x).var(dim=0, unbiased=False).sum().item()
        for net in (a, b, interpolate_models(a, b, 0.25))
    ]
    expected = var[2] / (0.75 * var[0] + 0.25 * var[1])
    assert frame.ratio["layers.2"] == pytest.approx(expected, rel=1e-9)


def test_variance_ratio_of_a_net_with_itself_is_one():
    np.testing.assert_allclose(variance_ratio(mlp(0), mlp(0), samples()).ratio, 1.0)


def test_variance_of_independent_nets_collapses_with_depth():
    frame = variance_ratio(mlp(0, width=64, depth=4), mlp(1, width=64, depth=4), samples())
    assert (frame.ratio.diff()[1:] < 0).all()
    constant = mlp(0, bias=False)
    with torch.no_grad():
        linears(constant)[0].weight.zero_()
    assert variance_ratio(constant, constant, samples()).ratio.isna().all()


def test_stable_rank_of_known_matrices():
    net = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(2, 3, 2), nn.ConvTranspose1d(4, 6, 2, groups=2))
    with torch.no_grad():
        net[0].weight.copy_(torch.diag(torch.tensor([3.0, 3.0, 3.0, 0.0])))
        net[1].weight.fill_(2.0)
        net[2].weight.zero_()
        net[2].weight[0, 0] = 1.0
        net[2].weight[2, 1] = 1.0
    frame = stable_rank(net)
    np.testing.assert_allclose(frame.stable_rank, [3.0, 1.0, 1.0], rtol=1e-6)
    assert frame.full_rank.tolist() == [4, 3, 4]
    with pytest.raises(ValueError, match="no linear or convolutional layer"):
        stable_rank(nn.ReLU())


def test_stitching_at_both_ends_gives_the_end_points():
    a, b, x = mlp(0, norm="batch"), mlp(1, norm="batch"), samples()
    before = snapshot(a), snapshot(b)
    assert torch.equal(stitch_models(a, b, 0)(x), b(x))
    assert torch.equal(stitch_models(a, b, 3)(x), a(x))
    assert (snapshot(a), snapshot(b)) == before


def test_norms_and_activations_go_with_the_layer_before_them():
    a, b, x = mlp(0, norm="batch"), mlp(1, norm="batch"), samples()
    expected = b.layers[3:](a.layers[:3](x))
    assert torch.equal(stitch_models(a, b, 1)(x), expected)
    assert torch.equal(stitch_models(a, b, "layers.0")(x), expected)
    assert torch.equal(stitch_models(a, b, "layers.2")(x), expected)


def test_functional_nets_are_stitched_too():
    a, b, x = functional(0), functional(1), images()
    stitched = stitch_models(a, b, 2, x)
    assert torch.equal(stitched.conv2.weight, a.conv2.weight)
    assert torch.equal(stitched.fc.weight, b.fc.weight)
    assert torch.equal(stitch_models(a, b, 3, x)(x), a(x))
    with pytest.raises(ValueError, match="pass 'X'"):
        stitch_models(a, b, 2)


def test_tied_weights_stay_tied_and_class_tokens_go_with_the_first_layer():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.randn(3))
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)
            self.last.weight = self.first.weight

        def forward(self, x):
            return self.last(self.first(x + self.shift).relu())

    a, b, x = Tied(), Tied(), torch.randn(5, 3)
    stitched = stitch_models(a, b, 1, x)
    assert stitched.last.weight is stitched.first.weight
    assert torch.equal(stitched.shift, a.shift)
    assert torch.equal(stitched.last.bias, b.last.bias)
    assert torch.equal(stitch_models(a, b, 0, x)(x), b(x))


def test_fitted_estimators_are_stitched_to_estimators():
    x = samples().numpy()
    y = np.where(x[:, 0] > 0, "yes", "no")
    nets = [
        NetClassifier(max_epochs=1, random_state=seed, module__width=4).fit(x, y) for seed in (0, 1)
    ]
    stitched = stitch_models(*nets, 1)
    assert set(stitched.predict(x)) <= {"yes", "no"}
    assert torch.equal(stitched.module_.layers[2].weight, nets[1].module_.layers[2].weight)


def test_stitching_refuses_what_is_no_layer():
    a, b = mlp(0), mlp(1)
    with pytest.raises(ValueError, match=r"must lie in 0\.\.3"):
        stitch_models(a, b, 4)
    with pytest.raises(TypeError, match="number of layers or a module path"):
        stitch_models(a, b, 1.5)
    with pytest.raises(ValueError, match=r"nearest are \['layers\.4'"):
        stitch_models(a, b, "layer.4")
    with pytest.raises(ValueError, match="different architecture"):
        stitch_models(a, mlp(1, width=9), 1)
