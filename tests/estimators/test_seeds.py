from __future__ import annotations

import numpy as np

from sklmc.estimators._seeds import draw_seeds, epoch_seed, resolve_seed


def test_int_is_the_seed():
    assert resolve_seed(np.int64(7)) == 7


def test_none_draws_afresh_and_leaves_numpy_alone():
    before = np.random.get_state()  # noqa: NPY002
    seeds = {resolve_seed(None) for _ in range(5)} | {*draw_seeds(None, 5)}
    after = np.random.get_state()  # noqa: NPY002
    assert len(seeds) == 10
    assert np.array_equal(before[1], after[1])
    assert before[2] == after[2]


def test_random_state_instance_moves_on():
    generator = np.random.RandomState(0)
    assert resolve_seed(generator) != resolve_seed(generator)
    assert resolve_seed(np.random.RandomState(0)) == resolve_seed(np.random.RandomState(0))


def test_more_members_begin_with_the_same_seeds():
    assert draw_seeds(3, 10)[:4] == draw_seeds(3, 4)


def test_epoch_seeds_differ_and_fit_torch():
    seeds = {epoch_seed(seed, epoch) for seed in (0, 1, 2**32 - 1) for epoch in range(50)}
    assert len(seeds) == 150
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_never_change():
    """Whoever trained nets with a seed must get the same nets from the next version."""
    assert [epoch_seed(0, epoch) for epoch in range(3)] == [
        8069282888415640982,
        1445747665984815037,
        6960949862576281601,
    ]
    assert draw_seeds(0, 3) == [209652396, 398764591, 924231285]
