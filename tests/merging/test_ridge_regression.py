"""Ridge regression from streamed sums."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from sklmc.merging._repairs._layer_moments import LayerMoments
from sklmc.merging._repairs._ridge_regression import (
    N_FOLDS,
    RIDGE,
    RIDGES,
    RidgeRegression,
)


def problem(n=200, groups=2, n_outputs=3, n_inputs=4, noise=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, groups, n_inputs, generator=generator, dtype=torch.float64) + 1.0
    weight = torch.randn(groups, n_outputs, n_inputs, generator=generator, dtype=torch.float64)
    t = torch.einsum("ngi,goi->ngo", x, weight) + 2.0
    return x, t + noise * torch.randn(t.shape, generator=generator, dtype=torch.float64), weight


def fitted(x, t, start, intercept=True, by_folds=False, size=20):
    folds = [LayerMoments() for _ in range(N_FOLDS if by_folds else 1)]
    for block, rows in enumerate(range(0, len(x), size)):
        folds[block % len(folds)].add(x[rows : rows + size], t[rows : rows + size])
    return RidgeRegression(start, intercept, folds)


@pytest.mark.parametrize("intercept", [True, False])
def test_agrees_with_ridge_of_scikit_learn(intercept):
    x, t, _ = problem()
    start = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight, shift = fitted(x, t, start, intercept).solve()
    for group in range(2):
        inputs, residual = x[:, group].numpy(), (t[:, group] - x[:, group] @ start[group].T).numpy()
        centred = inputs - inputs.mean(axis=0) if intercept else inputs
        ridge = RIDGE * np.square(centred).sum(axis=0).mean()
        theirs = Ridge(alpha=ridge, fit_intercept=intercept).fit(inputs, residual)
        np.testing.assert_allclose(weight[group], start[group] + theirs.coef_, rtol=1e-8)
        np.testing.assert_allclose(shift[group], theirs.intercept_ * np.ones(3), rtol=1e-7)


def test_exact_data_give_the_exact_weights_if_the_start_is_right():
    x, t, true = problem(noise=0.0)
    weight, shift = fitted(x, t, true).solve()
    torch.testing.assert_close(weight, true)
    torch.testing.assert_close(shift, torch.full_like(shift, 2.0))


def test_unseen_directions_keep_the_start():
    x, t, _ = problem(n_inputs=4)
    x[..., 3] = 0.0
    start = torch.full((2, 3, 4), 7.0, dtype=torch.float64)
    weight, _ = fitted(x, t, start).solve()
    torch.testing.assert_close(weight[..., 3], start[..., 3])
    assert not torch.allclose(weight[..., 0], start[..., 0])


def test_dead_inputs_keep_the_start_and_set_the_intercept():
    x, t, _ = problem()
    weight, shift = fitted(torch.zeros_like(x), t, torch.ones(2, 3, 4)).solve()
    assert (weight == 1).all()
    torch.testing.assert_close(shift, t.mean(dim=0))


def test_singular_matrix_is_no_obstacle():
    x, t, _ = problem(n=6)
    x[..., 1] = x[..., 0]
    weight, shift = fitted(x[:2], t[:2], torch.zeros(2, 3, 4)).solve()
    assert torch.isfinite(weight).all()
    assert torch.isfinite(shift).all()


def test_fold_errors_are_those_of_the_left_out_rows():
    x, t, _ = problem(n=60)
    solver = fitted(x, t, torch.zeros(2, 3, 4), by_folds=True, size=12)
    folds = list(solver.folds)
    third = folds.pop(2)
    weight, shift = solver._solve(folds, 0.1)
    left_out = slice(24, 36)
    given = torch.einsum("ngi,goi->ngo", x[left_out], weight) + shift
    assert third.error(weight, shift) == pytest.approx(
        float((t[left_out] - given).square().sum()), rel=1e-8
    )
    alone = fitted(torch.cat([x[:24], x[36:]]), torch.cat([t[:24], t[36:]]), torch.zeros(2, 3, 4))
    torch.testing.assert_close(weight, alone._solve(alone.folds, 0.1)[0])


def test_noise_asks_for_a_large_ridge_and_order_for_a_small_one():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 1, 40, generator=generator, dtype=torch.float64)
    noise = torch.randn(60, 1, 2, generator=generator, dtype=torch.float64)
    start = torch.zeros(1, 2, 40)
    assert fitted(x, noise, start, by_folds=True, size=6)._ridge() == RIDGES[-1]
    exact = torch.einsum("ngi,goi->ngo", x, torch.ones(1, 2, 40, dtype=torch.float64))
    assert fitted(x, exact, start, by_folds=True, size=6)._ridge() == RIDGES[0]


def test_moments_are_those_of_the_fitted_outputs():
    x, t, _ = problem()
    solver = fitted(x, t, torch.zeros(2, 3, 4))
    weight, _ = solver.solve()
    given = torch.einsum("ngi,goi->ngo", x, weight)
    mean, variance = solver.moments(weight)
    torch.testing.assert_close(mean, given.mean(dim=0))
    torch.testing.assert_close(variance, given.var(dim=0))
