"""How pairs are cut into tasks: each pair once, in whole groups, not too many at a time."""

from __future__ import annotations

from itertools import combinations

import pytest

from sklmc.connectivity._path_job import Plan, cut_into_tasks


@pytest.mark.parametrize("n_tasks", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("group, most", [(1, 1), (4, 8), (8, 8), (5, 1000)])
def test_every_pair_is_in_one_task_of_whole_groups(n_tasks, group, most):
    pairs = list(combinations(range(12), 2))
    plan = Plan("plain", (), rows=10, group=group, side=3, most_pairs=most)
    tasks = cut_into_tasks(pairs, plan, n_tasks)
    assert sorted(pair for task in tasks for pair in task) == pairs
    sizes = [len(task) for task in tasks]
    assert max(sizes) <= max(group, most)
    assert all(size % group == 0 for size in sizes[:-1])
    wanted = min(most, -(-len(pairs) // max(n_tasks, 1)))  # pairs a task, before whole groups
    assert sizes[0] in range(min(wanted, len(pairs)), wanted + group)


def test_pairs_of_a_task_share_nets():
    plan = Plan("plain", (), rows=10, group=1, side=3, most_pairs=9)
    tasks = cut_into_tasks([(a, b) for a in range(6) for b in range(6, 12)], plan, 4)
    assert [len({a for a, _ in task}) for task in tasks] == [3, 3, 3, 3]
    assert [len({b for _, b in task}) for task in tasks] == [3, 3, 3, 3]
