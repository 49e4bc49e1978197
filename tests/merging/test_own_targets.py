"""A refit to own targets: what few samples of each part must not spoil."""

import copy

import numpy as np
import pytest
import torch

from sklmc import merge_models
from sklmc.nets import MLP

CLOSE = 3.0  # times the plain mean's distance; a ridge for many rows ends at 12 times


def relatives(n_nets=3, spread=0.1):
    """Return nets that differ a little from one: units are aligned as they are."""
    torch.manual_seed(0)
    base = MLP(n_features=40, n_outputs=3, width=40)
    nets = [copy.deepcopy(base) for _ in range(n_nets)]
    with torch.no_grad():
        for net in nets:
            for tensor in net.parameters():
                tensor += spread * torch.randn_like(tensor)
    return nets


def distance(net, nets, X):
    """Return the root of the mean squared distance from the mean output."""
    X = torch.as_tensor(X)
    with torch.no_grad():
        return float((net(X) - sum(one(X) for one in nets) / len(nets)).square().mean().sqrt())


def test_few_own_samples_leave_the_net_near_its_parts():
    """As many rows as inputs: least squares alone would fit what the parts disagree about."""
    rng = np.random.default_rng(0)
    nets = relatives()
    X = [rng.normal(size=(15, 40)).astype(np.float32) for _ in nets]
    fresh = rng.normal(size=(500, 40)).astype(np.float32)
    with pytest.warns(UserWarning, match="500"):
        merged = merge_models(nets, X, aligner=None, repair="refit", target="own")
    plain = merge_models(nets, X=None, aligner=None, repair=None)
    assert distance(merged, nets, fresh) < CLOSE * distance(plain, nets, fresh)


@pytest.mark.parametrize("by_part", [False, True])
def test_what_auto_chose_is_fitted_on_all_samples(by_part):
    """A fifth is kept to choose by, not lost to the fit."""
    rng = np.random.default_rng(1)
    nets = relatives(spread=0.3)
    X = [rng.normal(size=(300, 40)).astype(np.float32) for _ in nets]
    target = "own" if by_part else "mean"
    X = X if by_part else np.concatenate(X)
    settings = {"aligner": None, "target": target}
    chosen = merge_models(nets, X, repair="auto", **settings)
    asked = merge_models(nets, X, repair="refit", **settings)
    for name, tensor in asked.state_dict().items():
        torch.testing.assert_close(chosen.state_dict()[name], tensor, rtol=0, atol=0)
