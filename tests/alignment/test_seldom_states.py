"""States in half precision, of zeros or of a recurrent net, and an aligner that is a class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sklmc.alignment import PermutationAligner
from sklmc.alignment._multi import check_aligner
from sklmc.alignment._tensor_pairs import block_pairs
from sklmc.alignment._weight import COLUMNS, similarity_frame
from sklmc.symmetry import discover_symmetry


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_half_precision_is_matched_in_single(net):
    symmetry = discover_symmetry(net, torch.randn(5, 3), verify=False)
    state = {name: tensor.half() for name, tensor in net.state_dict().items()}
    pairs = block_pairs(state, state, symmetry)
    assert {pair.dtype for pair in pairs} == {torch.float32}
    total = sum(float(state[n].double().square().sum()) for n in ("0.weight", "0.bias", "2.weight"))
    assert sum(pair.inner_product() for pair in pairs) == pytest.approx(total, rel=1e-6)


def test_group_of_zeros_has_no_similarity(net):
    symmetry = discover_symmetry(net, torch.randn(5, 3), verify=False)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in net.state_dict().items()}
    (group,) = symmetry.groups
    frame = similarity_frame(zeros, zeros, symmetry, {group.name: np.arange(4)})
    assert list(frame.columns) == COLUMNS
    assert frame.loc[0, "size"] == 4
    assert frame[COLUMNS[3:]].isna().all(axis=None)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.RNN(3, 4, batch_first=True), nn.Linear(4, 2, bias=False)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def test_tensor_that_holds_a_group_on_both_axes_counts_in_its_similarity():
    torch.manual_seed(0)
    a = Recurrent()
    symmetry = discover_symmetry(a, torch.randn(2, 5, 3), verify=False)
    state, moved = a.state_dict(), {n: t.clone() for n, t in a.state_dict().items()}
    moved["rnn.weight_hh_l0"] *= -1
    (group,) = symmetry.groups
    frame = similarity_frame(state, moved, symmetry, {group.name: np.arange(4)})
    norms = {name: float(tensor.norm()) for name, tensor in state.items()}
    cosine = 1 - 2 * norms["rnn.weight_hh_l0"] ** 2 / sum(norm**2 for norm in norms.values())
    for column in ("matched", "identity", "bound"):  # nothing moves, and nothing else could gain
        assert frame.loc[0, column] == pytest.approx(cosine, rel=1e-5)


def test_aligner_that_is_a_class_is_refused():
    with pytest.raises(TypeError, match="Caller: 'aligner' is the class PermutationAligner; pass"):
        check_aligner(PermutationAligner, "Caller")
