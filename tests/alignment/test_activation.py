"""Activation matching: moments, watched units, and what comes of them."""

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import PermutationAligner
from sklmc.alignment._activation import UnitMoments, find_watched_units
from sklmc.alignment._tensor_pairs import MomentPair
from sklmc.nets import MLP
from sklmc.symmetry import discover_symmetry


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seeded_net(build, seed):
    """A net without dead units: those answer to nothing, and nothing tells them apart."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = build().eval()
        with torch.no_grad():
            for tensor in (*net.parameters(), *net.buffers()):
                if tensor.is_floating_point() and tensor.ndim == 1:
                    tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return net


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


# -- moments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_streamed_correlation_is_numpys(offset):
    a, b = draw(300, 5).double() + offset, draw(300, 5, seed=1).double() - offset
    moments = UnitMoments()
    for first in range(0, 300, 70):
        moments.add(a[first : first + 70], b[first : first + 70])
    whole = np.corrcoef(a.numpy().T, b.numpy().T)[:5, 5:]
    np.testing.assert_allclose(moments.correlation().numpy(), whole, atol=1e-9)
    np.testing.assert_allclose(
        moments.cross.uncentred().numpy(), (a.T @ b / 300).numpy(), rtol=1e-9
    )


def test_unit_that_never_changes_has_no_correlation():
    a = draw(50, 3)
    a[:, 1] = 4.2
    moments = UnitMoments()
    moments.add(a, draw(50, 3, seed=1))
    found = moments.correlation()
    assert torch.isfinite(found).all()
    assert (found[1] == 0).all()


def test_unit_that_changes_by_rounding_alone_has_no_correlation():
    a = draw(50, 3).double()
    a[:, 1] = 4.2 + 1e-9 * a[:, 0]
    moments = UnitMoments()
    moments.add(a, a)
    found = moments.correlation()
    assert (found[1] == 0).all()
    assert (found[:, 1] == 0).all()
    assert float(found[0, 0]) == pytest.approx(1.0)


def test_moment_pair_agrees_with_the_activations_it_stands_for():
    """Permuting the matrix is permuting B's units, heads and what lies within them included."""
    sizes = (3, 4)
    za, zb = draw(50, *sizes), draw(50, *sizes, seed=1)
    pair = MomentPair(torch.einsum("shd,sgc->hdgc", za, zb), ("h", "d"), {"h", "d"})
    rng = np.random.RandomState(0)
    head = torch.from_numpy(rng.permutation(3))
    inner = torch.from_numpy(np.stack([rng.permutation(4) for _ in range(3)]))
    pair.permute("h", head, ())
    pair.permute("d", inner, ("h",))
    moved = torch.stack([zb[:, head[i]][:, inner[i]] for i in range(3)], dim=1)
    assert pair.inner_product() == pytest.approx(float((za * moved).sum()), rel=1e-5)
    torch.testing.assert_close(pair.gram("h", ()), torch.einsum("shd,sgd->hg", za, moved))
    torch.testing.assert_close(pair.gram("d", ("h",)), torch.einsum("shd,shc->hdc", za, moved))
    torch.testing.assert_close(
        pair.nested_gram("h", "d", ()), torch.einsum("shd,sgc->hgdc", za, moved)
    )


# -- watched units ------------------------------------------------------------------------


def test_units_are_read_behind_norm_and_nonlinearity():
    net = MLP(n_features=4, n_outputs=3, width=6, depth=2, norm="batch")
    watched = find_watched_units(net, discover_symmetry(net))
    assert [(w.layer, w.side) for w in watched] == [("layers.3", "input"), ("layers.6", "input")]


def test_rows_of_watched_units_are_samples_and_positions():
    net = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
    )
    first, second = find_watched_units(net, discover_symmetry(net, draw(2, 2, 7, 7)))
    x = draw(8, 2, 7, 7)
    channels = net[1](net[0](x))
    torch.testing.assert_close(first.units(channels), channels.movedim(1, -1).reshape(-1, 5))
    flat = net[4](net[3](net[2](channels)))
    torch.testing.assert_close(
        second.units(flat), flat.reshape(8, 4, 9).movedim(1, -1).reshape(-1, 4)
    )


# -- matching --------------------------------------------------------------------------------

NETS = {
    "mlp": (lambda: MLP(n_features=6, n_outputs=3, width=9, depth=3), (300, 6)),
    "layer norm": (
        lambda: MLP(n_features=6, n_outputs=3, width=9, depth=2, norm="layer"),
        (300, 6),
    ),
    "batch norm": (
        lambda: MLP(n_features=6, n_outputs=3, width=9, depth=2, norm="batch"),
        (300, 6),
    ),
    "conv": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 5, 3),
            nn.BatchNorm2d(5),
            nn.ReLU(inplace=True),
            nn.Conv2d(5, 4, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 3),
        ),
        (60, 2, 7, 7),
    ),
    "transformer": (
        lambda: nn.Sequential(
            nn.Linear(5, 8), nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), nn.Linear(8, 3)
        ),
        (80, 4, 5),
    ),
}


@pytest.mark.parametrize(
    ("name", "statistic"),
    [
        (name, statistic)
        for name in NETS
        for statistic in ("correlation", "moment")
        # an uncentred product has no reason to be largest for a unit and itself
        if (name, statistic) != ("mlp", "moment")
    ],
)
def test_planted_permutation_comes_back_from_activations(name, statistic):
    build, shape = NETS[name]
    X = draw(*shape)
    for seed in range(3):
        a = seeded_net(build, seed)
        symmetry = discover_symmetry(a, X)
        b = symmetry.apply(a, symmetry.random_permutation(seed))
        aligner = PermutationAligner("activation", symmetry=symmetry, statistic=statistic)
        assert same(aligner.fit_transform(a, b, X), a)


def test_objective_is_the_sum_of_correlations():
    a, b = (seeded_net(NETS["mlp"][0], seed) for seed in (0, 1))
    X = draw(200, 6)
    aligner = PermutationAligner("activation").fit(a, b, X)
    moved = aligner.transform(b)
    total = 0.0
    with torch.no_grad():
        for index in (2, 4, 6):
            za, zb = (net.layers[:index](X).numpy() for net in (a, moved))
            alive = (za.std(axis=0) > 0) & (zb.std(axis=0) > 0)
            both = np.corrcoef(za[:, alive].T, zb[:, alive].T)
            total += np.diag(both[: alive.sum(), alive.sum() :]).sum()
    assert aligner.objective_ == pytest.approx(total, rel=1e-4)
    assert aligner.method_ == "activation"


def test_units_are_matched_by_what_they_do_not_by_their_weights():
    """B's units are A's with other scales in and out: the same features, other weights."""
    a = seeded_net(lambda: MLP(n_features=6, n_outputs=3, width=12), 0)
    scale = torch.linspace(0.02, 50, 12)
    symmetry = discover_symmetry(a)
    planted = symmetry.random_permutation(3)
    b = symmetry.apply(a, planted)
    with torch.no_grad():
        b.layers[0].weight *= scale[:, None]
        b.layers[0].bias *= scale
        b.layers[2].weight /= scale
    X = draw(400, 6)
    found = PermutationAligner("activation").fit(a, b, X).permutation_
    assert found == planted.inverse()
    assert PermutationAligner("weight").fit(a, b).permutation_ != planted.inverse()


def test_result_does_not_depend_on_how_x_is_cut(monkeypatch):
    a, b = (seeded_net(NETS["conv"][0], seed) for seed in (0, 1))
    X = draw(60, 2, 7, 7)
    whole = PermutationAligner("activation").fit(a, b, X)
    monkeypatch.setattr("sklmc.alignment._activation.INPUT_ROWS", 7)
    monkeypatch.setattr("sklmc.alignment._activation.ROWS_AT_ONCE", 50)
    cut = PermutationAligner("activation").fit(a, b, X)
    assert cut.permutation_ == whole.permutation_
    assert cut.objective_ == pytest.approx(whole.objective_, rel=1e-6)


def test_group_that_no_module_shows_is_matched_by_weight():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.w1 = nn.Parameter(torch.randn(7, 6))
            self.w2 = nn.Parameter(torch.randn(3, 7))

        def forward(self, x):
            return torch.relu(x @ self.w1.T) @ self.w2.T

    a = seeded_net(Functional, 0)
    X = draw(20, 6)
    symmetry = discover_symmetry(a, X)
    b = symmetry.apply(a, symmetry.random_permutation(0))
    assert same(PermutationAligner("activation").fit_transform(a, b, X), a)


def test_x_is_needed():
    a = seeded_net(NETS["mlp"][0], 0)
    with pytest.raises(ValueError, match="method='activation' needs 'X', got None"):
        PermutationAligner("activation").fit(a, a)
    with pytest.raises(ValueError, match=r"model_a cannot run on 'X' of shape \(20, 5\)"):
        PermutationAligner("activation").fit(a, a, draw(20, 5))
