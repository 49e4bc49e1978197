"""The evaluators of a path: all compute the same, none changes a model."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sklmc import LMCScorer, interpolate_models
from sklmc._torch import seeded
from sklmc.connectivity import _chain_evaluator, _path_job
from sklmc.connectivity._chain_evaluator import ChainEvaluator, _permuted_copies
from sklmc.models import view
from sklmc.nets import VGG11, ResNet20
from sklmc.symmetry import discover_symmetry

ROUNDING = 1e-5  # relative: float32 sums in another order
NETS = {
    "plain": {"depth": 2},
    "layer norm": {"depth": 2, "norm": "layer"},
    "no bias": {"depth": 2, "bias": False, "norm": "layer"},
    "linear": {"depth": 0},
    "deep": {"depth": 4},
}


class Functional(nn.Module):
    """A net whose activation is no module."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(7, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(functional.gelu(self.first(x)) ** 2)


class Scaled(nn.Module):
    """A net with a weight in front of its first layer: that layer's output is not linear."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(7) + 0.5)
        self.first, self.last = nn.Linear(7, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.relu(self.first(self.scale * x)))


class Tied(nn.Module):
    """A net that calls its first layer twice."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(7, 7), nn.Linear(7, 3)

    def forward(self, x):
        return self.last(torch.relu(self.first(torch.relu(self.first(x)))))


def convolutional():
    return nn.Sequential(
        nn.Unflatten(1, (1, 7)), nn.Conv1d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(20, 3)
    )


def normed():
    return nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(7, 6)), nn.ReLU(), nn.Linear(6, 3)
    )


def in_place():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(7, 6), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(6, 3)
    )


def shrinking():
    return nn.Sequential(nn.Linear(7, 6), nn.Softshrink(), nn.Tanhshrink(), nn.Linear(6, 3))


def gated():
    return nn.Sequential(nn.Linear(7, 6), nn.GLU(), nn.Linear(3, 3))


OTHERS = {
    Functional: "split",
    Scaled: "plain",
    Tied: "plain",
    convolutional: "split",
    normed: "plain",
    in_place: "chain",
    shrinking: "chain",
    gated: "split",
}


def forced(monkeypatch, evaluator):
    """Let the planner choose nothing faster than `evaluator`."""
    if evaluator in ("split", "plain"):
        monkeypatch.setattr(_path_job, "chain_layers", lambda *args: None)
    if evaluator == "plain":
        monkeypatch.setattr(_path_job, "first_weight_layer", lambda *args: None)


def chosen(monkeypatch):
    """Note which evaluators are planned."""
    names = []
    original = _path_job.make_evaluator

    def note(name, *args):
        names.append(name)
        return original(name, *args)

    monkeypatch.setattr(_path_job, "make_evaluator", note)
    return names


def by_hand(a, b, X, y, alphas):
    """Loss and error along the path by the plain loop."""
    losses, errors = [], []
    for alpha in alphas:
        module = interpolate_models(a, b, alpha).eval()
        with torch.no_grad():
            logits = module(torch.from_numpy(X)).double()
        losses.append(float(functional.cross_entropy(logits, torch.from_numpy(y))))
        errors.append(float((logits.argmax(dim=1).numpy() != y).mean()))
    return np.array(losses), np.array(errors)


@pytest.mark.parametrize("evaluator", ["chain", "split", "plain"])
@pytest.mark.parametrize("name", NETS)
def test_every_evaluator_is_the_plain_loop(monkeypatch, make_mlps, data, name, evaluator):
    a, b = make_mlps(2, **NETS[name])
    forced(monkeypatch, evaluator)
    names = chosen(monkeypatch)
    score = LMCScorer().path(a, b, *data)
    assert names[-1] == evaluator
    loss, error = by_hand(a, b, *data, score.alphas)
    np.testing.assert_allclose(score.loss, loss, rtol=ROUNDING)
    np.testing.assert_allclose(score.error, error)


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
def test_other_nets_take_the_evaluator_that_fits_them(monkeypatch, data, kind):
    with seeded(0):
        a, b = kind(), kind()
    names = chosen(monkeypatch)
    score = LMCScorer().path(a, b, *data)
    assert names[-1] == OTHERS[kind]
    loss, error = by_hand(a, b, *data, score.alphas)
    np.testing.assert_allclose(score.loss, loss, rtol=ROUNDING)
    np.testing.assert_allclose(score.error, error)


@pytest.mark.filterwarnings("ignore::sklmc.exceptions.StaleStatisticsWarning")
@pytest.mark.parametrize("evaluator", ["chain", "split", "plain"])
def test_batch_norm_in_eval_mode(monkeypatch, make_mlps, data, evaluator):
    a, b = make_mlps(2, depth=2, norm="batch")
    forced(monkeypatch, evaluator)
    names = chosen(monkeypatch)
    score = LMCScorer().path(a, b, *data)
    assert names[-1] == evaluator
    np.testing.assert_allclose(score.loss, by_hand(a, b, *data, score.alphas)[0], rtol=ROUNDING)


def test_first_layer_with_its_units_reordered_needs_no_product(make_mlps, data):
    a, b = make_mlps(2, width=9)
    symmetry = discover_symmetry(b)
    moved = symmetry.apply(b, symmetry.random_permutation(0))
    views = [view(net, caller="test") for net in (a, b, moved, a)]
    weights = [(one.state["layers.0.weight"], one.state["layers.0.bias"]) for one in views]
    sources = _permuted_copies(weights)
    assert sources[:2] == [None, None]
    assert [source[0] for source in sources[2:]] == [1, 0]
    assert torch.equal(weights[1][0][sources[2][1]], weights[2][0])
    layers = [f"layers.{k}" for k in range(3)]
    evaluator = ChainEvaluator(views[0], [one.state for one in views], [0.5], True, layers)
    evaluator.load((torch.from_numpy(data[0]),))
    x = torch.from_numpy(data[0]).T
    torch.testing.assert_close(evaluator.first[2], weights[2][0] @ x + weights[2][1][:, None])


def test_layers_with_equal_units_are_not_taken_for_copies():
    same = torch.ones(3, 2)
    assert _permuted_copies([(same, None), (same.clone(), None)]) == [None, None]


def test_an_evaluator_that_errs_is_not_taken(monkeypatch, make_mlps, data):
    """Where the chain's own arithmetic is wrong, the proof on a few samples must see it."""
    right = _chain_evaluator._layer_norm
    monkeypatch.setattr(_chain_evaluator, "_layer_norm", lambda *args: 1.01 * right(*args))
    names = chosen(monkeypatch)
    LMCScorer().path(*make_mlps(2, depth=2, norm="layer"), *data)
    assert names[-1] == "split"


def test_float64_nets_stay_in_float64(make_mlps, data):
    X, y = data
    a, b = (net.double() for net in make_mlps(2, depth=2))
    score = LMCScorer().path(a, b, X, y)
    wanted = by_hand(a, b, X.astype(np.float64), y, score.alphas)[0]
    np.testing.assert_allclose(score.loss, wanted, rtol=1e-12)


def test_blocks_of_samples_do_not_matter(monkeypatch, make_mlps, data):
    a, b = make_mlps(2)
    whole = LMCScorer(calibration="crossfit").path(a, b, *data)
    monkeypatch.setattr(_chain_evaluator, "MIN_ROWS", 7)
    monkeypatch.setattr(_chain_evaluator, "MAX_ROWS", 7)
    cut = LMCScorer(calibration="crossfit").path(a, b, *data)
    np.testing.assert_allclose(cut.loss, whole.loss, rtol=ROUNDING)
    np.testing.assert_allclose(cut.calibrated_loss, whole.calibrated_loss, rtol=ROUNDING)


def test_models_are_left_as_they_were(data):
    with seeded(0):
        a, b = in_place(), in_place()
    a.train(), b.eval()
    before = copy.deepcopy((a, b))
    LMCScorer().path(a, b, *data)
    assert a.training
    assert not b.training
    for module, old in zip((a, b), before):
        assert all(p.requires_grad for p in module.parameters())
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
        for name, tensor in view(module, caller="test").state.items():
            assert torch.equal(tensor, old.state_dict()[name])


def test_token_models_are_scored_over_tokens():
    with seeded(0):
        a, b = (
            nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5))
            for _ in range(2)
        )
    tokens = np.arange(32).reshape(8, 4) % 5  # as many tokens as classes would be refused
    target = (tokens + 1) % 5
    score = LMCScorer(calibration="crossfit").path(a, b, tokens, target)
    for alpha, loss in zip(score.alphas, score.loss):
        with torch.no_grad():
            logits = interpolate_models(a, b, alpha)(torch.from_numpy(tokens))
        wanted = functional.cross_entropy(
            logits.reshape(-1, 5).double(), torch.from_numpy(target).reshape(-1)
        )
        assert loss == pytest.approx(float(wanted), rel=ROUNDING)
    assert np.isfinite(score.calibrated_loss).all()


def test_one_logit_counts_as_two_classes(data):
    X, y = data
    with seeded(0):
        one = [nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 1)) for _ in range(2)]
    two = []
    for net in one:
        with seeded(0):
            wide = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2))
        with torch.no_grad():
            wide[0].load_state_dict(net[0].state_dict())
            wide[2].weight.copy_(torch.cat([torch.zeros(1, 5), net[2].weight]))
            wide[2].bias.copy_(torch.cat([torch.zeros(1), net[2].bias]))
        two.append(wide)
    scorer = LMCScorer(calibration="in_sample")
    seen, wanted = scorer.path(*one, X, y % 2), scorer.path(*two, X, y % 2)
    np.testing.assert_allclose(seen.loss, wanted.loss, rtol=ROUNDING)
    np.testing.assert_allclose(seen.calibrated_loss, wanted.calibrated_loss, rtol=ROUNDING)
    np.testing.assert_array_equal(seen.error, wanted.error)


@pytest.mark.filterwarnings("ignore::sklmc.exceptions.StaleStatisticsWarning")
@pytest.mark.parametrize("norm", [None, "layer", "batch"])
@pytest.mark.parametrize("kind", [VGG11, ResNet20], ids=lambda kind: kind.__name__)
def test_convolutional_nets_of_the_library_take_the_split_evaluator(monkeypatch, kind, norm):
    with seeded(0):
        a, b = (kind(width_multiplier=1 / 16, norm=norm) for _ in range(2))
        X = torch.randn(6, 3, 32, 32)
    y = np.arange(6) % 10
    names = chosen(monkeypatch)
    score = LMCScorer(n_alphas=3).path(a, b, X, y)
    assert names[-1] == "split"
    with torch.no_grad():
        logits = interpolate_models(a, b, 0.5).eval()(X).double()
    wanted = float(functional.cross_entropy(logits, torch.from_numpy(y)))
    assert score.loss[1] == pytest.approx(wanted, rel=ROUNDING)
    forced(monkeypatch, "plain")
    plain = LMCScorer(n_alphas=3).path(a, b, X, y)
    assert names[-1] == "plain"
    np.testing.assert_allclose(score.loss, plain.loss, rtol=ROUNDING)


def test_transformer_layer_of_torch_takes_an_evaluator_that_is_right(data):
    X, y = data
    with seeded(0):
        a, b = (
            nn.Sequential(
                nn.Unflatten(1, (7, 1)),
                nn.Linear(1, 8),
                nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
                nn.Flatten(),
                nn.Linear(56, 3),
            )
            for _ in range(2)
        )
    score = LMCScorer(n_alphas=5).path(a, b, X, y)
    np.testing.assert_allclose(score.loss, by_hand(a, b, X, y, score.alphas)[0], rtol=1e-4)
