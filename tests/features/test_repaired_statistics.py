"""Measures of nets with batch norm between two others: with statistics of their own."""

import warnings

import numpy as np
import pytest
import torch

from sklmc import interpolate_models, repair
from sklmc.exceptions import StaleStatisticsWarning
from sklmc.features import (
    error_bound,
    inverse_temperatures,
    layerwise_exponential_connectivity,
    layerwise_linear_connectivity,
    variance_ratio,
)
from sklmc.models import Arrays, predict_outputs, view
from sklmc.nets import MLP


def net(seed, norm="batch"):
    torch.manual_seed(seed)
    made = MLP(3, 2, width=8, depth=2, norm=norm)
    for buffer in made.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2.0)
    return made.eval()


X = torch.randn(60, 3, generator=torch.Generator().manual_seed(5))
Y = (X.sum(dim=1) > 0).long().numpy()
MEASURES = {
    "LEWC": lambda a, b, **kw: layerwise_exponential_connectivity(a, b, X, **kw),
    "LLFC": lambda a, b, **kw: layerwise_linear_connectivity(a, b, X, alphas=0.5, **kw),
    "variance": lambda a, b, **kw: variance_ratio(a, b, X, **kw),
    "temperature": lambda a, b, **kw: inverse_temperatures(a, b, X, Y, **kw),
    "bound": lambda a, b, **kw: error_bound(a, b, X, Y, alphas=0.5, **kw),
}


@pytest.mark.parametrize("name", MEASURES)
def test_stale_statistics_are_told_and_repaired_ones_are_not(name):
    a, b = net(0), net(1)
    with pytest.warns(StaleStatisticsWarning, match="repair='batch_norm'"):
        stale = MEASURES[name](a, b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        repaired = MEASURES[name](a, b, repair="batch_norm")
        MEASURES[name](net(0, None), net(1, None))  # there is nothing to tell
        MEASURES[name](a, a)  # nor between a net and itself
    if name != "bound":  # errors may agree by chance
        numbers = stale.select_dtypes("number").to_numpy()
        assert not np.allclose(numbers, repaired.select_dtypes("number").to_numpy())


def test_repaired_features_are_those_of_the_repaired_net():
    """The last layer of LEWC, computed from a midpoint that `repair` made."""
    a, b = net(0), net(1)
    middle = repair(interpolate_models(a, b, 0.5), [a, b], X, method="batch_norm")
    first, second, found = (
        predict_outputs(view(one, caller="t"), Arrays(X)).double() for one in (a, b, middle)
    )
    cosine = torch.nn.functional.cosine_similarity(found, first + second, dim=1).mean()
    frame = layerwise_exponential_connectivity(a, b, X, repair="batch_norm")
    assert frame.cosine.iloc[-1] == pytest.approx(float(cosine), abs=1e-6)


@pytest.mark.parametrize("name", MEASURES)
def test_other_repairs_are_refused_by_name(name):
    with pytest.raises(ValueError, match="'repair'"):
        MEASURES[name](net(0), net(1), repair="refit")
