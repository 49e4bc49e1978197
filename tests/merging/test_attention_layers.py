"""Attention as four layers: projections of queries, keys and values, and of what is attended to."""

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import NetClassifier, average_models
from sklmc.exceptions import ArchitectureMismatchError
from sklmc.merging import EnsembleMerger, repair
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._layers import find_layers
from sklmc.merging._repairs._refit import refit_state
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.models import Arrays, average_states, predict_outputs, view
from tests.merging.conftest import randomised
from tests.merging.test_layer_rows import read_both, times_weights
from tests.models.conftest import snapshot


def rows(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Attend(nn.Module):
    """Attends from a sequence to itself or to another one."""

    def __init__(self, mask=False, **settings):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, **settings)
        self.mask = mask

    def forward(self, x, source=None, values=None):
        source = x if source is None else source
        values = source if values is None else values
        n = x.shape[1 if self.attention.batch_first else 0]
        mask = torch.triu(torch.ones(n, n, dtype=torch.bool), diagonal=1) if self.mask else None
        return self.attention(x, source, values, attn_mask=mask)[0]


QUERIES, KEYS, VALUES = rows(5, 3, 4), rows(6, 3, 4, seed=1), rows(6, 3, 4, seed=2)
ATTENTIONS = {
    "self": (Attend(), (QUERIES,)),
    "samples first": (Attend(batch_first=True), (QUERIES,)),
    "unbatched": (Attend(), (QUERIES[:, 0],)),
    "masked": (Attend(mask=True, batch_first=True), (QUERIES,)),
    "across": (Attend(), (QUERIES, KEYS)),
    "three inputs": (Attend(), (QUERIES, KEYS, VALUES)),
    "own widths": (Attend(kdim=3, vdim=2), (QUERIES, KEYS[..., :3], VALUES[..., :2])),
    "no bias": (Attend(bias=False), (QUERIES,)),
    "extra key": (Attend(add_bias_kv=True, add_zero_attn=True), (QUERIES,)),
}


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_rows_times_weights_are_what_each_part_gives(kind):
    module, args = ATTENTIONS[kind]
    look = view(randomised(module, 0), caller="f")
    layers, _ = find_layers(look, look.state, args)
    assert [layer.kind for layer in layers] == ["query", "key", "value", "attended"]
    for layer in layers:
        x, t = read_both(look, layer, None, inputs=args)
        torch.testing.assert_close(times_weights(look, layer, x), t, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(t, look.module(*args).detach().reshape(-1, 4), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["self", "own widths", "no bias"])
def test_weights_written_back_are_the_weights(kind):
    module, args = ATTENTIONS[kind]
    look = view(randomised(module, 0), caller="f")
    before = {name: tensor.clone() for name, tensor in look.state.items()}
    state = dict(look.state)
    for layer in find_layers(look, look.state, args)[0]:
        biases = layer.biases(state)
        twice = layer.changes(
            state, 2 * layer.matrix(state), None if biases is None else 2 * biases
        )
        assert twice.keys() == {layer.weight, layer.bias} - {None}
        state.update(twice)
    for name, tensor in before.items():
        assert torch.equal(look.state[name], tensor)
        torch.testing.assert_close(state[name].to(tensor), 2 * tensor)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_that_ends_a_branch_knows_its_addition(batch_first, norm_first):
    block = nn.TransformerEncoderLayer(4, 2, 8, batch_first=batch_first, norm_first=norm_first)
    look = view(block.eval(), caller="f")
    layers, left = find_layers(look, look.state, (rows(2, 3, 4),))
    by_kind = {layer.kind: layer for layer in layers}
    assert by_kind["attended"].addition is not None
    assert by_kind["attended"].is_swapped == batch_first
    assert left == []


def test_shared_projections_and_extra_keys_are_left():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)

        def forward(self, x):
            x = self.attention(x, x, x)[0]
            return self.attention(x, x, x)[0]

    for module, wanted in ((Shared(), 0), (Attend(add_bias_kv=True), 4)):
        look = view(module.eval(), caller="f")
        layers, left = find_layers(look, look.state, (rows(2, 3, 4),))
        assert len(layers) == wanted
        assert {"attention.bias_k", "attention.bias_v"} <= {*left}
        assert len(left) == (2 if wanted else 4)


class Encoder(nn.Module):
    """A transformer that reads rows of a table as sequences."""

    def __init__(self, batch_first=True, cross=False):
        super().__init__()
        self.first, self.cross = batch_first, cross
        kind = nn.TransformerDecoderLayer if cross else nn.TransformerEncoderLayer
        self.embed = nn.Linear(4, 4)
        self.block = kind(4, 2, 8, batch_first=batch_first)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.embed(x))
        h = x if self.first else x.transpose(0, 1)
        source = h[:, :2] if self.first else h[:2]
        h = self.block(h, source) if self.cross else self.block(h)
        return self.head(h.mean(dim=1 if self.first else 0))


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("batch_first", [True, False])
def test_refit_of_a_transformer(batch_first, cross):
    """It finds back to equal end points, and comes nearer to the mean of different ones."""
    a, b = (view(randomised(Encoder(batch_first, cross), seed), caller="f") for seed in range(2))
    x, half = Arrays(rows(120, 5, 4)), np.array([0.5, 0.5])
    plain = average_states([a.state, b.state], half)
    wanted = predict_outputs(a, x)
    norms = {name: tensor for name, tensor in a.state.items() if "norm" in name}
    wrong = {**plain, **norms}  # layer norm is no part of a refit
    state, left = refit_state(a, wrong, EndPoints([a.state, a.state], half), SampleSet(x))
    assert left == []
    torch.testing.assert_close(predict_outputs(a, x, state), wanted, atol=1e-2, rtol=1e-2)
    assert not torch.allclose(predict_outputs(a, x, wrong), wanted, rtol=0.3, atol=0.3)
    mean = (wanted + predict_outputs(b, x)) / 2
    state, _ = refit_state(a, plain, EndPoints([a.state, b.state], half), SampleSet(x))
    before = (predict_outputs(a, x, plain) - mean).square().mean()
    assert (predict_outputs(a, x, state) - mean).square().mean() < 0.5 * before


@pytest.mark.parametrize("method", ["refit", "renormalize"])
def test_repair_leaves_no_weight_of_a_transformer_averaged(method, recwarn):
    nets = [randomised(Encoder(), seed) for seed in range(2)]
    merged = average_models(nets)
    before = [snapshot(net) for net in (*nets, merged)]
    repaired = repair(merged, nets, rows(500, 5, 4), method=method)
    assert not recwarn.list
    assert [snapshot(net) for net in (*nets, merged)] == before
    for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight"):
        old, new = (net.block.self_attn.get_parameter(name) for net in (merged, repaired))
        assert torch.isfinite(new).all()
        for part, other in zip(old.chunk(3), new.chunk(3)):
            assert not torch.equal(part, other)


class Judge(nn.Module):
    """Attends from sample to sample; what that gives are the logits of two classes."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1)

    def forward(self, x):
        return self.attention(x, x, x)[0]


def test_attention_that_gives_the_logits_is_no_head_to_be_widened():
    """Its last projection has a row for each class, but its width is that of what it reads too."""
    x, y = rows(40, 2).numpy(), np.arange(40) % 2
    nets = [NetClassifier(Judge, max_epochs=1).fit(x, y + shift) for shift in (0, 1)]
    with pytest.raises(ArchitectureMismatchError, match="its head cannot be widened"):
        EnsembleMerger(nets).fit([x, x], [y, y + 1])
