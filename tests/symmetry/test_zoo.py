"""Every net of the zoo has the groups it must have, and keeps its function under them."""

from __future__ import annotations

import pytest
import torch

from sklmc.symmetry import discover_symmetry
from tests.symmetry.zoo import ZOO

EXACT = 1e-10  # rounding in float64, over nets a few layers deep


@pytest.fixture(scope="module", params=list(ZOO))
def found(request):
    """A net of the zoo with its inputs, what must be found, and what was."""
    entry = ZOO[request.param]
    net, inputs = entry.make()
    X = inputs if len(inputs) > 1 else inputs[0]
    return entry, net, X, discover_symmetry(net, X)


def test_groups_are_those_that_the_net_has(found):
    entry, _, _, symmetry = found
    assert sorted((group.size, group.copies) for group in symmetry.groups) == entry.groups


def test_no_rule_was_refuted_by_the_proof(found):
    _, _, _, symmetry = found
    assert symmetry.evidence["failed"] == {}
    assert symmetry.evidence["modes"] == ["eval", "train"]
    assert symmetry.evidence["error"] < EXACT
    assert all(error < EXACT for error in symmetry.evidence["errors"].values())


def test_permutations_keep_the_function_of_the_nets_own_weights(found):
    _, net, X, symmetry = found
    assert symmetry.verify(net, X) < EXACT


def test_applying_composes_inverts_and_leaves_the_model_alone(found):
    _, net, _, symmetry = found
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    p, q = symmetry.random_permutation(0), symmetry.random_permutation(1)
    state = net.state_dict()
    both = symmetry.apply_state(symmetry.apply_state(state, q), p)
    at_once = symmetry.apply_state(state, p.compose(q))
    back = symmetry.apply_state(symmetry.apply_state(state, p), p.inverse())
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert torch.equal(both[name], at_once[name])
        assert torch.equal(back[name], before[name])
    assert p.compose(p.inverse()) == symmetry.identity() == p.inverse().compose(p)


def test_blocks_are_disjoint_and_cover_every_tensor(found):
    _, net, _, symmetry = found
    for name, tensor in net.state_dict().items():
        seen = torch.zeros(tensor.shape, dtype=torch.int64)
        for block in symmetry.blocks[name]:
            index = [torch.from_numpy(axis.positions.ravel()) for axis in block.axes]
            seen[torch.meshgrid(*index, indexing="ij") if index else ()] += 1
        assert bool((seen == 1).all())


def test_places_name_every_block_axis_of_a_group(found):
    _, _, _, symmetry = found
    for group in symmetry.groups:
        places = {
            (name, dim)
            for name, blocks in symmetry.blocks.items()
            for block in blocks
            for dim, axis in enumerate(block.axes)
            if group.name in axis.factors
        }
        assert set(group.places) == places
        assert set(group.unobservable) <= {tensor for tensor, _ in places}
