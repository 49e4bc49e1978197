"""Inputs and outputs of layers as rows of a regression."""

import pytest
import torch
from torch import nn

from sklmc.merging._repairs._layer_rows import (
    MAX_ROWS,
    choose_rows,
    input_rows,
    output_rows,
    read_calls,
)
from sklmc.merging._repairs._layers import find_layers
from sklmc.models import view
from tests.merging.conftest import dense

LAYERS = {
    "linear": (nn.Linear(3, 4), (5, 3)),
    "linear on tokens": (nn.Linear(3, 4), (5, 6, 3)),
    "conv1d": (nn.Conv1d(2, 4, 3, stride=2, padding=1), (5, 2, 9)),
    "conv2d": (nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(0, 1)), (5, 2, 6, 7)),
    "dilated": (nn.Conv2d(2, 4, 3, dilation=2, padding="same"), (5, 2, 6, 7)),
    "even same": (nn.Conv1d(2, 4, 4, padding="same"), (5, 2, 9)),
    "valid": (nn.Conv2d(2, 4, 3, padding="valid"), (5, 2, 6, 7)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (5, 4, 6, 7)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, padding=1), (5, 4, 6, 7)),
    "circular": (nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), (5, 2, 6, 7)),
    "conv3d": (nn.Conv3d(2, 4, 2), (3, 2, 4, 4, 4)),
}


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_rows_times_weights_are_the_outputs(kind, some):
    module, shape = LAYERS[kind]
    look = view(module, caller="f")
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    (layer,), _ = find_layers(look, look.state, (x,))
    given = read_calls(look, (x,), look.state, {layer.call: dict}, {})[layer.call]
    output = read_calls(look, (x,), look.state, {}, {layer.call: torch.clone})[layer.call]
    n_rows = output.numel() // output.shape[1 if layer.kind == "conv" else -1]
    chosen = torch.randperm(n_rows)[: n_rows // 2] if some else None
    asked = []

    def choose(n):
        asked.append(n)
        return chosen

    rows = input_rows(given, layer, choose)
    wanted = output_rows(output, layer.kind, choose)
    assert asked == [n_rows, n_rows]
    assert len(rows) == len(wanted) == (n_rows // 2 if some else n_rows)
    weight = module.weight.detach().flatten(1).reshape(layer.groups, -1, rows.shape[2])
    given = torch.einsum("ngi,goi->ngo", rows, weight).flatten(1) + module.bias.detach()
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-5)


def test_rows_are_copies():
    """An activation that works in place would otherwise change them."""
    x = torch.ones(3, 2)
    rows = output_rows(x, "linear", lambda _: None)
    x.zero_()
    assert (rows == 1).all()


def test_few_rows_are_all_taken_and_many_are_drawn_alike():
    assert choose_rows(100, 10, 10, (0, 0)) is None
    drawn = choose_rows(10 * MAX_ROWS, 100, 1000, (3, 4))
    assert len(drawn) == MAX_ROWS // 10
    assert len(drawn.unique()) == len(drawn)
    assert torch.equal(drawn, choose_rows(10 * MAX_ROWS, 100, 1000, (3, 4)))
    assert not torch.equal(drawn, choose_rows(10 * MAX_ROWS, 100, 1000, (4, 3)))


def test_readers_see_arguments_and_output_and_end_the_pass():
    module = dense(0)
    reached = []
    module[6].register_forward_hook(lambda *_: reached.append(True))
    look = view(module, caller="f")
    layers, _ = find_layers(look, look.state, (torch.ones(2, 3),))
    call = layers[0].call
    reached.clear()
    x = torch.randn(4, 3)
    assert torch.equal(read_calls(look, (x,), look.state, {call: dict}, {})[call]["input"], x)
    found = read_calls(look, (x,), look.state, {}, {call: torch.clone})
    assert found.keys() == {call}
    torch.testing.assert_close(found[call], module[0](x))
    assert not reached
