"""A merge of equal nets is that net, whatever the repair; a gain keeps its sign."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import average_models, merge_models
from sklmc.exceptions import StaleStatisticsWarning
from sklmc.merging import repair
from tests.random_nets import bits, build, draw_tensors, labels, samples

REPAIRS = ["auto", "batch_norm", "refit", "renormalize"]
ALIGNERS = ["weight", "activation", "straight_through", "auto", "merge_many", None]
KINDS = [
    ("linear", "batch"),
    ("linear", "layer"),
    ("linear", "group"),
    ("linear", None),
    ("conv", "batch"),
    ("conv", "group"),
    ("residual", "batch"),
    ("residual", "layer"),
]
FEW_KINDS = [("linear", "batch"), ("conv", "batch"), ("linear", "layer")]
ROUNDING = 1e-4  # of float32 sums, relative to the largest output; a lost sign costs 5 % and more


def net(kind, norm, seed=0, gains=None):
    return draw_tensors(build(kind, [4, 3], norm, nn.ReLU), seed, gains)


def outputs(module, X):
    with torch.no_grad():
        return module(torch.from_numpy(X))


def change(one, other, X):
    """Largest change of an output, relative to the largest output."""
    before, after = outputs(one, X), outputs(other, X)
    return float((before - after).abs().max() / before.abs().max())


@pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning")
@pytest.mark.parametrize("kind, norm", KINDS)
@pytest.mark.parametrize("method", REPAIRS)
@pytest.mark.parametrize("weights", [None, [0.1, 0.2, 0.7]])
def test_merge_of_equal_nets_is_that_net(kind, norm, method, weights):
    module = net(kind, norm)
    models = [module, copy.deepcopy(module), copy.deepcopy(module)]
    merged = merge_models(models, samples(module), aligner=None, repair=method, weights=weights)
    assert bits(merged) == bits(module)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning")
@pytest.mark.parametrize(
    "kind, norm", [("linear", "batch"), ("conv", "batch"), ("linear", "layer")]
)
@pytest.mark.parametrize("aligner", ALIGNERS)
def test_merge_of_equal_nets_is_that_net_under_every_aligner(kind, norm, aligner):
    module = net(kind, norm)
    X = samples(module)
    for method in REPAIRS:
        merged = merge_models(
            [module, copy.deepcopy(module)], X, labels(len(X)), aligner=aligner, repair=method
        )
        assert bits(merged) == bits(module), method


def nearly(module, seed):
    """Return a net whose numbers differ in their seventh digit."""
    other = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1 + 1e-6 * torch.randn(parameter.shape, generator=generator))
    return other


@pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning")
@pytest.mark.parametrize(
    "kind, norm", [("linear", "batch"), ("conv", "batch"), ("linear", "layer")]
)
@pytest.mark.parametrize("gains", [None, [-1.0], [1.0, -0.5, 0.0]])
@pytest.mark.parametrize("method", ["refit", "renormalize"])
def test_merge_of_nearly_equal_nets_is_nearly_that_net(kind, norm, gains, method):
    """Not the same bits, so that the repair runs: what it writes may differ by rounding only."""
    module = net(kind, norm, gains=gains)
    X = samples(module)
    models = [module, nearly(module, 1)]
    repaired = repair(average_models(models), models, X, method=method)
    assert change(module, repaired, X) < ROUNDING


@pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning")
@pytest.mark.parametrize("method", ["refit", "renormalize"])
def test_gains_keep_their_sign(method):
    module = net("linear", "batch", gains=[1.0, -0.5, 0.0])
    models = [module, nearly(module, 1)]
    repaired = repair(average_models(models), models, samples(module), method=method)
    for before, after in [(module[1], repaired[1]), (module[4], repaired[4])]:
        assert (after.weight * before.weight >= 0).all()


def test_no_statistics_of_equal_nets_are_stale():
    module = net("linear", "batch")
    with warnings.catch_warnings():
        warnings.simplefilter("error", StaleStatisticsWarning)
        merged = merge_models([module, copy.deepcopy(module)], aligner=None)
    assert bits(merged) == bits(module)


def test_mean_of_equal_nets_is_that_net_to_the_bit():
    """Sums of thirds would be one rounding step away in float64."""
    module = net("linear", "batch").double()
    merged = average_models([module, copy.deepcopy(module), copy.deepcopy(module)])
    assert bits(merged) == bits(module)
    assert np.isfinite(outputs(merged, samples(module).astype(float)).numpy()).all()
