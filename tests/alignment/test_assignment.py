from itertools import permutations

import numpy as np

from sklmc.alignment._assignment import assign, assigned_value


def test_assignment_is_the_best_of_all_permutations():
    gain = np.random.RandomState(0).normal(size=(3, 4, 4))
    perms = assign(gain)
    for matrix, perm in zip(gain, perms, strict=True):
        best = max(permutations(range(4)), key=lambda p: sum(matrix[i, p[i]] for i in range(4)))
        assert tuple(perm) == best


def test_value_is_the_sum_of_the_chosen_entries():
    gain = np.arange(9.0).reshape(3, 3)
    assert assigned_value(gain, np.array([2, 0, 1])) == 2 + 3 + 7


def test_large_common_offsets_do_not_disturb_the_optimum():
    rng = np.random.RandomState(1)
    planted = rng.permutation(30)
    gain = 0.01 * rng.normal(size=(30, 30))
    gain[np.arange(30), planted] += 1.0
    offsets = 1e3 * rng.normal(size=(30, 1)) + 1e3 * rng.normal(size=(1, 30))
    np.testing.assert_array_equal(assign(gain + offsets), planted)


def test_constant_gain_gives_some_permutation():
    assert sorted(assign(np.zeros((5, 5)))) == list(range(5))
