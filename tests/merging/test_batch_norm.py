"""Statistics of batch norm over all of X."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from sklmc.merging._repairs._batch_norm import reestimate_statistics, tracked_norms
from sklmc.models import view
from tests.merging.conftest import Residual, dense, randomised
from tests.models.conftest import snapshot

ROUNDING = 1e-5  # float32 forward passes, in blocks of different size


class WithExtra(nn.Module):
    """A chain that holds one more norm, which it does not call by that name."""

    def __init__(self, extra=None):
        super().__init__()
        self.chain = dense(0)
        self.extra = self.chain[1] if extra is None else extra

    def forward(self, x):
        return self.chain(x)


def statistics(state):
    return {name: value for name, value in state.items() if "running" in name}


def reestimated(module, X, batch_size=None):
    look = view(module, caller="f")
    return reestimate_statistics(look, look.state, look.to_input(X), batch_size)


def test_first_layer_has_the_pooled_mean_and_unbiased_variance(rows):
    net = dense(0)
    hidden = net[0](torch.from_numpy(rows)).detach().double()
    state = reestimated(net, rows)
    torch.testing.assert_close(state["1.running_mean"], hidden.mean(dim=0).float())
    torch.testing.assert_close(state["1.running_var"], hidden.var(dim=0).float())


def test_later_layer_sees_what_the_earlier_ones_now_give(rows):
    net = dense(0)
    state = reestimated(net, rows)
    repaired = copy.deepcopy(net)
    repaired.load_state_dict(state)
    before_second = repaired[:4](torch.from_numpy(rows)).detach().double()
    torch.testing.assert_close(
        state["4.running_mean"], before_second.mean(dim=0).float(), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        state["4.running_var"], before_second.var(dim=0).float(), atol=1e-5, rtol=1e-5
    )


def test_images_are_pooled_over_positions(images):
    net = randomised(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)), 0)
    maps = net[0](torch.from_numpy(images)).detach().double().transpose(0, 1).flatten(1)
    state = reestimated(net, images, batch_size=7)
    torch.testing.assert_close(state["1.running_mean"], maps.mean(dim=1).float())
    torch.testing.assert_close(state["1.running_var"], maps.var(dim=1).float())


@pytest.mark.parametrize("batch_size", [1, 7, 19, 59])
@pytest.mark.parametrize("kind", ["dense", "residual"])
def test_batch_size_does_not_matter(kind, batch_size, rows, images):
    net, X = (dense(0), rows) if kind == "dense" else (randomised(Residual(), 0), images)
    whole, cut = reestimated(net, X), reestimated(net, X, batch_size)
    for name, tensor in whole.items():
        torch.testing.assert_close(cut[name], tensor, atol=ROUNDING, rtol=ROUNDING)


def test_agrees_with_swa_utils_on_one_batch_of_all_samples(rows):
    """Train mode normalises by the biased variance: equal up to a factor of 1 + 1 / n."""
    net = dense(0)
    theirs = copy.deepcopy(net)
    update_bn([torch.from_numpy(rows)], theirs)
    state = reestimated(net, rows)
    for name, tensor in statistics(theirs.state_dict()).items():
        exact = name.startswith("1.")
        torch.testing.assert_close(
            state[name], tensor, rtol=1e-5 if exact else 3 / len(rows), atol=1e-5 if exact else 0.05
        )


def test_everything_else_stays(rows):
    net = dense(0).train()
    before = snapshot(net)
    state = reestimated(net, rows)
    assert snapshot(net) == before
    for name, tensor in net.state_dict().items():
        assert torch.equal(state[name], tensor) != ("running" in name)


def test_norm_called_twice_pools_its_calls(images):
    net = randomised(Residual(), 0)
    state = reestimated(net, images)
    seen = []
    first = copy.deepcopy(net)
    first.load_state_dict({**state, **{n: net.state_dict()[n] for n in state if "shared" in n}})
    # the first call alone gives the statistics that the second call's input is made with
    first.shared.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().double()))
    first(torch.from_numpy(images))
    alone = seen[0].transpose(0, 1).flatten(1)
    first.shared.running_mean.copy_(alone.mean(dim=1))
    first.shared.running_var.copy_(alone.var(dim=1))
    seen.clear()
    first(torch.from_numpy(images))
    pooled = torch.cat([calls.transpose(0, 1).flatten(1) for calls in seen], dim=1)
    torch.testing.assert_close(
        state["shared.running_mean"], pooled.mean(dim=1).float(), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        state["shared.running_var"], pooled.var(dim=1).float(), atol=1e-5, rtol=1e-5
    )


def test_norm_under_two_names_is_one_norm(rows):
    net = WithExtra()
    assert list(tracked_norms(net).values()) == [["chain.1", "extra"], ["chain.4"]]
    state = reestimated(net, rows)
    alone = reestimated(dense(0), rows)
    for name in ("running_mean", "running_var"):
        assert torch.equal(state[f"extra.{name}"], alone[f"1.{name}"])
        assert torch.equal(state[f"chain.1.{name}"], alone[f"1.{name}"])


def test_norm_without_running_statistics_is_left_alone(rows):
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False))
    assert not tracked_norms(net)
    assert reestimated(net, rows).keys() == net.state_dict().keys()


def test_norm_that_is_never_reached_is_left_alone(rows):
    net = WithExtra(randomised(nn.BatchNorm1d(3), 1))
    state = reestimated(net, rows, batch_size=20)
    assert torch.equal(state["extra.running_mean"], net.extra.running_mean)
    assert not torch.equal(state["chain.1.running_mean"], net.chain[1].running_mean)


def test_constant_units_get_variance_zero_and_no_nan(rows):
    net = dense(0)
    with torch.no_grad():
        net[0].weight[2] = 0.0
    state = reestimated(net, rows, batch_size=25)
    assert state["1.running_var"][2] == 0.0
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_is_kept(dtype, rows):
    net = dense(0).to(dtype)
    state = reestimated(net, rows)
    assert state["1.running_mean"].dtype == dtype
    hidden = net[0](torch.from_numpy(rows).to(dtype)).detach().double()
    torch.testing.assert_close(state["1.running_mean"], hidden.mean(dim=0).to(dtype))


def test_large_mean_does_not_cost_the_variance(rows):
    """Sums of squares would lose all digits here."""
    net = nn.Sequential(nn.Identity(), nn.BatchNorm1d(3)).double()
    X = rows.astype(np.float64) + 1e9
    state = reestimated(net, X, batch_size=7)
    np.testing.assert_allclose(state["1.running_var"], X.var(axis=0, ddof=1), rtol=1e-6)


def test_single_sample_has_no_variance(rows):
    with pytest.raises(ValueError, match=r"f: 'X' gives batch-norm layer '1' a single value"):
        reestimated(dense(0), rows[:1])


def test_input_that_does_not_fit_is_explained(rows):
    with pytest.raises(ValueError, match=r"cannot run on 'X' of shape \(60, 2\)"):
        reestimated(dense(0), rows[:, :2])
