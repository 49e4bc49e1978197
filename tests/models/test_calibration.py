"""The inverse temperature that fits logits to labels."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional

from sklmc.models import (
    fit_inverse_temperature,
    fit_inverse_temperatures,
    scaled_cross_entropy,
)


def made_up(n=400, n_classes=4, beta=1.0, seed=0):
    """Logits, and labels drawn from softmax(beta * logits)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2.0 * torch.randn(n, n_classes, generator=generator, dtype=torch.float64)
    p = torch.softmax(beta * logits, dim=1)
    return logits, torch.multinomial(p, 1, generator=generator)[:, 0]


@pytest.mark.parametrize("beta", [0.05, 0.5, 1.0, 8.0])
def test_in_sample_is_the_plain_minimiser(beta):
    logits, target = made_up(beta=beta)
    found = minimize_scalar(
        lambda t: float(functional.cross_entropy(np.exp(t) * logits, target)),
        bounds=(-8, 8),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert np.log(fit_inverse_temperature(logits, target)) == pytest.approx(found.x, abs=1e-6)


def test_recovers_the_temperature_that_labels_were_drawn_with():
    logits, target = made_up(n=20_000, beta=3.0)
    for held_out in (False, True):
        assert fit_inverse_temperature(logits, target, held_out=held_out) == pytest.approx(
            3.0, rel=0.06
        )


def test_scale_of_the_logits_is_undone():
    logits, target = made_up()
    for held_out in (False, True):
        assert fit_inverse_temperature(logits / 16, target, held_out=held_out) == pytest.approx(
            16 * fit_inverse_temperature(logits, target, held_out=held_out), rel=1e-8
        )


def test_held_out_imagines_half_a_sample_with_labels_spread_evenly():
    logits, target = made_up(n=60, beta=2.0)

    def loss(t):
        beta = np.exp(t)
        spread = torch.full_like(logits, 1 / logits.shape[1])
        real = functional.cross_entropy(beta * logits, target, reduction="sum")
        return float(real + 0.5 * functional.cross_entropy(beta * logits, spread))

    found = minimize_scalar(loss, bounds=(-8, 8), method="bounded", options={"xatol": 1e-10})
    held_out = fit_inverse_temperature(logits, target, held_out=True)
    assert np.log(held_out) == pytest.approx(found.x, abs=1e-6)


def test_many_sets_at_once_are_the_same_as_one_by_one():
    sets = [made_up(beta=beta, seed=k)[0] for k, beta in enumerate((0.2, 1.0, 5.0))]
    target = made_up()[1]
    stacked = torch.stack([logits.T for logits in sets])
    for held_out in (False, True):
        together = fit_inverse_temperatures(stacked, target, held_out=held_out)
        alone = [fit_inverse_temperature(logits, target, held_out=held_out) for logits in sets]
        np.testing.assert_allclose(together, alone, rtol=1e-8)
        warm = fit_inverse_temperatures(stacked, target, held_out=held_out, start=together)
        np.testing.assert_allclose(warm, together, rtol=1e-6)


def test_separable_samples_run_to_the_bound_in_sample_and_not_held_out():
    target = torch.arange(85) % 2
    logits = torch.stack([1.0 - 2.0 * target, torch.zeros(85)], dim=1)
    assert fit_inverse_temperature(logits, target) > 1e3
    assert fit_inverse_temperature(logits, target, held_out=True) < 6.0


@pytest.mark.parametrize("beta", [0.2, 1.0, 2.5])
def test_85_separable_samples_do_not_spoil_other_samples(beta):
    """All 85 are right by choice, where 2 or 3 mistakes are usual: the plain minimiser calls every
    mistake impossible, and a cross entropy of .09 becomes thousands. Held out, it is .11.
    """
    generator = torch.Generator().manual_seed(0)
    margin = torch.randn(20_000, generator=generator, dtype=torch.float64) * 3 + 6
    right = torch.rand(20_000, generator=generator) < torch.sigmoid(margin)
    logits = torch.stack([margin, torch.zeros_like(margin)], dim=1) / beta
    target = (~right).long()
    separable = ((margin > 0) == right).nonzero()[:85, 0]

    def loss(found):
        return float(functional.cross_entropy(found * logits, target))

    assert loss(fit_inverse_temperature(logits[separable], target[separable])) > 1.0
    held_out = loss(fit_inverse_temperature(logits[separable], target[separable], held_out=True))
    assert held_out < loss(beta) + 0.02


def test_shrinkage_fades_with_the_number_of_samples():
    apart = []
    for n in (50, 500, 5000):
        logits, target = made_up(n=n, beta=4.0)
        free = fit_inverse_temperature(logits, target)
        held_out = fit_inverse_temperature(logits, target, held_out=True)
        assert 1.0 < held_out < free
        apart.append(np.log(free / held_out))
    assert apart[0] > 3 * apart[1] > 9 * apart[2]


def test_worse_than_chance_gives_the_lower_bound():
    logits, _ = made_up()
    worst = logits.argmin(dim=1)
    assert fit_inverse_temperature(logits, worst) < 1e-4


@pytest.mark.parametrize(
    "logits", [torch.zeros(5, 3), torch.full((5, 3), torch.nan), torch.ones(5, 3) * torch.inf]
)
def test_logits_that_say_nothing_get_one(logits):
    assert fit_inverse_temperature(logits, torch.zeros(5, dtype=torch.long)) == 1.0


def test_scaled_cross_entropy_is_torch_s():
    logits, target = made_up()
    seen = scaled_cross_entropy(logits.T[None], target, torch.tensor([0.7]))
    wanted = functional.cross_entropy(0.7 * logits, target, reduction="none")
    torch.testing.assert_close(seen[0], wanted, rtol=1e-6, atol=1e-9)
