"""What cannot be done is refused with the reason and the way on; nothing is changed."""

from __future__ import annotations

import copy
import logging.handlers

import pytest
import torch
from torch import nn

from sklmc.exceptions import (
    ArchitectureMismatchError,
    PermutationError,
    SymmetryError,
    TraceError,
)
from sklmc.symmetry import (
    Permutation,
    PermutationSymmetry,
    discover_symmetry,
    register_rule,
)
from tests.symmetry.zoo import ZOO, Net


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x):
        h = self.a(x)
        if h.sum() > 0:
            h = h.relu()
        return self.b(h)


BRANCHING_SPEC = {"a.weight": ("h", None), "a.bias": ("h",), "b.weight": (None, "h")}


def test_data_dependent_control_flow_names_the_users_line(capfd):
    with pytest.raises(TraceError, match=r"test_errors\.py:\d+, 'if h\.sum\(\) > 0:'") as caught:
        discover_symmetry(Branching(), torch.randn(4, 3))
    assert "depends on the values" in str(caught.value)
    assert "from_axes_to_perm" in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_spec_is_the_way_on_for_what_cannot_be_traced():
    net, X = Branching(), torch.randn(4, 3)
    symmetry = PermutationSymmetry.from_axes_to_perm(BRANCHING_SPEC, net, X)
    assert [group.size for group in symmetry.groups] == [5]
    assert symmetry.evidence["modes"] == ["eval"]
    assert symmetry.evidence["error"] < 1e-10


def test_a_wrong_spec_is_refused_even_where_nothing_can_be_traced():
    spec = {"a.weight": ("h", None), "b.weight": (None, "h")}
    with pytest.raises(SymmetryError, match="group 'h' changes the function"):
        PermutationSymmetry.from_axes_to_perm(spec, Branching(), torch.randn(4, 3))


def test_packed_sequences_are_refused():
    class Packing(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x):
            lengths = torch.full((len(x),), x.shape[1])
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            return self.rnn(packed)[1][0]

    with pytest.raises(TraceError, match=r"could not be traced at .*test_errors\.py"):
        discover_symmetry(Packing(), torch.randn(2, 5, 3))


def test_random_forward_is_refused():
    net = Net(
        lambda net, x: net.b(nn.functional.dropout(net.a(x), 0.5)),
        a=nn.Linear(3, 5),
        b=nn.Linear(5, 2),
    )
    with pytest.raises(SymmetryError, match="random in eval mode"):
        discover_symmetry(net, torch.randn(4, 3))


def test_wrong_width_of_X_is_refused():
    net = ZOO["mlp"].make()[0]
    with pytest.raises(
        ValueError, match=r"'X' has 4 features|does not take 'X' \(traced as \(8, 4\)"
    ):
        discover_symmetry(net, torch.randn(8, 4))


def test_wrong_shape_of_X_is_refused_in_words():
    net = ZOO["conv_batch_norm"].make()[0]
    with pytest.raises(
        ValueError, match=r"does not take 'X' .*expected input.* to have 3 channels"
    ):
        discover_symmetry(net, torch.randn(4, 2, 8, 8))


def test_arguments_that_do_not_fit_each_other_are_refused_in_words():
    logged = logging.handlers.BufferingHandler(100)
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    logger.addHandler(logged)
    net = Net(lambda net, x, scale: net.b(net.a(x) * scale), a=nn.Linear(3, 5), b=nn.Linear(5, 2))
    try:
        with pytest.raises(ValueError, match=r"(does not take|cannot run on) 'X' .*must match the"):
            discover_symmetry(net, (torch.randn(4, 3), torch.ones(4, 7)))
    finally:
        logger.removeHandler(logged)
    assert logged.buffer == []


@pytest.mark.parametrize("name", ["mlp_norms", "conv_batch_norm", "two_encoder_layers"])
def test_a_batch_of_one_is_repeated(name):
    net, (X,) = ZOO[name].make()
    symmetry = discover_symmetry(net, X[:1])
    assert sorted((group.size, group.copies) for group in symmetry.groups) == ZOO[name].groups


def small_net():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def with_weight(change):
    net = small_net()
    net[2].weight = nn.Parameter(change(net[2].weight.detach()), requires_grad=False)
    return net


def with_buffer(values, persistent):
    net = small_net()
    net[2].register_buffer("extra", values, persistent=persistent)
    return net


def quantised(values, dtype=torch.qint8):
    return torch.quantize_per_tensor(values, 0.1, 0, dtype)


BAD_TENSORS = {
    "meta net": (lambda: small_net().to("meta"), r"'0\.weight' has no values yet.*meta"),
    "meta layer": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2, device="meta")),
        r"'2\.weight' has no values yet.*meta",
    ),
    "meta constant": (
        lambda: with_buffer(torch.ones(4, device="meta"), False),
        r"'2\.extra' has no values yet.*meta",
    ),
    "lazy layer": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.LazyLinear(2)),
        r"'2\.weight' has no values yet.*lazy",
    ),
    "qint8": (lambda: with_weight(quantised), r"'2\.weight' is quantised"),
    "quint8": (
        lambda: with_weight(lambda w: quantised(w, torch.quint8)),
        r"'2\.weight' is quantised",
    ),
    "qint8 buffer": (lambda: with_buffer(quantised(torch.ones(4)), True), r"'2\.extra' is quant"),
    "float8": (lambda: with_weight(lambda w: w.to(torch.float8_e4m3fn)), r"'2\.weight' is .*8_e4"),
    "sparse": (lambda: with_weight(torch.Tensor.to_sparse), r"'2\.weight' is .*sparse_coo"),
    "sparse rows": (
        lambda: with_weight(torch.Tensor.to_sparse_csr),
        r"'2\.weight' is .*sparse_csr",
    ),
    "sparse constant": (
        lambda: with_buffer(torch.eye(4).to_sparse(), False),
        r"'2\.extra' is .*sparse_coo",
    ),
    "nested": (
        lambda: with_weight(lambda w: torch.nested.nested_tensor(list(w))),
        r"'2\.weight' is nested",
    ),
}


@pytest.fixture(scope="module")
def small_symmetry():
    return discover_symmetry(small_net())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", BAD_TENSORS)
def test_tensors_without_entries_that_can_move_are_named(kind, small_symmetry):
    make, message = BAD_TENSORS[kind]
    net, X = make(), torch.randn(8, 3)
    for refuse in (
        lambda: discover_symmetry(net, X),
        lambda: discover_symmetry(net, X, verify=False),
        lambda: small_symmetry.apply(net, small_symmetry.identity()),
        lambda: small_symmetry.verify(net, X),
    ):
        with pytest.raises(ValueError, match=message):
            refuse()


def dynamically(dtype):
    return torch.ao.quantization.quantize_dynamic(small_net(), {nn.Linear}, dtype=dtype)


def for_training():
    net = small_net().train()
    net.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    return torch.ao.quantization.prepare_qat(net)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "make",
    [lambda: dynamically(torch.qint8), lambda: dynamically(torch.float16), for_training],
    ids=["int8", "float16", "training"],
)
def test_quantised_modules_are_named(make, small_symmetry):
    net = make()
    with pytest.raises(ValueError, match=r"module '0' \(torch\.ao.*Linear\) quantises"):
        discover_symmetry(net, torch.randn(8, 3))
    with pytest.raises(ValueError, match=r"module '0'.* quantises"):
        small_symmetry.apply(net, small_symmetry.identity())


def test_a_net_made_ready_for_quantising_is_still_in_floating_point():
    net = Net(
        lambda net, x: net.b(net.add.add(net.a(x).relu(), net.c(x))),
        a=nn.Linear(3, 5),
        c=nn.Linear(3, 5),
        b=nn.Linear(5, 2),
        add=torch.ao.nn.quantized.FloatFunctional(),
    )
    assert [group.size for group in discover_symmetry(net, torch.randn(8, 3)).groups] == [5]


@pytest.mark.parametrize("name", ["conv_batch_norm", "spectral_norm", "lstm", "two_encoder_layers"])
def test_the_model_is_not_changed(name):
    net, (X,) = ZOO[name].make()
    net.train()
    next(net.children()).eval()
    handle = net.register_forward_hook(lambda *_: None)
    before = copy.deepcopy(net.state_dict())
    flags = [part.training for part in net.modules()]
    parameters = [(id(p), p.requires_grad, p.grad) for p in net.parameters()]
    symmetry = discover_symmetry(net, X)
    symmetry.apply(net, symmetry.random_permutation(0))
    symmetry.verify(net, X)
    assert [part.training for part in net.modules()] == flags
    assert [(id(p), p.requires_grad, p.grad) for p in net.parameters()] == parameters
    assert list(net._forward_hooks) == [handle.id]
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[key])


def test_another_architecture_is_refused_by_name_of_the_tensor():
    small, X = ZOO["mlp"].make()[0], torch.randn(8, 5)
    symmetry = discover_symmetry(small, X)
    other = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 9), nn.Tanh(), nn.Linear(9, 3))
    with pytest.raises(ArchitectureMismatchError, match=r"'0\.weight' has shape \(8, 5\)"):
        symmetry.apply(other, symmetry.identity())


def test_another_constant_is_refused():
    net, (X,) = ZOO["llama"].make()
    symmetry = discover_symmetry(net, X)
    other = copy.deepcopy(net)
    other[1][0].attention.inv_freq.mul_(2)
    with pytest.raises(ArchitectureMismatchError, match=r"1\.0\.attention\.inv_freq"):
        symmetry.check(other)


def test_permutations_are_checked():
    symmetry = discover_symmetry(ZOO["mlp"].make()[0])
    with pytest.raises(PermutationError, match="no group 'x'; the groups are '0', '2'"):
        symmetry.permutation({"x": [0, 1]})
    with pytest.raises(PermutationError, match=r"shape \(7,\), got \(2,\)"):
        symmetry.permutation({"0": [1, 0]})
    with pytest.raises(PermutationError, match="every index must occur once"):
        symmetry.permutation({"0": [0] * 7})
    with pytest.raises(PermutationError, match="must hold integers, got dtype float64"):
        symmetry.permutation({"0": [0.5] * 7})
    with pytest.raises(SymmetryError, match="no group 'x'"):
        symmetry.group("x")
    other = discover_symmetry(ZOO["residual_mlp"].make()[0], torch.randn(8, 5))
    with pytest.raises(PermutationError, match="different nets"):
        symmetry.identity().compose(other.identity())
    with pytest.raises(SymmetryError, match="belongs to another net"):
        symmetry.apply(ZOO["mlp"].make()[0], other.random_permutation(0))
    with pytest.raises(TypeError, match="must be a Permutation, got dict"):
        symmetry.identity().compose({})


def test_specs_that_do_not_fit_are_refused():
    net, (X,) = ZOO["mlp"].make()
    load = PermutationSymmetry.from_axes_to_perm
    with pytest.raises(SymmetryError, match="no tensor 'x'"):
        load({"x": ("h",)}, net, X)
    with pytest.raises(SymmetryError, match=r"'0\.weight' has 2 axes .* the spec gives it 1"):
        load({"0.weight": ("h",)}, net, X)
    with pytest.raises(SymmetryError, match=r"group 'h' has size 7 at 0\.weight\[0\] but 5 at"):
        load({"0.weight": ("h", "h")}, net, X)
    with pytest.raises(ValueError, match="no symmetry written by to_dict"):
        PermutationSymmetry.from_dict({"0.weight": ("h", None)})
    with pytest.raises(ValueError, match="version 99"):
        PermutationSymmetry.from_dict({"format": "sklmc.PermutationSymmetry", "version": 99})


def test_foreign_file_is_no_permutation(tmp_path):
    from safetensors.numpy import save_file

    save_file({}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="was not written by sklmc"):
        Permutation.load(tmp_path / "x.safetensors")


def test_rule_that_labels_another_shape_is_named():
    from sklmc.symmetry._rules import RULES, Labelled

    try:
        register_rule("aten::tanh")(lambda op: Labelled(op["self"].axes[::-1], op.shape()))
        with pytest.raises(SymmetryError, match="the rule for 'aten::tanh' labels a result"):
            discover_symmetry(ZOO["mlp"].make()[0])
    finally:
        RULES.pop("aten::tanh")
    with pytest.raises(TypeError, match="'names' must be strings"):
        register_rule(torch.tanh)
