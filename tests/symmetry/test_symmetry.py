"""PermutationSymmetry and Permutation: what users hold in their hands."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import merge_models
from sklmc.symmetry import (
    FrozenAxis,
    Permutation,
    PermutationGroup,
    PermutationSymmetry,
    cached_symmetry,
    discover_symmetry,
)
from tests.symmetry.zoo import ZOO, small_resnet


def of(name, **options):
    net, inputs = ZOO[name].make()
    X = inputs if len(inputs) > 1 else inputs[0]
    return net, X, discover_symmetry(net, X, **options)


@pytest.fixture(scope="module")
def encoder():
    return of("encoder_layer")


# -- elements ------------------------------------------------------------------------------------


def test_new_unit_i_is_old_unit_perm_i():
    net, _, symmetry = of("mlp")
    perm = [2, 0, 1, 3, 4, 6, 5]
    moved = symmetry.apply(net, {"0": perm})
    assert torch.equal(moved[0].weight, net[0].weight[perm])
    assert torch.equal(moved[0].bias, net[0].bias[perm])
    assert torch.equal(moved[2].weight, net[2].weight[:, perm])


def test_inner_permutation_is_indexed_by_the_new_outer_index(encoder):
    net, _, symmetry = encoder
    heads = symmetry.group("self_attn.in_proj")
    inner = next(g for g in symmetry.groups if g.within and len(g.places) > 2)
    sigma = np.roll(np.arange(4), 1)
    tau = np.stack([np.roll(np.arange(4), k) for k in range(4)])
    moved = symmetry.apply(net, {heads.name: sigma, inner.name: tau})
    old = net.self_attn.out_proj.weight.reshape(16, 4, 4)
    new = moved.self_attn.out_proj.weight.reshape(16, 4, 4)
    for i in range(4):
        for j in range(4):
            assert torch.equal(new[:, i, j], old[:, sigma[i], tau[i, j]])


def test_structured_composition_is_not_element_by_element(encoder):
    _, _, symmetry = encoder
    p, q = symmetry.random_permutation(0), symmetry.random_permutation(1)
    inner = next(g for g in symmetry.groups if g.within)
    naive = np.take_along_axis(q[inner.name], p[inner.name], axis=-1)
    assert not np.array_equal(p.compose(q)[inner.name], naive)


def test_composition_is_associative_and_inverse_reverses_it(encoder):
    _, _, symmetry = encoder
    p, q, r = (symmetry.random_permutation(seed) for seed in range(3))
    assert p.compose(q).compose(r) == p.compose(q.compose(r))
    assert p.compose(q).inverse() == q.inverse().compose(p.inverse())
    assert p.compose(symmetry.identity()) == p == symmetry.identity().compose(p)


def test_random_permutations_are_uniform_and_repeatable():
    group = PermutationGroup("g", 3)
    random = np.random.RandomState(0)
    draws = [tuple(group.draw(random)) for _ in range(1200)]
    counts = {draw: draws.count(draw) for draw in set(draws)}
    assert len(counts) == 6
    assert min(counts.values()) > 150  # 200 expected, standard deviation 13
    _, _, symmetry = of("mlp")
    assert symmetry.random_permutation(3) == symmetry.random_permutation(3)
    assert symmetry.random_permutation(3) != symmetry.random_permutation(4)


def test_permutation_is_a_read_only_mapping():
    _, _, symmetry = of("mlp")
    p = symmetry.permutation({"0": [1, 0, 2, 3, 4, 5, 6]})
    assert list(p) == ["0", "2"]
    assert p.n_moved == 2
    assert p["0"].dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        p["0"][0] = 3
    with pytest.raises(TypeError):
        p["0"] = p["0"]
    assert repr(p) == "Permutation(2 groups, 2 of 16 units moved)"


def test_permutations_travel(encoder, tmp_path):
    _, _, symmetry = encoder
    p = symmetry.random_permutation(0)
    p.save(tmp_path / "p.safetensors")
    assert Permutation.load(tmp_path / "p.safetensors") == p
    assert pickle.loads(pickle.dumps(p)) == p
    assert copy.deepcopy(p) == p


# -- application ---------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, lambda n: nn.GroupNorm(1, n), None])
def test_float32_nets_keep_their_function(norm):
    """The user's own weights, batch norm in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, X = small_resnet("project", (8, 16, 32)), torch.randn(16, 3, 16, 16)
        if norm is not nn.BatchNorm2d:
            for part in net:
                for name, child in list(part.named_children()):
                    if isinstance(child, nn.BatchNorm2d):
                        n = child.num_features
                        setattr(part, name, nn.Identity() if norm is None else norm(n))
    symmetry = discover_symmetry(net, X)
    moved = symmetry.apply(net, symmetry.random_permutation(0))
    with torch.no_grad():
        before, after = net.eval()(X), moved.eval()(X)
    assert (before - after).abs().max() < 1e-5 * before.abs().max()
    assert not torch.equal(net[0].weight, moved[0].weight)


def test_untouched_tensors_keep_their_bits_and_the_rest_is_only_moved():
    net, _, symmetry = of("mlp_norms")
    state = net.state_dict()
    moved = symmetry.apply_state(state, {"0": [1, 0, 2, 3, 4, 5, 6]})
    assert moved["7.weight"] is state["7.weight"]
    for name, tensor in state.items():
        assert torch.equal(tensor.flatten().sort().values, moved[name].flatten().sort().values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_kept(dtype):
    net, _, symmetry = of("mlp")
    moved = symmetry.apply(net.to(dtype), symmetry.random_permutation(0))
    assert all(p.dtype is dtype for p in moved.parameters())


def test_half_precision_nets_are_proved_in_double():
    net, X = ZOO["mlp"].make()
    symmetry = discover_symmetry(net.bfloat16(), X[0])
    assert symmetry.evidence["error"] < 1e-12


def test_tied_tensors_stay_tied():
    net, _, symmetry = of("gpt")
    moved = symmetry.apply(net, symmetry.random_permutation(0))
    assert moved.head.weight is moved.tokens.weight
    assert symmetry.aliases == (("tokens.weight", "head.weight"),)


# -- discovery -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["encoder_layer", "dense_net", "lstm"])
def test_without_verification_the_groups_are_the_same(name):
    proved, plain = of(name)[2], of(name, verify=False)[2]
    assert plain.evidence is None
    assert [(g.name, g.size, g.places) for g in plain.groups] == [
        (g.name, g.size, g.places) for g in proved.groups
    ]


def test_evidence_says_what_was_tested():
    _, _, symmetry = of("mlp_norms")
    evidence = symmetry.evidence
    assert evidence["modes"] == ["eval", "train"]
    assert evidence["n_draws"] == sum(evidence["draws"].values()) == 22
    assert set(evidence["errors"]) == {"0", "4"}
    assert evidence["torch"] == torch.__version__
    assert all(group.observable for group in symmetry.groups)
    assert len(symmetry.graph_hash) == 64


def test_groups_come_in_data_flow_order():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.b, self.a = nn.Linear(6, 2), nn.Linear(4, 6), nn.Linear(3, 4)

        def forward(self, x):
            return self.c(self.b(self.a(x).relu()).relu())

    symmetry = discover_symmetry(Backwards(), torch.randn(4, 3))
    assert [group.size for group in symmetry.groups] == [4, 6]


def test_bias_of_a_key_projection_is_unobservable(encoder):
    """Adding the same number to all scores of a query changes no softmax."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 6) for _ in range(3))

        def forward(self, x):
            scores = self.q(x) @ self.k(x).transpose(1, 2)
            return scores.softmax(-1) @ self.v(x)

    symmetry = discover_symmetry(Attention(), torch.randn(3, 5, 6))
    group = symmetry.groups[0]
    assert group.unobservable == ("k.bias",)
    assert group.observable
    assert "seen by no output: k.bias" in str(symmetry)


def test_unused_parameters_do_not_move():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net.register_parameter("spare", nn.Parameter(torch.zeros(5)))
    symmetry = discover_symmetry(net, torch.randn(4, 3))
    assert [group.size for group in symmetry.groups] == [4]
    assert any(e.tensor == "spare" and "does not use" in e.reason for e in symmetry.frozen)


def test_output_that_is_a_hidden_state_is_advised_against():
    net = nn.Sequential(nn.Linear(5, 16), nn.TransformerEncoderLayer(16, 4, 32, batch_first=True))
    text = str(discover_symmetry(net, torch.randn(3, 6, 5)))
    assert "Wrap the model so that it returns logits only" in text


def test_operation_without_a_rule_is_reported_with_module_and_line():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.linalg.matrix_exp(x)

    net = nn.Sequential(nn.Linear(3, 4), Odd(), nn.Linear(4, 2))
    symmetry = discover_symmetry(net, torch.randn(4, 3))
    assert symmetry.groups == ()
    entry = next(e for e in symmetry.frozen if e.kind.startswith("no rule"))
    assert isinstance(entry, FrozenAxis)
    assert entry.module == "1"
    assert "test_symmetry.py:" in entry.reason
    assert "register_rule" in str(symmetry)


def test_padding_in_the_middle_is_one_group_and_not_the_whole_stream():
    _, _, symmetry = of("resnet_padded")
    stream = symmetry.group("4.conv2")
    (block, *others) = symmetry.blocks["4.norm2.weight"]
    axes = {axis.factors: axis.positions.tolist() for b in (block, *others) for axis in b.axes}
    assert axes[(stream.name,)] == [0, 1, 6, 7]


# -- what is shown -------------------------------------------------------------------------------


def test_summary_names_groups_reasons_and_evidence(encoder):
    text = str(encoder[2])
    assert text.startswith("PermutationSymmetry: 4 groups, ")
    assert "S_4 x 4 (within self_attn.in_proj)" in text
    assert "verified in eval and train mode" in text
    assert "input of the net" in text


def test_summary_of_an_unverified_symmetry_says_so():
    assert "Not verified" in str(of("mlp", verify=False)[2])


def test_html_holds_every_group_and_escapes(encoder):
    page = encoder[2]._repr_html_()
    assert page.count("<tr>") == 1 + len(encoder[2].groups)
    group = PermutationGroup("<b>", 3, places=(("w", 0),))
    assert "&lt;b&gt;" in PermutationSymmetry([group], {}, {})._repr_html_()


def test_frame_has_one_row_per_place(encoder):
    frame = encoder[2].to_frame()
    assert len(frame) == sum(len(group.places) for group in encoder[2].groups)
    assert set(frame.loc[frame["group"] == "linear1", "tensor"]) == {
        "linear1.weight",
        "linear1.bias",
        "linear2.weight",
    }


def test_share_of_permutable_weights():
    _, _, symmetry = of("mlp")
    total = 5 * 7 + 7 + 7 * 9 + 9 + 9 * 3 + 3
    assert symmetry.permutable_fraction == pytest.approx((total - 3) / total)


# -- plain values --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "encoder_layer", "grouped_conv", "experts", "dense_net"])
def test_json_round_trip(name):
    net, _, symmetry = of(name)
    again = PermutationSymmetry.from_dict(json.loads(json.dumps(symmetry.to_dict())))
    assert again.to_dict() == symmetry.to_dict()
    p = symmetry.random_permutation(0)
    one, other = (s.apply_state(net.state_dict(), p) for s in (symmetry, again))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_axes_to_perm_round_trip():
    net, X, symmetry = of("conv_batch_norm")
    spec = symmetry.to_axes_to_perm()
    assert spec["3.weight"] == ("3", "0", None, None)
    assert spec["1.running_mean"] == ("0",)
    again = PermutationSymmetry.from_axes_to_perm(spec, net, X)
    assert again.to_axes_to_perm() == spec
    assert {g.name: set(g.places) for g in again.groups} == {
        g.name: set(g.places) for g in symmetry.groups
    }


def test_wrong_spec_is_refused_with_the_group_that_breaks_it():
    net, X, symmetry = of("conv_batch_norm")
    spec = symmetry.to_axes_to_perm()
    spec["1.running_var"] = (None,)
    with pytest.raises(ValueError, match="moving the units of group '0' changes the function"):
        PermutationSymmetry.from_axes_to_perm(spec, net, X)
    assert PermutationSymmetry.from_axes_to_perm(spec, net, X, verify=False).evidence is None


def test_what_the_dialect_cannot_say_is_named_or_dropped(encoder):
    net, X, symmetry = encoder
    with pytest.raises(ValueError, match=r"along self_attn\.in_proj_weight\[0\]"):
        symmetry.to_axes_to_perm()
    spec = symmetry.to_axes_to_perm(lossy=True)
    assert {name for names in spec.values() for name in names} == {"linear1", None}
    assert len(PermutationSymmetry.from_axes_to_perm(spec, net, X).groups) == 1


# -- once per architecture -----------------------------------------------------------------------


def cached(net, X):
    from sklmc.models import view

    return cached_symmetry(view(net, caller="test"), X)


def test_one_architecture_is_discovered_once():
    first, second = (ZOO["mlp"].make()[0] for _ in range(2))
    with torch.no_grad():
        second[0].weight.add_(1)
    X = torch.randn(8, 5)
    assert cached(first, X) is cached(second, X[:3])


def test_merged_nets_have_the_architecture_of_their_parents():
    """Where they came from is written on them, and differs."""
    parents = [ZOO["mlp"].make()[0] for _ in range(2)]
    with torch.no_grad():
        parents[1][0].weight.add_(1)
    X = torch.randn(8, 5)
    merged = [merge_models(nets, repair=None, aligner=None) for nets in (parents, parents[::-1])]
    assert merged[0].provenance_ != merged[1].provenance_
    assert all(cached(net, X) is cached(parents[0], X) for net in merged)
    assert all(hasattr(net, "provenance_") for net in merged)


def test_another_constant_is_another_architecture():
    class Scaled(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.inp, self.out = nn.Linear(3, 4), nn.Linear(4, 2)
            self.scale = scale

        def forward(self, x):
            return self.out(self.inp(x) * self.scale)

    X = torch.randn(8, 3)
    even = cached(Scaled(torch.ones(4)), X)
    odd = cached(Scaled(torch.arange(4.0)), X)
    assert [g.size for g in even.groups] == [4]
    assert odd.groups == ()
    assert cached(Scaled(2.0), X) is not cached(Scaled(3.0), X)
