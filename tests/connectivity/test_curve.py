"""A curve of low loss between two nets."""

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import LMCScorer, average_models
from sklmc.connectivity import fit_curve
from sklmc.connectivity._curve import bezier_weights
from sklmc.exceptions import ArchitectureMismatchError
from sklmc.models import view


def state_of(model):
    return view(model, caller="t").state


def test_weights_of_the_curve_sum_to_one_and_end_at_the_ends():
    for t in np.linspace(0, 1, 7):
        assert sum(bezier_weights(t)) == pytest.approx(1.0)
    assert bezier_weights(0.0) == (1.0, 0.0, 0.0)
    assert bezier_weights(1.0) == (0.0, 0.0, 1.0)
    assert bezier_weights(0.5) == (0.25, 0.5, 0.25)


def test_curve_lies_below_the_line_and_both_have_the_same_ends(nets, moons):
    fit = fit_curve(*nets[:2], *moons, n_epochs=100, batch_size=30, random_state=0)
    assert fit.curve.barrier < 0.5 * fit.line.barrier
    assert fit.curve.loss[0] == fit.line.loss[0]
    assert fit.curve.loss[-1] == fit.line.loss[-1]
    assert len(fit.history) == 100
    assert np.mean(fit.history[-10:]) < np.mean(fit.history[:10])


def test_line_is_that_of_the_scorer(nets, moons):
    fit = fit_curve(*nets[:2], *moons, n_epochs=1, n_alphas=5, random_state=0)
    score = LMCScorer(n_alphas=5).path(*nets[:2], *moons)
    np.testing.assert_allclose(fit.line.loss, score.loss, rtol=1e-5)
    np.testing.assert_allclose(fit.line.error, score.error)


def test_middle_of_the_curve_is_the_net_that_the_formula_gives(nets, moons):
    a, b = nets[:2]
    fit = fit_curve(a, b, *moons, n_epochs=2, n_alphas=3, random_state=0)
    middle = average_models([a, fit.bend, b], weights=[0.25, 0.5, 0.25])
    score = LMCScorer(n_alphas=3).path(middle, middle, *moons)
    assert fit.curve.loss[1] == pytest.approx(score.loss[0], rel=1e-5)


def test_same_seed_same_bend_and_inputs_untouched(nets, moons):
    before = [{k: v.clone() for k, v in state_of(net).items()} for net in nets[:2]]
    first, second = (fit_curve(*nets[:2], *moons, n_epochs=2, random_state=3) for _ in range(2))
    for name, tensor in state_of(first.bend).items():
        assert torch.equal(tensor, state_of(second.bend)[name])
    other = fit_curve(*nets[:2], *moons, n_epochs=2, random_state=4)
    assert not torch.equal(*(state_of(one.bend)[name] for one in (first, other)))
    for net, old in zip(nets, before):
        assert all(torch.equal(old[name], tensor) for name, tensor in state_of(net).items())


def test_batch_norm_and_regression():
    def net(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)).eval()

    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    y = x.sum(dim=1, keepdim=True)
    plain = fit_curve(net(0), net(1), x, y, n_epochs=100, random_state=0)
    fit = fit_curve(net(0), net(1), x, y, n_epochs=100, repair="batch_norm", random_state=0)
    assert fit.curve.loss[5] < 0.5 * fit.line.loss[5]
    assert fit.curve.loss[0] == plain.curve.loss[0]  # ends keep their own statistics
    assert fit.curve.loss[5] != plain.curve.loss[5]


@pytest.mark.parametrize(
    "options, match",
    [
        ({"n_alphas": 4}, "'n_alphas' must be odd"),
        ({"n_epochs": 0}, "'n_epochs'"),
        ({"lr": -1.0}, "'lr'"),
        ({"batch_size": 0}, "'batch_size'"),
        ({"repair": "refit"}, "'repair'"),
        ({"aligner": "weights"}, "'aligner'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(nets, moons, options, match):
    with pytest.raises(ValueError, match=match):
        fit_curve(*nets[:2], *moons, **options)


def test_other_architectures_are_refused(nets, moons):
    with pytest.raises(ArchitectureMismatchError):
        fit_curve(nets[0], nn.Linear(2, 2), *moons)
