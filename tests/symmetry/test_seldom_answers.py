"""What a symmetry says of many groups, and a permutation of what is none."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sklmc.symmetry import discover_symmetry


def deep(n_hidden):
    layers = [part for _ in range(n_hidden) for part in (nn.Linear(3, 3), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(3, 2))


def test_summary_lists_forty_groups_and_says_how_many_more_there_are():
    few, many = (str(discover_symmetry(deep(n), torch.randn(5, 3), verify=False)) for n in (40, 43))
    assert "more groups" not in few
    assert "... and 3 more groups (see to_frame())" in many


@pytest.fixture(scope="module")
def permutation():
    return discover_symmetry(deep(1), torch.randn(5, 3), verify=False).random_permutation(0)


def test_permutation_is_equal_to_no_other_thing(permutation):
    assert permutation != 3
    assert permutation == permutation.inverse().inverse()


def test_permutation_is_saved_to_a_file_in_a_folder_that_exists(permutation, tmp_path):
    for path in (tmp_path, tmp_path / "none" / "file"):
        with pytest.raises(FileNotFoundError, match=r"Permutation\.save: 'path' must name a file"):
            permutation.save(path)


def test_order_of_a_group_counts_every_copy():
    net = nn.Sequential(nn.Linear(3, 6), nn.Unflatten(1, (2, 3)), nn.Softmax(2), nn.Flatten())
    symmetry = discover_symmetry(nn.Sequential(*net, nn.Linear(6, 2)), torch.randn(5, 3))
    orders = {(group.size, group.copies): group.log2_order for group in symmetry.groups}
    assert orders == {(2, 1): pytest.approx(1.0), (3, 2): pytest.approx(2 * math.log2(6))}
