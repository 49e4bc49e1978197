import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons
from sklearn.exceptions import NotFittedError
from torch import nn

from sklmc import DeepEnsemble, NetClassifier, PermutationAligner, interpolate_models
from sklmc.exceptions import ArchitectureMismatchError, NonFiniteError
from sklmc.models import view
from sklmc.nets import MLP
from sklmc.symmetry import cached_symmetry, discover_symmetry

NORMS = (None, "layer", "batch")


def make_net(seed, width=8, depth=2, norm=None, n_features=10):
    """A net with nothing at its initial value: norm parameters and statistics included."""
    generator = torch.Generator().manual_seed(seed)
    net = MLP(n_features=n_features, n_outputs=3, width=width, depth=depth, norm=norm)
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        for name, tensor in net.named_parameters():
            if name.endswith("weight") and tensor.ndim == 2:
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return net


def bytes_of(net):
    return {name: tensor.numpy().tobytes() for name, tensor in net.state_dict().items()}


# -- truths ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("width", [4, 32, 512])
def test_planted_permutation_comes_back_on_the_output_of_transform(width, depth, norm):
    for seed in range(20):
        a = make_net(seed, width, depth, norm)
        symmetry = cached_symmetry(view(a, caller="test"))
        planted = symmetry.random_permutation(seed)
        b = symmetry.apply(a, planted)
        aligner = PermutationAligner(symmetry=symmetry).fit(a, b)
        assert bytes_of(aligner.transform(b)) == bytes_of(a)
        assert aligner.permutation_ == planted.inverse()
        assert bytes_of(aligner.inverse_transform(aligner.transform(b))) == bytes_of(b)


def test_one_hidden_layer_converges_in_one_sweep():
    for seed in range(20):
        aligner = PermutationAligner().fit(make_net(seed, depth=1), make_net(100 + seed, depth=1))
        assert aligner.n_iter_ == 1


def test_identical_nets_need_no_sweep():
    a = make_net(0)
    aligner = PermutationAligner().fit(a, a)
    assert aligner.n_iter_ == 0
    assert aligner.permutation_.n_moved == 0


@pytest.mark.parametrize("norm", NORMS)
def test_aligned_net_computes_same_function(norm):
    a, b = (make_net(seed, norm=norm).double().eval() for seed in (0, 1))
    moved = PermutationAligner().fit_transform(a, b)
    x = torch.randn(20, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved(x), b(x), rtol=1e-12, atol=1e-12)
    assert bytes_of(moved) != bytes_of(b)


@pytest.mark.parametrize("norm", NORMS)
def test_objective_is_minus_half_the_squared_distance_up_to_a_constant(norm):
    """Distances count every permuted parameter once, and no running statistics."""
    a, b = make_net(0, norm=norm), make_net(1, norm=norm)
    aligner = PermutationAligner().fit(a, b)
    moved = aligner.transform(b)

    def distance(net):
        pairs = zip(a.parameters(), net.parameters(), strict=True)
        return sum((p.double() - q.double()).square().sum().item() for p, q in pairs)

    gained = aligner.objective_path_[-1] - aligner.objective_path_[0]
    assert gained > 0
    assert distance(b) - distance(moved) == pytest.approx(2 * gained, rel=1e-5)
    assert aligner.objective_ == aligner.objective_path_[-1]
    assert len(aligner.objective_path_) == aligner.n_iter_ + 1
    assert (np.diff(aligner.objective_path_) > 0).all()


COUNTEREXAMPLE = {
    "a": ([[-1, 0], [0, -1]], [1, 0], [[-1, 0], [0, 1]], [1, 0]),
    "b": ([[1, 0], [0, 1]], [0, 1], [[1, 0], [0, -1]], [0, 1]),
}


def counterexample_net(name):
    """Ainsworth, Hayase, Srinivasa, appendix A.6: no permutation removes the barrier."""
    w1, b1, w2, b2 = COUNTEREXAMPLE[name]
    net = nn.Sequential(
        nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1, bias=False)
    )
    with torch.no_grad():
        values = (w1, b1, w2, b2, [[-1, -1]])
        for parameter, value in zip(net.parameters(), values, strict=True):
            parameter.copy_(torch.tensor(value))
    return net


def test_git_rebasin_counterexample_keeps_its_barrier_and_both_layers_swap():
    a, b = counterexample_net("a"), counterexample_net("b")
    x = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    label = (x[:, 0] <= 0) & (x[:, 1] >= 0)

    def error(net):
        with torch.no_grad():
            return float(((net(x)[:, 0] + 1e-6 >= 0) != label).double().mean())

    symmetry = discover_symmetry(a)
    swap, keep = [1, 0], [0, 1]
    first, second = (group.name for group in symmetry.groups)
    objectives = []
    assert error(a) == error(b) == 0
    for p, q in ((keep, keep), (keep, swap), (swap, keep), (swap, swap)):
        moved = symmetry.apply(b, symmetry.permutation({first: p, second: q}))
        assert error(interpolate_models(a, moved, 0.5)) == pytest.approx(0.25, abs=0.02)
        pairs = zip(a.parameters(), moved.parameters(), strict=True)
        objectives.append(sum((s * t).sum().item() for s, t in pairs))
    assert objectives == [-2, 1, 3, 6]
    aligner = PermutationAligner(symmetry=symmetry).fit(a, b)
    assert aligner.objective_ == 6
    assert [list(perm) for perm in aligner.permutation_.values()] == [swap, swap]


def test_more_starts_never_end_lower():
    a, b = make_net(0, width=30, depth=4), make_net(1, width=30, depth=4)
    one = PermutationAligner(random_state=0).fit(a, b)
    many = PermutationAligner(n_init=8, random_state=0).fit(a, b)
    assert many.objective_ >= one.objective_


@pytest.mark.parametrize("n_jobs", [2, -1])
def test_result_does_not_depend_on_n_jobs(n_jobs):
    a, b = make_net(0, width=30, depth=3), make_net(1, width=30, depth=3)
    alone = PermutationAligner(n_init=4, random_state=3).fit(a, b)
    together = PermutationAligner(n_init=4, random_state=3, n_jobs=n_jobs).fit(a, b)
    assert alone.permutation_ == together.permutation_
    assert alone.objective_ == together.objective_


def test_scale_of_dead_units_does_not_hide_small_ones():
    """Units a million times smaller than the rest still find their partner."""
    a = make_net(0, width=12, depth=1)
    with torch.no_grad():
        a.layers[0].weight[6:] *= 1e-6
        a.layers[0].bias[6:] *= 1e-6
        a.layers[2].weight[:, 6:] *= 1e-6
    symmetry = discover_symmetry(a)
    perm = [*range(6), 7, 6, *range(8, 12)]
    b = symmetry.apply(a, symmetry.permutation({symmetry.groups[0].name: perm}))
    assert bytes_of(PermutationAligner().fit_transform(a, b)) == bytes_of(a)


def test_zero_and_constant_weights_end_the_search():
    for value in (0.0, 1.0):
        a, b = make_net(0), make_net(1)
        with torch.no_grad():
            for net in (a, b):
                net.layers[0].weight.fill_(value)
                net.layers[0].bias.fill_(value)
        aligner = PermutationAligner().fit(a, b)
        assert aligner.n_iter_ < aligner.max_iter


# -- contract --------------------------------------------------------------------------------


def test_fitted_nets_and_ensembles_members_align():
    X, y = make_moons(60, noise=0.1, random_state=0)
    net = NetClassifier(module__width=8, max_epochs=3, random_state=0)
    nets = DeepEnsemble(net, n_estimators=2, random_state=0).fit(X, y).estimators_
    aligner = PermutationAligner()
    moved = aligner.fit_transform(*nets)
    assert type(moved) is NetClassifier
    np.testing.assert_allclose(moved.predict_proba(X), nets[1].predict_proba(X), atol=1e-6)
    assert aligner.objective_ > aligner.objective_path_[0]


def test_progress_is_shown_only_when_asked_for(capsys):
    a, b = make_net(0), make_net(1)
    PermutationAligner().fit(a, b)
    assert capsys.readouterr() == ("", "")
    PermutationAligner(verbose=1).fit(a, b)
    assert "weight matching" in capsys.readouterr().err


# -- messages --------------------------------------------------------------------------------


def test_different_architectures_are_refused_by_tensor():
    with pytest.raises(ArchitectureMismatchError, match=r"shape of tensor 'layers.0.weight'"):
        PermutationAligner().fit(make_net(0, width=8), make_net(0, width=9))
    with pytest.raises(ArchitectureMismatchError, match=r"'layers.4.weight' is in 'model_b'"):
        PermutationAligner().fit(make_net(0, depth=1), make_net(0, depth=2))


def test_non_finite_weights_are_refused_by_tensor():
    bad = make_net(0)
    with torch.no_grad():
        bad.layers[2].weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"'layers.2.weight' of 'model_b'"):
        PermutationAligner().fit(make_net(1), bad)


def test_foreign_symmetry_is_refused():
    symmetry = discover_symmetry(make_net(0, width=9))
    with pytest.raises(ArchitectureMismatchError, match="use the symmetry of this architecture"):
        PermutationAligner(symmetry=symmetry).fit(make_net(0), make_net(1))


def test_transform_refuses_another_architecture():
    aligner = PermutationAligner().fit(make_net(0), make_net(1))
    with pytest.raises(ValueError, match=r"layers.0.weight"):
        aligner.transform(make_net(0, width=9))


@pytest.mark.parametrize("method", ["transform", "inverse_transform"])
def test_unfitted_aligner_is_refused(method):
    with pytest.raises(NotFittedError, match="PermutationAligner"):
        getattr(PermutationAligner(), method)(make_net(0))


@pytest.mark.parametrize(
    "params",
    [
        {"method": "sinkhorn"},
        {"n_init": 0},
        {"max_iter": 0},
        {"symmetry": "none"},
        {"random_state": "seed"},
    ],
)
def test_bad_parameters_are_named(params):
    with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter of PermutationAligner"):
        PermutationAligner(**params).fit(make_net(0), make_net(1))


def test_unfitted_net_is_refused():
    with pytest.raises(NotFittedError, match="'model_a' is a NetClassifier that is not fitted"):
        PermutationAligner().fit(NetClassifier(), make_net(0))
