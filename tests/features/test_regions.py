"""Linear regions of nets with two inputs."""

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import NetClassifier
from sklmc.features import linear_regions
from sklmc.features._regions import area, centroid, cut_polygon
from sklmc.nets import MLP
from tests.features.nets import mlp
from tests.models.conftest import snapshot

BOX = ((-1.0, 1.0), (-1.0, 1.0))


def one_layer(weight, bias):
    """A net whose units switch on the given lines."""
    net = nn.Sequential(nn.Linear(2, len(bias)), nn.ReLU(), nn.Linear(len(bias), 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor(weight, dtype=torch.float32))
        net[0].bias.copy_(torch.tensor(bias, dtype=torch.float32))
    return net


def patterns_on_grid(net, n, bounds=BOX):
    """Count the activation patterns that a pixel grid finds."""
    axes = [torch.linspace(*side, n, dtype=torch.float64) for side in bounds]
    x = torch.cartesian_prod(*axes)
    signs = []
    for part in net.layers:
        x = part(x)
        if isinstance(part, nn.ReLU):
            signs.append(x > 0)
    return len(torch.unique(torch.cat(signs, dim=1), dim=0))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_parallel_lines_make_one_region_more(n):
    offsets = np.linspace(-0.5, 0.5, n)
    regions = linear_regions(one_layer([[1.0, 0.0]] * n, -offsets), BOX)
    assert regions.n_regions == n + 1
    assert sum(map(area, regions.polygons)) == pytest.approx(4.0)


def test_a_grid_of_lines():
    weight = [[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 2
    regions = linear_regions(one_layer(weight, [-0.5, 0.0, 0.5, -0.3, 0.3]), BOX)
    assert regions.n_regions == 4 * 3
    frame = regions.to_frame()
    assert (frame.n_vertices == 4).all()
    np.testing.assert_allclose(frame.area, frame.area.round(12))
    assert "n_regions=12" in repr(regions)


def test_lines_through_one_point_and_twice_the_same_line():
    spokes = [[np.cos(t), np.sin(t)] for t in np.pi * np.arange(6) / 6]
    assert linear_regions(one_layer(spokes, [0.0] * 6), BOX).n_regions == 12
    assert linear_regions(one_layer(spokes * 2, [0.0] * 12), BOX).n_regions == 12


def test_lines_outside_or_on_the_edge_of_the_box_cut_nothing():
    assert linear_regions(one_layer([[1.0, 0.0]] * 2, [-2.0, -1.0]), BOX).n_regions == 1
    assert linear_regions(nn.Linear(2, 3), BOX).n_regions == 1


def test_lines_in_general_position():
    """n lines that all meet inside the box make 1 + n + n (n - 1) / 2 regions."""
    net = mlp(0, d=2, width=7, depth=1)
    assert linear_regions(net, ((-1e4, 1e4), (-1e4, 1e4))).n_regions == 1 + 7 + 21


def test_second_layer_folds_the_plane():
    """|x| - 1/2 switches twice."""
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1), nn.ReLU())
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        net[0].bias.zero_()
        net[2].weight.fill_(1.0)
        net[2].bias.fill_(-0.5)
    assert linear_regions(net, BOX).n_regions == 4


@pytest.mark.parametrize("width,depth", [(12, 1), (6, 2), (5, 3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_never_fewer_than_a_pixel_grid_finds(width, depth, seed):
    net = mlp(seed, d=2, width=width, depth=depth)
    regions = linear_regions(net, BOX)
    found = patterns_on_grid(net, 300)
    assert regions.n_regions >= found
    frame = regions.to_frame()
    assert frame.area.sum() == pytest.approx(4.0)
    # every region of some size holds a grid point
    assert found >= (frame.area > 0.05).sum()


def test_every_region_has_one_pattern():
    net = mlp(0, d=2, width=6, depth=2)
    patterns = []
    for polygon in linear_regions(net, BOX).polygons:
        # points well inside, towards each corner
        x = torch.from_numpy(0.9 * polygon + 0.1 * centroid(polygon))
        signs = []
        for part in net.layers:
            x = part(x)
            if isinstance(part, nn.ReLU):
                signs.append(x > 0)
        pattern = torch.unique(torch.cat(signs, dim=1), dim=0)
        assert len(pattern) == 1
        patterns.append(pattern)
    assert len(torch.unique(torch.cat(patterns), dim=0)) == len(patterns)


def test_other_piecewise_linear_activations():
    first = nn.Linear(2, 1)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[10.0, 0.0]]))
        first.bias.zero_()
    for activation, expected in (
        (nn.LeakyReLU(), 2),
        (nn.PReLU(), 2),
        (nn.ReLU6(), 3),
        (nn.Hardtanh(-3, 4), 3),
        (nn.Hardtanh(-30, 4), 2),
    ):
        net = nn.Sequential(first, activation, nn.Linear(1, 1))
        assert linear_regions(net, BOX).n_regions == expected


def test_functional_relu_shortcut_and_batch_norm():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)

        def forward(self, x):
            return x + self.last(torch.relu(self.norm(self.first(x))))

    net = Residual().eval()
    assert linear_regions(net, ((-1e3, 1e3), (-1e3, 1e3))).n_regions == 7


def test_fitted_classifier_and_untouched_model():
    x = np.random.default_rng(0).normal(size=(40, 2))
    net = NetClassifier(max_epochs=1, module__width=5, random_state=0).fit(x, x[:, 0] > 0)
    before = snapshot(net.module_)
    assert linear_regions(net, BOX).n_regions >= 1
    assert snapshot(net.module_) == before
    with pytest.raises(ValueError, match=r"inputs of shape \(3,\)"):
        linear_regions(NetClassifier(max_epochs=1).fit(np.eye(3), [0, 1, 0]), BOX)


@pytest.mark.parametrize(
    "net,message",
    [
        (nn.Sequential(nn.Linear(2, 3), nn.GELU()), r"\['1'\] of 'model' are not piecewise"),
        (MLP(2, 2, norm="layer"), "not affine where none"),
        (nn.Sequential(nn.Linear(2, 3), nn.Softmax(dim=1)), "not affine where none"),
        (MLP(3, 2), r"inputs of shape \(3,\)"),
        (nn.Conv2d(1, 1, 3), "cannot run on 'X'"),
    ],
)
def test_nets_without_linear_regions_in_the_plane_are_refused(net, message):
    with pytest.raises(ValueError, match=message):
        linear_regions(net, BOX)


@pytest.mark.parametrize("bounds", [None, (0, 1), ((0, 0), (0, 1)), ((0, np.inf), (0, 1))])
def test_bounds_are_a_box(bounds):
    with pytest.raises(ValueError, match="'bounds' must be"):
        linear_regions(MLP(2, 2), bounds)


def test_polygon_cut_keeps_area_and_orientation():
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    values = np.stack([square @ [1.0, 1.0] - 0.5, square @ [1.0, -1.0]], axis=1)
    parts = list(cut_polygon(square, values, np.full(2, 1e-12)))
    assert sorted(round(area(part), 12) for part in parts) == [0.0625, 0.0625, 0.4375, 0.4375]
    for part in parts:
        (ax, ay), (bx, by) = part[1] - part[0], part[2] - part[1]
        assert ax * by - ay * bx > 0
    np.testing.assert_allclose(centroid(square), [0.5, 0.5])
