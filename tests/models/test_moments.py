"""Streamed means, variances and cross moments."""

import numpy as np
import pytest
import torch

from sklmc.models import CrossMoments, Moments, correlation

EXACT = {"rtol": 1e-10, "atol": 1e-12}  # sums in float64 over a few hundred values


def values(n=300, units=4, offset=0.0, seed=0):
    return np.random.RandomState(seed).normal(size=(units, n)) + offset


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("size", [1, 70, 300])
def test_blocks_give_the_moments_of_the_whole(offset, size):
    x = values(offset=offset)
    moments = Moments()
    for at in range(0, 300, size):
        moments.add(torch.from_numpy(x[:, at : at + size]))
    np.testing.assert_allclose(moments.mean, x.mean(axis=1), rtol=1e-12, atol=1e-12)
    # an offset of 1e6 leaves ten digits of a spread of one
    np.testing.assert_allclose(moments.variance(), x.var(axis=1), rtol=1e-9)
    np.testing.assert_allclose(moments.variance(correction=1), x.var(axis=1, ddof=1), rtol=1e-9)


@pytest.mark.parametrize("axes, shape", [(1, (4,)), (-1, (5,)), ((0, 1), (3, 4))])
def test_units_may_lie_on_any_axes(axes, shape):
    x = np.random.RandomState(0).normal(size=(3, 4, 5))
    moments = Moments()
    moments.add(torch.from_numpy(x), unit_axis=axes)
    others = tuple({0, 1, 2} - {a % 3 for a in np.atleast_1d(axes)})
    assert moments.mean.shape == shape
    np.testing.assert_allclose(moments.variance(), x.var(axis=others), **EXACT)


def test_two_parts_merge_into_the_whole_and_an_empty_one_changes_nothing():
    x, y = values(), values(units=3, seed=1)
    whole, parts = CrossMoments(), [CrossMoments() for _ in range(3)]
    own, halves = Moments(), [Moments(), Moments()]
    whole.add(*map(torch.from_numpy, (x, y)))
    own.add(torch.from_numpy(x))
    for place, cut in enumerate((slice(0, 110), slice(110, None))):
        parts[place].add(torch.from_numpy(x[:, cut]), torch.from_numpy(y[:, cut]))
        halves[place].add(torch.from_numpy(x[:, cut]))
    for one in (parts[2], parts[1], CrossMoments()):
        parts[0].merge(one)
    halves[0].merge(halves[1])
    halves[0].merge(Moments())
    torch.testing.assert_close(parts[0].products, whole.products)
    torch.testing.assert_close(parts[0].uncentred(), whole.uncentred())
    torch.testing.assert_close(halves[0].variance(), own.variance())
    assert parts[0].count == 300


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_cross_moments_are_numpys(offset):
    x, y = values(offset=offset), values(units=3, seed=1, offset=-offset)
    cross, own_x, own_y = CrossMoments(), Moments(), Moments()
    for at in range(0, 300, 90):
        a, b = (torch.from_numpy(z[:, at : at + 90]) for z in (x, y))
        cross.add(a, b)
        own_x.add(a)
        own_y.add(b)
    np.testing.assert_allclose(cross.covariance(), np.cov(x, y, bias=True)[:4, 4:], atol=1e-9)
    np.testing.assert_allclose(cross.uncentred(), x @ y.T / 300, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(
        correlation(cross, own_x, own_y), np.corrcoef(x, y)[:4, 4:], atol=1e-9
    )


def test_leading_axes_are_computed_side_by_side():
    x, y = (np.random.RandomState(s).normal(size=(2, 3, 50)) for s in (0, 1))
    both = CrossMoments()
    both.add(torch.from_numpy(x), torch.from_numpy(y))
    for group in range(2):
        one = CrossMoments()
        one.add(torch.from_numpy(x[group]), torch.from_numpy(y[group]))
        torch.testing.assert_close(both.products[group], one.products)


def test_constant_unit_has_no_correlation():
    x = torch.from_numpy(values())
    x[1] = 4.2
    cross, own = CrossMoments(), Moments()
    cross.add(x, x)
    own.add(x)
    found = correlation(cross, own, own)
    assert found[1].isnan().all()
    torch.testing.assert_close(found.diagonal()[[0, 2, 3]], torch.ones(3, dtype=torch.float64))
