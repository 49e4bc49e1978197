"""A test of the prover: rules broken on purpose are caught, and the truth is all that is left.

Every mutant claims a permutation that changes the function. Verification must freeze it.
"""

from __future__ import annotations

import contextlib

import pytest

from sklmc.symmetry import discover_symmetry
from sklmc.symmetry._algebra._labels import Labels
from sklmc.symmetry._rules import RULES, Labelled
from sklmc.symmetry._rules._contraction import attention, contract
from tests.symmetry.zoo import ZOO


def carry(op):
    """Take an operation for one that moves nothing and mixes nothing."""
    return Labelled(op.tensors[0].axes, op.shape())


def carry_all(op):
    """As `carry`, for operations with parameters of their own along the channels."""
    x = op.tensors[0]
    names = list(range(x.ndim))
    vectors = [t.roles([1]) for t in op.tensors[1:] if t.ndim == 1]
    return op.result(names, op.join(x.roles(names), *vectors))


def batch_norm_without_buffers(op):
    x = op["input"]
    names = list(range(x.ndim))
    vectors = [op[name].roles([1]) for name in ("weight", "bias")]
    return op.result(names, op.join(x.roles(names), *vectors))


def fresh_concatenation(op):
    shape, dim = op.shape(), op.dim("dim", len(op.shape()))
    axes = {d: axis for d, axis in enumerate(op["tensors"][0].axes) if d != dim}
    return op.result(range(len(shape)), {**axes, dim: op.fresh(shape[dim])})


def heads_untied(op):
    """Attention whose value heads may move without the query and key heads."""
    query, key, value = op["query"], op["key"], op["value"]
    batch = [("batch", d) for d in range(query.ndim - 2)]
    mine = [*batch[:-1], "value heads"]
    op.join(query.roles([*batch, "t", "d"]), key.roles([*batch, "s", "d"]))
    axes = dict(op.join(value.roles([*mine, "s", "e"])))
    axes["t"] = query.axes[-2]
    return op.result([*mine, "t", "e"], axes)


def keys_not_contracted(op):
    """Attention that forgets that queries and keys are multiplied."""
    query, key, value = op["query"], op["key"], op["value"]
    batch = [("batch", d) for d in range(query.ndim - 2)]
    operands = [(query, [*batch, "t", "d"]), (key, [*batch, "s", "k"]), (value, [*batch, "s", "e"])]
    return contract(op, operands, [*batch, "t", "e"])


def depthwise_as_dense(op):
    """A convolution whose weight and channels have nothing to do with each other."""
    if op["groups"] == 1:
        return RIGHT["aten::conv2d"](op)
    x, weight, shape = op["input"], op["weight"], op.shape()
    axes = [x.axes[0], op.fresh(shape[1]), *(op.fresh(size, "space") for size in shape[2:])]
    for axis in (*x.axes[2:], *weight.axes[2:]):
        op.fix(axis, "space")
    return Labelled(tuple(axes), shape)


def ungrouped_projection(op):
    """A linear layer whose input may be permuted without its weight."""
    x, weight, bias = op["input"], op["weight"], op["bias"]
    batch = [("batch", d) for d in range(x.ndim - 1)]
    operands = [(x, [*batch, "x"]), (weight, ["out", "in"]), (bias, ["out"])]
    return contract(op, operands, [*batch, "out"])


def one_gate_forgotten(op):
    """An LSTM that looks at three of its four gates only."""
    w_ih, w_hh, *biases = op["params"]
    size = w_ih.shape[0] // 4
    unit, rest = op.fresh(size), op.fresh(size)
    gates = (*unit, *unit, *unit, *rest)
    op.join({"g": gates}, {"in": op["input"].axes[-1]}, w_ih.roles(["g", "in"]))
    op.join({"g": gates, "h": unit}, w_hh.roles(["g", "h"]), *(b.roles(["g"]) for b in biases))
    op.fix(op["input"].axes[1], "time")
    shape = op.shape(0)
    out = Labelled((*op["input"].axes[:-1], unit), shape)
    finals = [Labelled((((),), op["input"].axes[0], unit), op.shape(i)) for i in (1, 2)]
    return [out, *finals]


def bias_forgotten(op):
    x, weight = op["input"], op["weight"]
    batch = [("batch", d) for d in range(x.ndim - 1)]
    return contract(op, [(x, [*batch, "in"]), (weight, ["out", "in"])], [*batch, "out"])


def flattened_without_blocks(op):
    """A view that loses what belongs together."""
    shape = op.shape()
    if len(shape) != 2:
        return RIGHT["aten::flatten"](op)
    return Labelled((op.tensors[0].axes[0], op.fresh(shape[1])), shape)


RIGHT = dict(RULES)

MUTANTS = {
    "group norm taken as pointwise": ("group_norm", {"aten::group_norm": carry_all}),
    "concatenation gives one new axis": ("two_branches", {"aten::cat": fresh_concatenation}),
    "flip taken as carry": ("flipped", {"aten::flip": carry}),
    "cumsum taken as carry": ("accumulated", {"aten::cumsum": carry}),
    "heads untied": (
        "two_encoder_layers",
        {"aten::scaled_dot_product_attention": heads_untied},
    ),
    "queries and keys untied": (
        "encoder_layer",
        {"aten::scaled_dot_product_attention": keys_not_contracted},
    ),
    "buffers of batch norm forgotten": (
        "conv_batch_norm",
        {"aten::batch_norm": batch_norm_without_buffers},
    ),
    "depthwise taken as dense": ("depthwise", {"aten::conv2d": depthwise_as_dense}),
    "a gate unshared": ("lstm", {"aten::lstm": one_gate_forgotten}),
    "input of a linear layer free": ("mlp", {"aten::linear": ungrouped_projection}),
    "bias forgotten": ("mlp", {"aten::linear": bias_forgotten}),
    "flatten loses its blocks": ("conv_flatten", {"aten::flatten": flattened_without_blocks}),
    "positions taken as uniform": ("ramp", {"aten::arange": RIGHT["aten::zeros"]}),
}


@contextlib.contextmanager
def rules(changed):
    saved = dict(RULES)
    RULES.update(changed)
    try:
        yield
    finally:
        RULES.clear()
        RULES.update(saved)


def discovered(name):
    net, inputs = ZOO[name].make()
    X = inputs if len(inputs) > 1 else inputs[0]
    return net, X, discover_symmetry(net, X)


@pytest.mark.parametrize("mutant", list(MUTANTS))
def test_broken_rule_is_caught(mutant):
    name, changed = MUTANTS[mutant]
    with rules(changed):
        net, X, symmetry = discovered(name)
    failed = symmetry.evidence["failed"]
    assert failed
    assert all(error > 1e-6 for error in failed.values())
    assert any(entry.reason.startswith("failed verification") for entry in symmetry.frozen)
    assert symmetry.verify(net, X) < 1e-10  # what is left is true


@pytest.mark.parametrize("mutant", list(MUTANTS))
def test_broken_rule_does_harm_when_it_is_not_caught(mutant):
    """Without verification the mutant's claim is false: the test above tests something."""
    name, changed = MUTANTS[mutant]
    net, inputs = ZOO[name].make()
    X = inputs if len(inputs) > 1 else inputs[0]
    with rules(changed):
        symmetry = discover_symmetry(net, X, verify=False)
    assert symmetry.verify(net, X) > 1e-6


@pytest.mark.parametrize(
    "name, kind",
    [
        ("mlp", "input of the net"),
        ("mlp", "output of the net"),
        ("llama", "constant of the module"),
        ("conv_flatten", "position in space"),
        ("gpt", "rows are looked up"),
    ],
)
def test_what_must_be_fixed_is_caught_when_it_is_free(monkeypatch, name, kind):
    """Inputs, outputs, rotary frequencies and positions in space that are left free."""
    fix, make = Labels.fix, Labels.leaf

    def forgetful(self, axis, reason):
        if reason.kind != kind:
            fix(self, axis, reason)

    def free(self, size, outer=(), reason=None):
        return make(self, size, outer, None if reason and reason.kind == kind else reason)

    monkeypatch.setattr(Labels, "fix", forgetful)
    monkeypatch.setattr(Labels, "leaf", free)
    net, X, symmetry = discovered(name)
    assert symmetry.evidence["failed"]
    assert symmetry.verify(net, X) < 1e-10


def test_attention_rule_is_the_one_that_the_mutants_replace():
    assert RULES["aten::scaled_dot_product_attention"] is attention
