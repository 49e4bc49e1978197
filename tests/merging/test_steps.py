"""The steps of a refit: their order, and the moments that are gathered for them."""

import torch
from torch import nn

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
    target = [one for (passes,) in read_targets(look, [look.state], [step], Arrays(x))
              for one in passes.values()]  # fmt: skip
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
    target = [p[1] for (p,) in read_targets(look, [look.state], steps, Arrays(x))]
    (moments,) = gather_moments(look, look.state, steps[1], target, Arrays(x), by_folds=False)
    hidden = torch.relu(look.original[0](x)).double().detach()
    outputs = look.original(x).double().detach()
    torch.testing.assert_close(moments.gram(centred=False)[0], hidden.T @ hidden)
    torch.testing.assert_close(moments.cross(centred=False)[0], outputs.T @ hidden)
    torch.testing.assert_close(moments.outputs[0], outputs.mean(dim=0))
