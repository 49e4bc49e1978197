"""Moments of nothing, of one or two values, of small spreads, side by side."""

import numpy as np
import pytest
import torch

from sklmc.models import CrossMoments, Moments, correlation


def test_empty_blocks_change_nothing():
    x, y = torch.randn(2, 3, 9, dtype=torch.float64), torch.randn(2, 4, 9, dtype=torch.float64)
    own, cross = Moments(), CrossMoments()
    for part in (x[..., :0], x, x[..., :0]):
        own.add(part, unit_axis=(0, 1))
    for some in (slice(0), slice(None), slice(0)):
        cross.add(x[..., some], y[..., some])
    assert own.count == cross.count == 9
    torch.testing.assert_close(own.mean, x.mean(dim=-1))
    torch.testing.assert_close(cross.uncentred(), x @ y.mT / 9)


def test_unbiased_variance_of_two_values_and_of_fewer():
    two, one = Moments(), Moments()
    two.add(torch.tensor([[1.0, 4.0]]))
    one.add(torch.tensor([[4.0]]))
    assert float(two.variance(correction=1)) == pytest.approx(4.5)
    assert float(one.variance(correction=1)) == 0.0
    assert float(Moments().variance()) == 0.0
    assert float(CrossMoments().covariance()) == 0.0


def test_half_precision_is_summed_in_more():
    values = torch.full((1, 4096), 3.0, dtype=torch.float16) + torch.arange(2).repeat(2048)
    moments = Moments()
    moments.add(values.half())
    assert moments.mean.dtype == moments.squares.dtype == torch.float64
    assert float(moments.mean) == pytest.approx(3.5)
    assert float(moments.variance()) == pytest.approx(0.25)


def test_blocks_of_groups_side_by_side_give_the_moments_of_the_whole():
    rng = np.random.RandomState(0)
    x, y = rng.normal(size=(2, 5, 60)) + 3.0, rng.normal(size=(2, 4, 60)) - 2.0
    cross = CrossMoments()
    for at in range(0, 60, 25):
        cross.add(*(torch.from_numpy(z[..., at : at + 25]) for z in (x, y)))
    assert cross.count == 60
    np.testing.assert_allclose(cross.x_mean, x.mean(axis=-1), rtol=1e-12)
    np.testing.assert_allclose(cross.uncentred(), x @ y.swapaxes(1, 2) / 60, rtol=1e-12)


def test_correlations_do_not_know_the_scale_and_stay_within_one():
    rng = np.random.RandomState(0)
    x = torch.from_numpy(rng.normal(size=(1, 40)) * 1e-5)
    scales = torch.from_numpy(rng.uniform(-1.0, 1.0, size=(200, 1)))
    cross, own, scaled = CrossMoments(), Moments(), Moments()
    cross.add(x, scales * x)
    own.add(x)
    scaled.add(scales * x)
    plain = cross.products / (own.squares.sqrt()[:, None] * scaled.squares.sqrt())
    assert plain.max() > 1.0 > -1.0 > plain.min()  # by rounding: the case is a case
    found = correlation(cross, own, scaled)
    torch.testing.assert_close(found[0], scales[:, 0].sign())
    assert found.max() == 1.0
    assert found.min() == -1.0
