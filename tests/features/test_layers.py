"""Which layers a net runs, in which order, and which of them a measure is about."""

import pytest
import torch
from torch import nn
from torch.nn import functional as functional_of_torch

from sklmc.features._layers import choose_layers, trace_layers
from sklmc.features._nets_on_samples import Nets, check_inner_alphas, layer_reader
from sklmc.models import view
from tests.features.nets import functional, images, mlp, samples
from tests.models.conftest import snapshot


def traced(net, x):
    return trace_layers(view(net, caller="f"), (x,))


def named(found, layers, **options):
    return [layer.name for layer in choose_layers(found, layers, "f", **options)]


def test_keywords_on_a_perceptron_with_norm():
    found = traced(mlp(0, norm="layer"), samples())
    assert named(found, "weight") == ["layers.0", "layers.3", "layers.6"]
    assert named(found, "relu") == ["layers.2", "layers.5"]
    assert named(found, "feature") == ["layers.2", "layers.5", "layers.6"]
    assert named(found, "all") == [f"layers.{i}" for i in range(7)]
    assert [layer.depth for layer in choose_layers(found, "feature", "f")] == [1, 2, 3]


def test_functional_and_in_place_activations_are_found():
    found = traced(functional(0), images())
    assert named(found, "relu") == ["relu()", "relu():1", "clamp()"]
    assert named(found, "all") == [
        *("conv1", "bn1", "relu()", "conv2", "relu():1", "clamp()", "fc"),
    ]
    shapes = {layer.name: layer.shape for layer in found}
    assert shapes["conv2"] == (4, 5, 5)
    assert shapes["fc"] == (2,)


def test_activation_functions_are_found_in_place_and_as_methods():
    class Functions(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x):
            x = torch.selu(self.inner(x)).tanh_()
            return functional_of_torch.softsign(functional_of_torch.elu_(x))

    found = traced(Functions(), torch.randn(4, 3))
    assert named(found, "all") == ["inner", "selu()", "tanh()", "elu()", "softsign()"]


def test_a_layer_used_twice_has_two_names_and_a_module_in_a_module_one():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.act = nn.Linear(3, 3), nn.GELU()

        def forward(self, x):
            return self.act(self.inner(self.act(self.inner(x))))

    found = traced(Twice(), torch.randn(4, 3))
    assert named(found, "all") == ["inner", "act", "inner:1", "act:1"]


def test_captured_features_are_those_before_anything_changes_them_in_place():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)).double()
    x = samples(5)
    reader = layer_reader(view(net, caller="f"), outputs=["0", "1"], inputs=["1"])
    before = snapshot(net)
    plain = net[0](x).detach()
    for _ in range(2):
        with reader:
            reading = reader.run((x,))
        torch.testing.assert_close(reading.outputs["0"], plain)
        torch.testing.assert_close(reading.inputs["1"], plain)
        torch.testing.assert_close(reading.outputs["1"], plain.relu())
    assert snapshot(net) == before


def test_sequence_first_layers_are_turned_to_samples_first():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(3, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.lstm(x.transpose(0, 1))[0][-1])

    x = torch.randn(4, 7, 3)
    found = traced(Tagger(), x)
    assert {layer.name: layer.shape for layer in found}["lstm"] == (7, 5)
    assert named(found, "weight") == ["lstm", "head"]
    assert named(found, "weight", affine=True) == ["head"]


def test_attention_runs_as_one_layer():
    net = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
    found = traced(net, torch.randn(4, 3, 8))
    assert named(found, "all") == ["self_attn", "norm1", "linear1", "relu()", "linear2", "norm2"]


def test_blocks_do_not_grow_with_the_number_of_samples(monkeypatch):
    monkeypatch.setattr("sklmc.features._nets_on_samples.BLOCK_NUMBERS", 125)
    nets = Nets([mlp(0), mlp(1)], samples(100), "f", ["a", "b"], 2)
    chosen = choose_layers(nets.layers, "relu", "f")
    sizes = [len(first.outputs["layers.1"]) for first, _ in nets.read(outputs=chosen)]
    assert max(sizes) == 125 // (16 * 2) == sizes[0]
    assert sum(sizes) == 100


def test_unknown_layer_offers_the_nearest_names():
    found = traced(mlp(0), samples())
    with pytest.raises(ValueError, match=r"no layer 'layer\.2'.*nearest are \['layers\.2'"):
        choose_layers(found, ["layer.2"], "f")
    with pytest.raises(ValueError, match="its layers are"):
        choose_layers(found, ["zzz"], "f")
    with pytest.raises(ValueError, match="'layers' is empty"):
        choose_layers(found, [], "f")


def test_layer_of_the_wrong_kind_is_refused():
    found = traced(mlp(0), samples())
    with pytest.raises(ValueError, match=r"'layers\.1' is not linear or convolutional"):
        choose_layers(found, ["layers.1"], "f", affine=True)
    with pytest.raises(ValueError, match="no ReLU layer"):
        choose_layers(traced(nn.Linear(3, 2), samples().float()), "relu", "f")


@pytest.mark.parametrize("alphas", [0, 1.0, (0.5, 1)])
def test_end_points_are_no_position_between(alphas):
    with pytest.raises(ValueError, match="strictly between"):
        check_inner_alphas(alphas, "f")


def test_alphas_are_numbers_in_range():
    assert check_inner_alphas(0.5, "f") == [0.5]
    assert check_inner_alphas([0.75, 0.25, 0.75], "f") == [0.75, 0.25]
    with pytest.raises(ValueError, match="must lie in"):
        check_inner_alphas([1.5], "f")
    with pytest.raises(ValueError, match="empty"):
        check_inner_alphas([], "f")
    with pytest.raises(TypeError, match="number"):
        check_inner_alphas("half", "f")
