"""The steps of a refit: their order, and the moments that are gathered for them."""

import copy

import torch
from torch import nn

from sklmc import average_models
from sklmc.merging import repair
from sklmc.merging._repairs._refit import find_steps
from sklmc.merging._repairs._ridge_regression import N_FOLDS
from sklmc.merging._repairs._steps import gather_moments, read_targets
from sklmc.models import Arrays, view


def steps_of(module, x):
    look = view(module, caller="f")
    return look, find_steps(look, look.state, Arrays(x))[0]


def test_few_rows_are_dealt_out_to_folds_block_by_block():
    """Ten blocks at least, whatever their size; many rows for the inputs stay together."""
    x = torch.randn(70, 20, generator=torch.Generator().manual_seed(0))
    look, (step,) = steps_of(nn.Linear(20, 2), x)
    target = {0: [passes[0] for (passes,) in read_targets(look, [look.state], [step], Arrays(x))]}
    folds = gather_moments(look, look.state, step, target, Arrays(x), by_folds=True)
    assert [fold.count for fold in folds] == [14] * N_FOLDS
    whole = gather_moments(look, look.state, step, target, Arrays(x), by_folds=False)
    assert [fold.count for fold in whole] == [70]
    few_inputs = x[:, :14]  # 70 rows are five for each
    look, (step,) = steps_of(nn.Linear(14, 2), few_inputs)
    args = (look, look.state, step, target, Arrays(few_inputs))
    assert len(gather_moments(*args, by_folds=True)) == 1


def test_moments_are_those_of_the_rows():
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(1)).double()
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    look, steps = steps_of(net, x)
    assert [step.number for step in steps] == [0, 1]
    assert steps[0].head is None
    assert steps[1].head.weight == "2.weight"
    (passes, *_) = read_targets(look, [look.state], steps, Arrays(x))
    assert {number: rows.shape[1] for number, rows in passes[0].items()} == {0: 4, 1: 2}
    target = {1: [p[1] for (p,) in read_targets(look, [look.state], steps, Arrays(x))]}
    (moments,) = gather_moments(look, look.state, steps[1], target, Arrays(x), by_folds=False)
    hidden = torch.relu(look.original[0](x)).double().detach()
    outputs = look.original(x).double().detach()
    torch.testing.assert_close(moments.gram(centred=False)[0], hidden.T @ hidden)
    torch.testing.assert_close(moments.cross(centred=False)[0], outputs.T @ hidden)
    torch.testing.assert_close(moments.outputs[0], outputs.mean(dim=0))


class Messages(nn.Module):
    """Passes a message twice through one layer, beside what came in."""

    def __init__(self):
        super().__init__()
        self.into, self.message = nn.Linear(3, 4), nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        first = self.into(x)
        state = first.relu()
        for _ in range(2):
            state = (first + self.message(state)).relu()
        return self.head(state)


def test_a_layer_that_is_called_twice_is_one_step_with_the_rows_of_both_calls():
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(2))
    look, steps = steps_of(Messages(), x)
    assert [step.layers[0].weight for step in steps] == [
        "into.weight", "message.weight", "head.weight",
    ]  # fmt: skip
    message = steps[1]
    assert [len(step.again) for step in steps] == [0, 1, 0]
    assert message.head is None
    targets = {}
    for (passes,) in read_targets(look, [look.state], message.calls, Arrays(x)):
        for number, rows in passes.items():
            targets.setdefault(number, []).append(rows)
    (moments,) = gather_moments(look, look.state, message, targets, Arrays(x), by_folds=False)
    assert moments.count == 2 * len(x)
    net = look.original
    first = net.into(x).double().detach()
    weight = net.message.weight.double().detach()
    states = [first.relu()]
    states.append((first + states[0] @ weight.T).relu())
    gram = sum(state.T @ state for state in states)
    torch.testing.assert_close(moments.gram(centred=False)[0], gram, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(moments.cross(centred=False)[0], weight @ gram, atol=1e-5, rtol=1e-5)


def test_a_layer_that_is_called_twice_is_fitted_to_the_mean_of_its_end_points():
    x = torch.randn(600, 3, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    nets = [Messages() for _ in range(2)]
    goal = sum(net(x) for net in nets).detach() / 2
    plain = average_models(nets)
    fitted = repair(plain, nets, x, method="refit")  # no warning: nothing is left averaged
    assert not torch.equal(fitted.message.weight, plain.message.weight)

    def misfit(net):
        return float((net(x) - goal).square().mean().detach())

    kept = copy.deepcopy(fitted)  # the same but for the layer
    kept.message.weight = plain.message.weight
    assert misfit(fitted) < 0.5 * misfit(plain)
    assert misfit(fitted) < misfit(kept)
