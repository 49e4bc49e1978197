"""The last layer fitted to probabilities: the optimum of a convex problem, and where it applies."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from sklmc import DeepEnsemble, NetClassifier, merge_models
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._head import RIDGE, fit_probabilities
from sklmc.merging._repairs._refit import find_steps, refit_state
from sklmc.merging._repairs._repair import own_predictions, repair_state
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.merging._repairs._steps import find_head
from sklmc.models import Arrays, predict_outputs, view
from tests.merging.averagers import CODES, X
from tests.merging.conftest import randomised

FLAT = 1e-6  # of a slope in nats, where nothing is left to gain
HALF = np.array([0.5, 0.5])

pytestmark = pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning")


def problem(n_rows=300, n_inputs=20, n_logits=3, seed=0, scale=1.0):
    """Return correlated inputs as a ReLU layer gives them, probabilities, weights and shift."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n_rows, 4)) @ rng.normal(size=(4, n_inputs)) + 1.0
    h = scale * np.maximum(hidden, 0.0)
    p = rng.dirichlet(np.full(max(n_logits, 2), 0.5), size=n_rows)
    return h, p, 0.3 * rng.normal(size=(n_logits, n_inputs)) / scale, rng.normal(size=n_logits)


def loss(h, p, start, weight, shift):
    """Return the objective as it is documented."""
    logits = h @ weight.T + (0.0 if shift is None else shift)
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    cross_entropy = -(p * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()
    return cross_entropy + 0.5 * RIDGE * (h**2).mean() * ((weight - start) ** 2).sum()


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("with_shift", [True, False])
@pytest.mark.parametrize("n_logits", [1, 2, 3])
def test_fit_is_the_optimum(n_logits, with_shift, scale):
    h, p, start, shift = problem(n_logits=n_logits, scale=scale)
    weight, moved = fit_probabilities(h, p, start, shift if with_shift else None)
    assert (moved is not None) == with_shift
    h, p, start, weight = map(torch.from_numpy, (h, p, start, weight))
    moved = torch.from_numpy(moved) if with_shift else None
    at = [one.requires_grad_() for one in (weight, moved) if one is not None]
    loss(h, p, start, weight, moved).backward()
    assert max(float(one.grad.abs().max()) for one in at) < FLAT * max(scale, 1.0)


@pytest.mark.parametrize("n_logits", [1, 2, 4])
def test_one_hot_probabilities_give_logistic_regression(n_logits):
    h, _, start, shift = problem(n_logits=n_logits)
    codes = np.random.default_rng(1).integers(0, max(n_logits, 2), len(h))
    one_hot = np.eye(max(n_logits, 2))[codes]
    weight, moved = fit_probabilities(h, one_hot, 0.0 * start, 0.0 * shift)
    strength = RIDGE * np.mean(h * h)
    reference = LogisticRegression(C=1.0 / (len(h) * strength), tol=1e-10, max_iter=10_000)
    reference.fit(h, codes)
    logits = h @ weight.T + moved
    margins = logits[:, -1] - (logits[:, 0] if n_logits == 2 else 0.0) if n_logits < 3 else logits
    if n_logits == 2:  # the penalty of two rows w, -w: half of that of their difference
        half = LogisticRegression(C=2.0 / (len(h) * strength), tol=1e-10, max_iter=10_000)
        reference = half.fit(h, codes)
    wanted = reference.decision_function(h)
    if n_logits > 2:
        margins, wanted = (one - one.mean(axis=1, keepdims=True) for one in (margins, wanted))
    np.testing.assert_allclose(margins, wanted, atol=1e-4)


def test_without_rows_that_say_anything_the_weights_stay():
    _, p, start, shift = problem()
    weight, _ = fit_probabilities(np.zeros((300, 20)), p, start, shift)
    np.testing.assert_array_equal(weight, start)
    weight, nothing = fit_probabilities(np.zeros((300, 20)), p, start, None)
    np.testing.assert_array_equal(weight, start)
    assert nothing is None


def test_inputs_that_are_not_finite_leave_the_weights():
    h, p, start, shift = problem()
    h[3, 4] = np.inf
    weight, moved = fit_probabilities(h, p, start, shift)
    np.testing.assert_array_equal(weight, start)
    np.testing.assert_array_equal(moved, shift)


def chain(seed, *last, n_outputs=3, bias=True):
    return randomised(
        nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, n_outputs, bias=bias), *last), seed
    )


def rows(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def look_at(module):
    return view(module, caller="test")


def refitted(nets, x, target="probability", weights=HALF):
    looks = [look_at(net) for net in nets]
    ends = EndPoints([look.state for look in looks], weights)
    state, _ = refit_state(looks[0], ends.mean(), ends, SampleSet(Arrays(x)), target)
    return looks[0], ends, state


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weights", [HALF, np.array([0.9, 0.1])], ids=["equal", "skewed"])
def test_head_is_at_the_optimum_for_the_mean_probabilities(weights, bias):
    """Of the merged net's own hidden layer, towards the weighted mean of the parts' heads."""
    nets, x = [chain(seed, bias=bias).double() for seed in range(2)], rows(200, 3).double()
    _, ends, state = refitted(nets, x, weights=weights)
    h = torch.relu(x @ state["0.weight"].T + state["0.bias"])
    with torch.no_grad():
        p = sum(w * torch.softmax(net(x), dim=1) for w, net in zip(weights, nets))
    weight = state["2.weight"].clone().requires_grad_()
    shift = state["2.bias"].clone().requires_grad_() if bias else None
    loss(h, p, ends.mean()["2.weight"], weight, shift).backward()
    assert float(weight.grad.abs().max()) < FLAT
    assert not bias or float(shift.grad.abs().max()) < FLAT


def test_hidden_layers_are_those_of_the_mean():
    nets, x = [chain(seed) for seed in range(2)], rows(200, 3)
    _, _, probability = refitted(nets, x)
    _, _, mean = refitted(nets, x, "mean")
    for name in ("0.weight", "0.bias"):
        assert torch.equal(probability[name], mean[name])
    assert not torch.equal(probability["2.weight"], mean["2.weight"])


def divergence(p, outputs):
    return float((p * (p.log() - torch.log_softmax(outputs.double(), dim=-1))).sum(-1).mean())


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_one_logit_stands_for_two(n_outputs):
    """It comes nearer to the ensemble's probabilities than a fit of the mean logits."""
    nets, x = [chain(seed, n_outputs=n_outputs) for seed in range(2)], rows(500, 3)
    looks = [look_at(net) for net in nets]
    p = sum(torch.softmax(two_logits(predict_outputs(one, Arrays(x))), dim=1) / 2 for one in looks)
    found = {}
    for target in ("probability", "mean"):
        look, _, state = refitted(nets, x, target)
        found[target] = divergence(p, two_logits(predict_outputs(look, Arrays(x), state)))
    assert found["probability"] < 0.9 * found["mean"]


def two_logits(outputs):
    single = outputs.shape[-1] == 1
    return torch.cat([torch.zeros_like(outputs), outputs], dim=1) if single else outputs


class Tokens(nn.Module):
    """Gives logits for every place of a sequence."""

    def __init__(self, seed):
        super().__init__()
        self.inner, self.head = nn.Linear(3, 6), nn.Linear(6, 4)
        randomised(self, seed)

    def forward(self, x):
        return self.head(torch.relu(self.inner(x)))


def test_each_token_is_a_row():
    nets, x = [Tokens(seed) for seed in range(2)], rows(60, 5, 3)
    look, _, state = refitted(nets, x)
    flat = [look_at(net) for net in nets]
    ends = EndPoints([one.state for one in flat], HALF)
    as_rows = SampleSet(Arrays(x.reshape(-1, 3)))
    alone, _ = refit_state(flat[0], ends.mean(), ends, as_rows, "probability")
    for name, tensor in state.items():
        np.testing.assert_allclose(tensor, alone[name], atol=1e-4)
    assert predict_outputs(look, Arrays(x), state).shape == (60, 5, 4)


def test_labels_of_tokens_choose_among_targets():
    nets, x = [Tokens(seed) for seed in range(2)], rows(120, 5, 3)
    codes = nets[0](x).argmax(dim=-1)
    merged = merge_models(nets, x, codes.numpy(), aligner=None, repair="refit")
    assert torch.isfinite(merged(x)).all()


class TwoHeads(nn.Module):
    """Gives logits and, beside them, something else."""

    def __init__(self, seed):
        super().__init__()
        self.inner, self.logits, self.aside = nn.Linear(3, 6), nn.Linear(6, 2), nn.Linear(6, 5)
        randomised(self, seed)

    def forward(self, x):
        h = torch.relu(self.inner(x))
        return {"logits": self.logits(h), "aside": self.aside(h)}


def test_what_stands_beside_the_logits_is_fitted_to_no_probabilities():
    """Which of two heads gives the logits is not known to a trace: both are fitted to the mean."""
    nets, x = [TwoHeads(seed) for seed in range(2)], rows(200, 3)
    looks = [look_at(net) for net in nets]
    steps, _ = find_steps(looks[0], looks[0].state, Arrays(x))
    assert find_head(steps) is None
    ends = EndPoints([look.state for look in looks], HALF)
    codes = nets[0](x)["logits"].argmax(dim=1)
    part = torch.arange(200) % 2
    done = repair_state(looks[0], ends.mean(), ends, SampleSet(Arrays(x), codes), "refit")
    assert done.target == "mean"
    own = repair_state(looks[0], ends.mean(), ends, SampleSet(Arrays(x), codes, part), "refit")
    assert own.target in ("own", "mean")


class Sequence(nn.Module):
    """Gives a value for every place of a sequence."""

    def __init__(self, seed):
        super().__init__()
        self.inner, self.head = nn.Linear(3, 6), nn.Linear(6, 1)
        randomised(self, seed)

    def forward(self, x):
        return self.head(torch.relu(self.inner(x)))


def test_values_of_places_are_no_labels_of_rows():
    nets, x = [Sequence(seed) for seed in range(2)], rows(120, 5, 3).numpy()
    y = np.zeros((120, 5, 1), np.float32)
    merged = merge_models(nets, [x[:60], x[60:]], [y[:60], y[60:]], aligner=None, target="own")
    assert torch.isfinite(merged(torch.from_numpy(x))).all()
    with pytest.raises(ValueError, match="target='labels' needs"):
        merge_models(nets, [x[:60], x[60:]], [y[:60], y[60:]], aligner=None, target="labels")


@pytest.mark.parametrize("last", [nn.Softmax(dim=1), nn.LogSoftmax(dim=1)], ids=["p", "log p"])
def test_net_that_ends_with_a_softmax_has_no_head_to_fit(last):
    """Its last layer gives logits that something reads: it is fitted to their mean."""
    nets, x = [chain(seed, last) for seed in range(2)], rows(200, 3)
    _, _, probability = refitted(nets, x)
    _, _, mean = refitted(nets, x, "mean")
    for name, tensor in probability.items():
        assert torch.equal(tensor, mean[name])


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss, nn.BCEWithLogitsLoss])
def test_fitted_classifiers_merge_towards_their_ensemble(criterion):
    net = NetClassifier(module__width=8, max_epochs=10, criterion=criterion, random_state=0)
    ensemble = DeepEnsemble(net, 2, random_state=0).fit(X, CODES)
    wanted = torch.from_numpy(ensemble.predict_proba(X)).double()
    found = {}
    for target in ("probability", "mean"):
        merged = merge_models(ensemble, X, repair="refit", target=target)
        logs = torch.from_numpy(merged.predict_proba(X)).double().log()
        found[target] = float((wanted * (wanted.log() - logs)).sum(dim=1).mean())
    assert found["probability"] < found["mean"]


def test_auto_takes_probabilities_where_they_are_nearer():
    """An overconfident part rules the mean of logits, and not that of probabilities."""
    net = NetClassifier(module__width=8, max_epochs=10, random_state=0)
    ensemble = DeepEnsemble(net, 2, random_state=0).fit(X, CODES)
    first, second = (look_at(one) for one in ensemble.estimators_)
    sure = {name: 20.0 * tensor for name, tensor in second.state.items()}
    ends = EndPoints([first.state, sure], HALF)
    samples = SampleSet(first.to_input(X.astype(np.float32)))
    done = repair_state(first, ends.mean(), ends, samples, "refit")
    assert done.target == "probability"


def test_modules_with_labels_are_taught_probabilities():
    """A module has no task; labels that are codes say that its outputs are logits."""
    look = view(nn.Linear(2, 3), caller="f")
    x, codes = torch.randn(40, 2), torch.arange(40) % 3
    ends = EndPoints.alike([look.state])
    with_labels = own_predictions(look, ends, SampleSet(Arrays(x), codes))
    torch.testing.assert_close(with_labels.sum(dim=1), torch.ones(40, dtype=torch.float64))
    without = own_predictions(look, ends, SampleSet(Arrays(x)))
    torch.testing.assert_close(without, look.original(x).detach().double())
