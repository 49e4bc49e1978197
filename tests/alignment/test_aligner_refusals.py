"""A symmetry that is given must be that of both nets."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import PermutationAligner
from sklmc.exceptions import ArchitectureMismatchError
from sklmc.symmetry import discover_symmetry


class Offset(nn.Module):
    """A net with a constant."""

    def __init__(self, offset):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)
        self.register_buffer("offset", torch.tensor([offset, 0, 0, 0]), persistent=False)

    def forward(self, x):
        return self.b((self.a(x) + self.offset).tanh())


@pytest.mark.parametrize("odd", [0, 1])
def test_a_constant_that_differs_is_refused_whichever_net_has_it(odd):
    torch.manual_seed(0)
    nets = [Offset(1), Offset(1)]
    symmetry = discover_symmetry(nets[0], torch.randn(8, 3))
    assert PermutationAligner(symmetry=symmetry).fit(*nets).symmetry_ is symmetry
    nets[odd] = Offset(2)
    with pytest.raises(ArchitectureMismatchError, match="constant 'offset'"):
        PermutationAligner(symmetry=symmetry).fit(*nets)


def test_a_fitted_aligner_travels_with_its_similarity_and_a_plain_one_as_it_is():
    nets = [Offset(1), Offset(1)]
    plain = pickle.loads(pickle.dumps(PermutationAligner(max_iter=7)))
    assert plain.max_iter == 7
    fitted = plain.fit(*nets, np.zeros((8, 3), dtype=np.float32))
    again = pickle.loads(pickle.dumps(fitted))
    assert again.similarity_.equals(fitted.similarity_)
    assert again.permutation_ == fitted.permutation_


def test_weight_matching_reads_of_the_samples_only_what_a_trace_takes():
    nets = [Offset(1), Offset(1)]
    X = np.zeros((5000, 3), dtype=np.float32)
    X[-1] = np.nan
    PermutationAligner("weight").fit(*nets, X)
    with pytest.raises(ValueError, match="NaN"):
        PermutationAligner("activation").fit(*nets, X)
