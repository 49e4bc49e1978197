"""Of one net, of equal nets and of permuted copies, every target makes that net again."""

import copy
import functools

import numpy as np
import pytest
import torch

from sklmc import EnsembleMerger, PermutationAligner, average_models, merge_models
from sklmc.merging import repair
from sklmc.models import predict_outputs, view
from sklmc.symmetry import discover_symmetry
from tests.random_nets import bits
from tests.symmetry.zoo import ZOO

# one of each kind: norms, convolutions, residual streams, attention, recurrence, tied weights
KINDS = [
    *("mlp", "mlp_norms", "conv_batch_norm", "depthwise", "group_norm", "residual_mlp"),
    *("resnet_projected", "conv_next", "encoder_layer", "vit", "gpt", "lstm", "gru_cell"),
    *("squeeze_and_excite", "tied_autoencoder", "weight_norm", "glu", "experts"),
]
TARGETS = ["auto", "logit", "mean", "own", "probability"]
NEAR = 1e-6  # what nearly equal nets differ by, relative to each number
ROUNDING = 100 * NEAR  # of outputs, relative to the largest, a few layers deep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning"),
]


@functools.cache
def case(kind):
    """Return a net in float64 and eval mode, and what it takes."""
    net, inputs = ZOO[kind].make()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    return net.double().eval(), inputs if len(inputs) > 1 else inputs[0]


def samples_for(target, X):
    """Return samples as a target takes them: those of two parts in a list, or all in one."""
    return [X[::2], X[1::2]] if target == "own" else X


def nearly(net, seed):
    other = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in other.parameters():
            noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
            tensor.mul_(1.0 + NEAR * noise)
    return other


@pytest.mark.parametrize("kind", KINDS)
def test_one_net_is_that_net_for_every_target(kind):
    net, X = case(kind)
    for target in TARGETS:
        given = [X] if target == "own" else X
        for repair_ in ("auto", "refit"):
            merged = merge_models([net], given, repair=repair_, target=target)
            assert bits(merged) == bits(net), (target, repair_)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_nets_are_that_net_for_every_target(kind):
    net, X = case(kind)
    for target in TARGETS:
        nets, given = [net, copy.deepcopy(net)], samples_for(target, X)
        found = merge_models(nets, given, aligner=None, repair="refit", target=target)
        assert bits(found) == bits(net), target


@pytest.mark.parametrize("kind", KINDS)
def test_permuted_copies_are_that_net_for_every_target(kind):
    net, X = case(kind)
    symmetry = discover_symmetry(net, X)
    aligner = PermutationAligner("weight", random_state=0)
    copies = [symmetry.apply(net, symmetry.random_permutation(seed)) for seed in range(2)]
    aligned = [aligner.fit_transform(net, one, X) for one in copies]
    for target in TARGETS:
        given = [X, X, X] if target == "own" else X
        merged = merge_models([net, *aligned], given, aligner=None, repair="refit", target=target)
        assert bits(merged) == bits(net), target


@pytest.mark.parametrize("target", TARGETS[1:])
@pytest.mark.parametrize("kind", KINDS)
def test_nearly_equal_nets_are_nearly_that_net(kind, target):
    """Not the same bits, so that the refit runs: its regressions have the same answer."""
    net, X = case(kind)
    models = [net, nearly(net, 1)]
    mended = repair(
        average_models(models), models, samples_for(target, X), method="refit", target=target
    )
    look = view(net, caller="test")
    inputs = look.to_input(X)
    before = predict_outputs(look, inputs).double()
    after = predict_outputs(view(mended, caller="test"), inputs).double()
    assert float((after - before).abs().max() / before.abs().max()) < ROUNDING


@pytest.mark.parametrize("kind", ["mlp", "conv_batch_norm", "encoder_layer"])
def test_merger_of_permuted_copies_says_that_nothing_was_lost(kind):
    net, X = case(kind)
    symmetry = discover_symmetry(net, X)
    other = symmetry.apply(net, symmetry.random_permutation(0))
    found = EnsembleMerger([net, other], aligner="weight", validation_fraction=None).fit(X)
    assert bits(found.estimator_) == bits(net)
    assert found.fidelity_["r2"].to_numpy() == pytest.approx(np.ones(3), abs=1e-9)
