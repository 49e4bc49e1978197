"""Ridge regression where rows are few, or a group sees nothing."""

import torch

from sklmc.merging._repairs._ridge_regression import RIDGE, RIDGES
from tests.merging.test_ridge_regression import fitted, problem


def test_a_dead_group_does_not_keep_the_others_from_being_fitted():
    x, t, true = problem(noise=0.0)
    start = true + 1.0
    alone, _ = fitted(x[:, 1:], t[:, 1:], start[1:]).solve()
    x[:, 0] = 0.0
    weight, _ = fitted(x, t, start).solve()
    assert torch.equal(weight[0], start[0])
    torch.testing.assert_close(weight[1], alone[0])
    assert not torch.allclose(weight[1], start[1], atol=0.1)


def test_two_folds_are_enough_to_choose_a_ridge_and_one_is_not():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 1, 40, generator=generator, dtype=torch.float64)
    noise = torch.randn(60, 1, 2, generator=generator, dtype=torch.float64)
    start = torch.zeros(1, 2, 40)
    assert fitted(x, noise, start, by_folds=True, size=30)._ridge() == RIDGES[-1] != RIDGE
    assert fitted(x, noise, start, by_folds=True, size=60)._ridge() == RIDGE
    assert fitted(x, noise, start, by_folds=False, size=30)._ridge() == RIDGE


def test_variance_of_two_rows_is_unbiased_and_of_one_is_zero():
    x, t, weight = problem(n=2)
    solver = fitted(x, t, torch.zeros(2, 3, 4))
    given = torch.einsum("ngi,goi->ngo", x, weight)
    torch.testing.assert_close(solver.moments(weight)[1], given.var(dim=0))
    mean, variance = fitted(x[:1], t[:1], torch.zeros(2, 3, 4)).moments(weight)
    torch.testing.assert_close(mean, given[0])
    assert (variance == 0).all()


def test_rank_below_rounding_is_solved_with_a_larger_ridge():
    """A ridge that is lost beside the diagonal grows tenfold until the matrix can be solved."""
    x, t, _ = problem(n=40, noise=0.0)
    x[..., 1] = x[..., 0]
    start = torch.zeros(2, 3, 4, dtype=torch.float64)
    solver = fitted(x, t, start)
    tiny, _ = solver._solve(solver.folds, 1e-18)  # lost in rounding beside the diagonal
    again, _ = solver._solve(solver.folds, 1e-12)
    assert torch.isfinite(tiny).all()
    given = [torch.einsum("ngi,goi->ngo", x, one) for one in (tiny, again)]
    centred = [one - one.mean(dim=0) for one in given]
    torch.testing.assert_close(centred[0], centred[1], rtol=1e-3, atol=1e-3)
