"""What must hold exactly, whatever the nets: no training, no luck."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sklmc import LMCScorer, PermutationAligner
from sklmc._torch import seeded
from sklmc.models import view
from sklmc.nets import MLP
from sklmc.symmetry import discover_symmetry

EXACT = 1e-10  # float64 nets: rounding only


def double_mlps(n=2, seed=0, scale=2.0, **arguments):
    """Random float64 nets 7-width-3."""
    with seeded(seed):
        nets = [MLP(7, 3, **{"width": 8, **arguments}).double() for _ in range(n)]
    with torch.no_grad():
        for net in nets:
            for parameter in net.parameters():
                parameter *= scale
    return nets


@pytest.mark.parametrize("calibration", [None, "in_sample", "crossfit"])
@pytest.mark.parametrize("n_alphas", [2, 5, 11])
def test_epsilon_is_at_most_the_linear_barrier(nets, moons, n_alphas, calibration):
    score = LMCScorer(n_alphas=n_alphas, calibration=calibration).pairwise(nets, *moons)
    assert (score.epsilon <= score.barrier + 1e-15).all()
    assert (score.epsilon >= 0).all()
    assert score.barrier.max() > 0.01
    if calibration == "in_sample":
        assert (score.calibrated_loss <= score.loss + 1e-12).all()


@pytest.mark.parametrize("calibration", ["in_sample", "crossfit"])
def test_net_and_itself_have_barrier_zero(nets, moons, calibration):
    score = LMCScorer(calibration=calibration).path(nets[0], nets[0], *moons)
    for metric in ("loss", "error", "calibrated_loss"):
        assert score.barrier_for(metric=metric) == 0.0
        assert np.ptp(score.values(metric)) == 0.0


def test_permuted_copy_has_a_barrier_until_it_is_aligned(data):
    X, _ = data
    (net,) = double_mlps(1, depth=2)
    with torch.no_grad():
        y = net(torch.from_numpy(X).double()).argmax(dim=1).numpy()
    symmetry = discover_symmetry(net)
    copy = symmetry.apply(net, symmetry.random_permutation(0))
    before = LMCScorer().path(net, copy, X, y)
    assert before.loss[0] == pytest.approx(before.loss[-1], abs=EXACT)
    assert before.barrier > 0.01
    for aligner in ("weight", PermutationAligner()):
        assert LMCScorer(aligner=aligner).path(net, copy, X, y).barrier == 0.0
        assert LMCScorer(aligner=aligner).pairwise([net, copy], X, y).barrier[0, 1] == 0.0


def test_linear_nets_follow_the_quadratic_expansion_in_alpha(data):
    """alpha^2 W2B W1B + alpha (1 - alpha) (W2A W1B + W2B W1A) + (1 - alpha)^2 W2A W1A."""
    X, y = data
    with seeded(0):
        a, b = (
            nn.Sequential(nn.Linear(7, 5, bias=False), nn.Linear(5, 3, bias=False)).double()
            for _ in range(2)
        )
    score = LMCScorer(n_alphas=7).path(a, b, X, y)
    w1a, w2a, w1b, w2b = (layer.weight.detach() for net in (a, b) for layer in net)
    for alpha, loss in zip(score.alphas, score.loss):
        product = (
            alpha**2 * w2b @ w1b
            + alpha * (1 - alpha) * (w2a @ w1b + w2b @ w1a)
            + (1 - alpha) ** 2 * w2a @ w1a
        )
        logits = torch.from_numpy(X).double() @ product.T
        wanted = float(functional.cross_entropy(logits, torch.from_numpy(y)))
        assert loss == pytest.approx(wanted, abs=EXACT)


def block_disjoint(depth, seed=0):
    """Two bias-free nets whose hidden units are different halves of the same layers."""
    a, b = double_mlps(2, seed=seed, width=8, depth=depth, bias=False)
    with torch.no_grad():
        for net, mine in ((a, slice(0, 4)), (b, slice(4, 8))):
            layers = [part for part in net.layers if isinstance(part, nn.Linear)]
            for k, layer in enumerate(layers):
                kept = torch.zeros_like(layer.weight)
                rows = mine if k < len(layers) - 1 else slice(None)
                columns = mine if k > 0 else slice(None)
                kept[rows, columns] = layer.weight[rows, columns]
                layer.weight.copy_(kept)
    return a, b


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_block_disjoint_nets_need_two_to_the_layers_times_the_inverse_temperature(depth):
    a, b = block_disjoint(depth)
    X = np.random.default_rng(0).normal(size=(300, 7))
    with torch.no_grad():
        mean_logits = 0.5 * (a(torch.from_numpy(X)) + b(torch.from_numpy(X)))
        generator = torch.Generator().manual_seed(0)
        y = torch.multinomial(torch.softmax(3 * mean_logits, 1), 1, generator=generator)[:, 0]
    n_layers = depth + 1
    path = LMCScorer(n_alphas=3, calibration="in_sample").path(a, b, X, y.numpy())

    class MeanLogits(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, dtype=torch.float64))
            self.parts = nn.ModuleList([a, b])

        def forward(self, x):
            return self.scale * 0.5 * (self.parts[0](x) + self.parts[1](x))

    mean = MeanLogits()
    ensemble = LMCScorer(n_alphas=3, calibration="in_sample").path(mean, mean, X, y.numpy())
    ratio = path.inverse_temperature[1] / ensemble.inverse_temperature[1]
    assert ratio == pytest.approx(2.0 ** (n_layers - 1), rel=1e-6)
    assert path.calibrated_loss[1] == pytest.approx(ensemble.calibrated_loss[1], abs=1e-9)


def counterexample():
    """Two nets that compute the same labels and keep a barrier under every permutation."""

    def net(w1, b1, w2, b2):
        layers = nn.Sequential(
            nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)
        ).double()
        tensors = [w1, b1, w2, b2, [[0, 0], [-1, -1]], [0, 1e-6]]
        with torch.no_grad():
            for parameter, value in zip(layers.parameters(), tensors):
                parameter.copy_(torch.tensor(value, dtype=torch.float64))
        return layers

    a = net([[-1, 0], [0, -1]], [1, 0], [[-1, 0], [0, 1]], [1, 0])
    b = net([[1, 0], [0, 1]], [0, 1], [[1, 0], [0, -1]], [0, 1])
    return a, b


def test_counterexample_keeps_its_error_barrier_under_all_four_permutations():
    a, b = counterexample()
    X = np.random.default_rng(0).uniform(-1, 1, size=(20_000, 2))
    y = ((X[:, 0] <= 0) & (X[:, 1] >= 0)).astype(int)
    swap = torch.tensor([1, 0])
    for first in (False, True):
        for second in (False, True):
            moved = {name: tensor.clone() for name, tensor in view(b, caller="t").state.items()}
            if first:
                moved["0.weight"], moved["0.bias"] = moved["0.weight"][swap], moved["0.bias"][swap]
                moved["2.weight"] = moved["2.weight"][:, swap]
            if second:
                moved["2.weight"], moved["2.bias"] = moved["2.weight"][swap], moved["2.bias"][swap]
                moved["4.weight"] = moved["4.weight"][:, swap]
            other = view(b, caller="t").rebuild(moved)
            score = LMCScorer("error", n_alphas=11).path(a, other, X, y)
            assert score.error[0] == score.error[-1] == 0.0
            assert score.midpoint() == pytest.approx(0.25, abs=0.015)
            assert score.barrier >= 0.235
    aligned = LMCScorer("error", aligner="weight").path(a, b, X, y)
    assert aligned.midpoint() == pytest.approx(0.25, abs=0.015)
