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
    "transposed": (nn.ConvTranspose2d(2, 4, 3), (5, 2, 4, 3)),
    "strided transposed": (
        nn.ConvTranspose2d(2, 4, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(1, 2)),
        (5, 2, 4, 3),
    ),
    "dilated transposed": (nn.ConvTranspose1d(2, 4, 3, stride=2, dilation=2, padding=3), (5, 2, 9)),
    "cropped transposed": (nn.ConvTranspose1d(2, 4, 2, padding=3), (5, 2, 9)),
    "grouped transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (5, 4, 3, 4)),
    "transposed 3d": (nn.ConvTranspose3d(2, 3, 2, stride=2), (3, 2, 2, 3, 2)),
}


def read_both(look, layer, x, choose=lambda _: None, inputs=None):
    """What goes into a layer and what comes out, as rows."""
    args = (x,) if inputs is None else inputs
    call = layer.call
    before = {"x": (call, lambda given: input_rows(given, layer, choose))}
    after = {"t": (call, lambda given, output: output_rows(given, output, layer, call, choose))}
    found = read_calls(look, args, look.state, before, after)
    return found["x"], found["t"]


def times_weights(look, layer, rows):
    given = torch.einsum("ngi,goi->ngo", rows.double(), layer.matrix(look.state)).flatten(1)
    biases = layer.biases(look.state)
    return (given if biases is None else given + biases).to(rows.dtype)


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_rows_times_weights_are_the_outputs(kind, some):
    module, shape = LAYERS[kind]
    look = view(module, caller="f")
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    (layer,), _ = find_layers(look, look.state, (x,))
    n_rows = module(x).numel() // module(x).shape[layer.units_axis]
    chosen = torch.randperm(n_rows)[: n_rows // 2] if some else None
    asked = []

    def choose(n):
        asked.append(n)
        return chosen

    rows, wanted = read_both(look, layer, x, choose)
    assert asked == [n_rows, n_rows]
    assert len(rows) == len(wanted) == (n_rows // 2 if some else n_rows)
    torch.testing.assert_close(times_weights(look, layer, rows), wanted, atol=1e-5, rtol=1e-5)


def test_rows_are_copies():
    """An activation that works in place would otherwise change them."""
    x, module = torch.ones(3, 2), nn.Linear(2, 2)
    look = view(module, caller="f")
    (layer,), _ = find_layers(look, look.state, (x,))
    rows = output_rows({}, x, layer, layer.call + 1, lambda _: None)
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
    found = read_calls(look, (x,), look.state, {"x": (call, dict)}, {})
    assert torch.equal(found["x"]["input"], x)
    found = read_calls(look, (x,), look.state, {}, {"t": (call, lambda _, output: output.clone())})
    assert found.keys() == {"t"}
    torch.testing.assert_close(found["t"], module[0](x))
    assert not reached
