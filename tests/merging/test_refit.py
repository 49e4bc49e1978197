"""Layerwise refit, and renormalisation."""

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import average_models
from sklmc.exceptions import SklmcWarning
from sklmc.merging import repair
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._refit import refit_state
from sklmc.merging._repairs._renormalize import renormalize_state
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.models import Arrays, average_states, predict_outputs, view
from tests.merging.conftest import Residual, dense, randomised
from tests.merging.test_layers import Block
from tests.models.conftest import snapshot

HALF = np.array([0.5, 0.5])


def rows(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def activations(look, state, x, layers):
    """What some layers give, before anything works on it in place."""
    kept, handles = {}, []
    for layer in layers:
        handles.append(
            look.module.get_submodule(layer).register_forward_hook(
                lambda _, args, output, layer=layer: kept.update({layer: output.clone()})
            )
        )
    predict_outputs(look, Arrays(x), state)
    for handle in handles:
        handle.remove()
    return kept


class Projected(nn.Module):
    """Residual blocks with and without projection, behind and before other layers."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(), nn.Conv2d(4, 2, 1), Block(project=False))
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head(self.blocks(x).mean(dim=(2, 3)))


class Grouped(nn.Module):
    """Two grouped convolutions that meet in an addition: they are fitted one after the other."""

    def __init__(self):
        super().__init__()
        self.straight = nn.Conv2d(2, 4, 3, padding=1, groups=2)
        self.side = nn.Conv2d(2, 4, 1, groups=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.relu(self.straight(x) + self.side(x)).mean(dim=(2, 3)))


NETS = {
    "chain": (lambda seed: dense(seed), (120, 3)),
    "plain": (
        lambda seed: randomised(
            nn.Sequential(nn.Linear(3, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)), seed
        ),
        (120, 3),
    ),
    "no bias": (
        lambda seed: randomised(
            nn.Sequential(nn.Linear(3, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False)), seed
        ),
        (120, 3),
    ),
    "residual": (lambda seed: randomised(Projected(), seed), (40, 2, 4, 4)),
    "norm without scale": (
        lambda seed: randomised(
            nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6, affine=False), nn.Linear(6, 2)), seed
        ),
        (120, 3),
    ),
    "grouped": (lambda seed: randomised(Grouped(), seed), (40, 2, 4, 4)),
    "depthwise": (
        lambda seed: randomised(
            nn.Sequential(
                *(nn.Conv2d(2, 4, 3, groups=2, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
                *(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 2, 1)),
            ),
            seed,
        ),
        (40, 2, 4, 4),
    ),
    "transposed": (
        lambda seed: randomised(
            nn.Sequential(
                *(nn.ConvTranspose2d(2, 4, 3, stride=2, groups=2), nn.BatchNorm2d(4), nn.ReLU()),
                nn.ConvTranspose2d(4, 2, 2, padding=1),
            ),
            seed,
        ),
        (40, 2, 4, 4),
    ),
    "double": (lambda seed: dense(seed).double(), (120, 3)),
}


def _ends(views, weights=HALF):
    return EndPoints([one.state for one in views], weights)


def case(kind):
    make, shape = NETS[kind]
    views = [view(make(seed), caller="f") for seed in range(2)]
    return views, rows(*shape).to(next(iter(views[0].state.values())).dtype)


@pytest.mark.parametrize("kind", NETS)
def test_refit_finds_back_to_equal_end_points(kind):
    """Whatever the merged state is: layer by layer, the end points' function is the fit."""
    (a, b), x = case(kind)
    wrong = average_states([a.state, b.state], HALF)
    state, left = refit_state(a, wrong, _ends([a, a]), SampleSet(Arrays(x)))
    wanted = predict_outputs(a, Arrays(x))
    assert left == []
    torch.testing.assert_close(predict_outputs(a, Arrays(x), state), wanted, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(predict_outputs(a, Arrays(x), wrong), wanted, rtol=1e-1, atol=1e-1)


@pytest.mark.parametrize("kind", NETS)
def test_refit_comes_nearer_to_the_mean_than_the_average(kind):
    (a, b), x = case(kind)
    mean = (predict_outputs(a, Arrays(x)) + predict_outputs(b, Arrays(x))) / 2
    plain = average_states([a.state, b.state], HALF)
    state, _ = refit_state(a, plain, _ends([a, b]), SampleSet(Arrays(x)))
    before = (predict_outputs(a, Arrays(x), plain) - mean).square().mean()
    assert (predict_outputs(a, Arrays(x), state) - mean).square().mean() < 0.5 * before
    assert list(state) == list(plain)
    assert all(state[name].dtype == tensor.dtype for name, tensor in plain.items())


@pytest.mark.parametrize(
    "kind, target", [*((kind, "mean") for kind in NETS), ("plain", "probability")]
)
def test_second_sweep_over_the_layers_finds_nothing_to_do(kind, target):
    """What a layer is fitted on depends on the layers before it alone: one sweep settles it."""
    (a, b), x = case(kind)
    plain = average_states([a.state, b.state], HALF)
    once, _ = refit_state(a, plain, _ends([a, b]), SampleSet(Arrays(x)), target)
    again, _ = refit_state(a, once, _ends([a, b]), SampleSet(Arrays(x)), target)
    torch.testing.assert_close(again, once, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["auto", "batch_norm", "refit", "renormalize"])
@pytest.mark.filterwarnings("ignore:.*on 120 samples may harm")
def test_end_point_without_weight_changes_nothing(method):
    (a, b), x = case("chain")
    models = [a.model, b.model, dense(2)]
    mean = average_models(models[:2])
    wanted = repair(mean, models[:2], x, method=method)
    seen = repair(mean, models, x, weights=[1, 1, 0], method=method)
    assert all(torch.equal(one, seen.state_dict()[key]) for key, one in wanted.state_dict().items())


def test_first_layer_is_the_least_squares_fit():
    """What reaches the first layer is X itself: the mean weights are the exact answer."""
    a, b = (
        randomised(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), s) for s in (0, 1)
    )
    views = [view(net, caller="f") for net in (a, b)]
    plain = average_states([one.state for one in views], [0.3, 0.7])
    x = rows(200, 3)
    state, _ = refit_state(
        views[0],
        plain,
        EndPoints([one.state for one in views], np.array([0.3, 0.7])),
        SampleSet(Arrays(x)),
    )
    torch.testing.assert_close(state["0.weight"], plain["0.weight"])
    hidden = torch.relu(x @ plain["0.weight"].T + plain["0.bias"])
    wanted = 0.3 * a(x).detach() + 0.7 * b(x).detach()
    design = torch.cat([hidden, torch.ones(200, 1)], dim=1).double()
    exact = torch.linalg.lstsq(design, wanted.double()).solution.T
    torch.testing.assert_close(state["2.weight"].double(), exact[:, :4], atol=0.02, rtol=0.02)


def test_refitted_batch_norm_has_the_statistics_of_its_input():
    """So that training can go on from there."""
    (a, b), x = case("chain")
    plain = average_states([a.state, b.state], HALF)
    state, _ = refit_state(a, plain, _ends([a, b]), SampleSet(Arrays(x)))
    block = activations(a, state, x, ["0", "3"])
    for layer, norm in (("0", "1"), ("3", "4")):
        torch.testing.assert_close(
            state[f"{norm}.running_mean"], block[layer].mean(dim=0), atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(
            state[f"{norm}.running_var"], block[layer].var(dim=0), atol=1e-4, rtol=1e-3
        )


def test_norm_behind_no_layer_is_estimated_again():
    def make(seed):
        return randomised(nn.Sequential(nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)), seed)

    views = [view(make(seed), caller="f") for seed in range(2)]
    x = rows(80, 3) * 3 + 1
    for method in (refit_state, renormalize_state):
        state, _ = method(
            views[0],
            views[0].state,
            _ends(views),
            SampleSet(Arrays(x)),
        )
        torch.testing.assert_close(state["0.running_mean"], x.mean(dim=0))
        torch.testing.assert_close(state["0.running_var"], x.var(dim=0))


@pytest.mark.parametrize("kind", ["chain", "plain", "residual", "double"])
def test_renormalised_units_have_the_mean_spread_of_the_end_points(kind):
    (a, b), x = case(kind)
    weights = np.array([0.3, 0.7])
    plain = average_states([a.state, b.state], weights)
    state, _ = renormalize_state(a, plain, _ends([a, b], weights), SampleSet(Arrays(x)))
    layers = {
        "chain": ["1", "4"],
        "double": ["1", "4"],
        "plain": ["0"],
        "residual": ["blocks.0.norm", "blocks.0.second", "blocks.2.norm", "blocks.2.second"],
    }[kind]
    block_a, block_b, merged = (activations(a, one, x, layers) for one in (a.state, b.state, state))
    for layer in layers:
        units = [
            one[layer].transpose(0, 1).flatten(1).double() for one in (block_a, block_b, merged)
        ]
        means, spreads = [u.mean(dim=1) for u in units], [u.std(dim=1) for u in units]
        torch.testing.assert_close(means[2], 0.3 * means[0] + 0.7 * means[1], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(
            spreads[2], 0.3 * spreads[0] + 0.7 * spreads[1], atol=1e-4, rtol=2e-3
        )
    head = [name for name in state if name.startswith(("6.", "2.", "head"))]
    for name in head if kind != "residual" else ["head.weight", "head.bias"]:
        assert torch.equal(state[name], plain[name])  # the output is no hidden layer


def test_constant_units_stay_and_nothing_is_nan():
    nets = [NETS["plain"][0](seed) for seed in range(2)]
    normed = [dense(seed) for seed in range(2)]
    for net in (*nets, *normed):
        with torch.no_grad():
            net[0].weight[1] = 0.0
            net[0].bias[1] = -1.0
    x = rows(120, 3)
    for pair in (nets, normed):
        views = [view(net, caller="f") for net in pair]
        plain = average_states([one.state for one in views], HALF)
        for method in (refit_state, renormalize_state):
            state, _ = method(views[0], plain, _ends(views), SampleSet(Arrays(x)))
            assert all(torch.isfinite(tensor).all() for tensor in state.values())
    views = [view(net, caller="f") for net in nets]
    plain = average_states([one.state for one in views], HALF)
    state, _ = renormalize_state(views[0], plain, _ends(views), SampleSet(Arrays(x)))
    assert torch.equal(state["0.weight"][1], plain["0.weight"][1])
    assert torch.equal(state["0.bias"][1], plain["0.bias"][1])


def test_tied_modules_are_written_under_all_names():
    class Alias(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = dense(3)
            self.again = self.body[3]

        def forward(self, x):
            return self.body(x)

    views = [view(randomised(Alias(), seed), caller="f") for seed in range(2)]
    states = [one.state for one in views]
    plain = average_states(states, HALF)
    for method in (refit_state, renormalize_state):
        state, _ = method(views[0], plain, EndPoints(states, HALF), SampleSet(Arrays(rows(120, 3))))
        assert torch.equal(state["again.weight"], state["body.3.weight"])


# through the public function


@pytest.mark.parametrize("method", ["refit", "renormalize", "auto"])
def test_repair_touches_neither_model_nor_end_points(method):
    nets = [dense(0).train(), dense(1)]
    merged = average_models(nets)
    x = rows(600, 3)
    before = [snapshot(net) for net in (*nets, merged)], x.clone()
    repaired = repair(merged, nets, x, method=method)
    assert [snapshot(net) for net in (*nets, merged)] == before[0]
    assert torch.equal(x, before[1])
    again = repair(merged, nets, x, method=method)
    for one, other in zip(repaired.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("labelled", [False, True])
def test_auto_is_never_worse_than_the_average_on_what_it_judges_by(labelled):
    from sklmc.models import fit_inverse_temperature, per_sample_loss

    for seed in range(4):
        nets = [NETS["plain"][0](seed), NETS["plain"][0](seed + 10)]
        merged = average_models(nets)
        x = rows(300, 3, seed=seed)
        y = nets[0](x).argmax(dim=1)
        repaired = repair(merged, nets, x, y=y if labelled else None)
        judged = torch.arange(300) % 5 == 4

        def badness(net, x=x, y=y, nets=nets, judged=judged):
            with torch.no_grad():
                outputs = net(x[judged]).double()
                if not labelled:
                    mean = sum(one(x[judged]).double() for one in nets) / 2
                    return float((outputs - mean).square().mean())
            beta = fit_inverse_temperature(outputs, y[judged], held_out=True)
            return float(per_sample_loss(beta * outputs, y[judged], "f").mean())

        assert badness(repaired) <= badness(merged)


def test_auto_keeps_a_good_average():
    """Equal end points need no repair: the plain mean is best, and the first among equals."""
    net = NETS["plain"][0](0)
    repaired = repair(net, [net, net], rows(300, 3))
    for name, tensor in net.state_dict().items():
        assert torch.equal(repaired.state_dict()[name], tensor)


def test_refit_on_few_samples_warns():
    nets = [NETS["plain"][0](seed) for seed in range(2)]
    with pytest.warns(SklmcWarning, match="repair: 'refit' on 60 samples may harm; pass 500"):
        repair(average_models(nets), nets, rows(60, 3), method="refit")


@pytest.mark.parametrize("method", ["refit", "renormalize"])
def test_what_is_left_averaged_is_named(method):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)
            self.mid = nn.Linear(4, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(torch.relu(self.mid(self.lstm(x)[0][:, -1])))

    nets = [randomised(Recurrent(), seed) for seed in range(2)]
    merged = average_models(nets)
    with pytest.warns(SklmcWarning, match=r"2 weights were left averaged: 'lstm.weight_ih_l0', "):
        repaired = repair(merged, nets, rows(600, 5, 3), method=method)
    assert torch.equal(repaired.lstm.weight_ih_l0, merged.lstm.weight_ih_l0)
    assert not torch.equal(repaired.mid.weight, merged.mid.weight)


@pytest.mark.parametrize("method", ["refit", "renormalize"])
def test_single_sample_is_too_few(method):
    nets = [NETS["plain"][0](seed) for seed in range(2)]
    with pytest.raises(ValueError, match="repair: 'X' holds 1 sample, too few for a variance"):
        repair(average_models(nets), nets, rows(1, 3), method=method)


def test_shared_norm_and_its_layers_survive(images):
    nets = [randomised(Residual(), seed) for seed in range(2)]
    merged = average_models(nets)
    for method in ("refit", "renormalize"):
        with (
            pytest.warns(SklmcWarning, match="may harm|left averaged")
            if (method == "refit")
            else _nothing()
        ):
            repaired = repair(merged, nets, images, method=method)
        assert all(torch.isfinite(tensor).all() for tensor in repaired.state_dict().values())


def _nothing():
    import contextlib

    return contextlib.nullcontext()
