"""Weight matching: units with like weights in and out (Git Re-Basin, algorithm 1).

And what a matching reached, by weights, beside chance and beside what could be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from sklmc._sklearn import Parallel, check_random_state, delayed
from sklmc._torch import single_thread
from sklmc.alignment._descent import CoordinateDescent, DescentResult, assign, assigned_value
from sklmc.alignment._problem import Match, Problem
from sklmc.alignment._tensor_pairs import block_pairs

MAX_SEED = np.iinfo(np.int32).max
N_RANDOM = 20  # random permutations that tell what chance gives
COLUMNS = ["group", "size", "n_moved", "matched", "identity", "random", "random_std", "bound"]


def match_by_weight(problem: Problem, *, one_sided: bool = True) -> Match:
    """Match units by their weights."""
    result = match_weights(
        problem.a.state,
        problem.state_b,
        problem.symmetry,
        groups=problem.groups,
        one_sided=one_sided,
        n_init=problem.n_init,
        max_iter=problem.max_iter,
        random_state=problem.random_state,
        n_jobs=problem.n_jobs,
        progress=problem.report("weight matching"),
    )
    return Match(result.perms, result.objective_path, "weight")


def match_weights(
    a,
    b,
    symmetry,
    *,
    start: Mapping[str, np.ndarray] | None = None,
    groups: Sequence | None = None,
    one_sided: bool = True,
    n_init: int = 1,
    max_iter: int = 100,
    random_state=None,
    n_jobs: int | None = None,
    progress: Callable[[float], object] = lambda value: None,
) -> DescentResult:
    """Return the permutations of state `b` that maximise its inner product with state `a`.

    The first run begins at `start` (None: B as it is), with a one-sided pass; every further one at
    random permutations of `groups` (None: all), which it visits in random order. The best objective
    is kept, the earliest among equals.
    """
    groups = symmetry.groups if groups is None else groups
    seeds: list[int | None] = [None]
    if n_init > 1:
        seeds += list(check_random_state(random_state).randint(MAX_SEED, size=n_init - 1))

    def descend(seed: int | None) -> DescentResult:
        begin, own = dict(start or symmetry.identity()), None
        if seed is not None:
            own = check_random_state(seed)
            drawn = symmetry.random_permutation(own)
            begin |= {group.name: drawn[group.name] for group in groups}
        with single_thread():
            descent = CoordinateDescent(block_pairs(a, b, symmetry), groups)
            return descent.run(
                begin, max_iter, one_sided=one_sided and own is None, rng=own, progress=progress
            )

    # results are small and inputs large: threads, whatever the surrounding backend
    results = Parallel(n_jobs=n_jobs, require="sharedmem")(delayed(descend)(seed) for seed in seeds)
    return max(results, key=lambda result: result.objective)


def similarity_frame(a, moved, symmetry, permutation) -> pd.DataFrame:
    """Return one row per group: the cosine of A's and B's weights that hold its units.

    `moved` is B's state under `permutation`. Each value varies one group and holds
    all others at the fit: "identity" leaves the group as B had it, "random" is the mean over
    random permutations ("random_std" their spread), "bound" gives every tensor an assignment of
    its own, which no permutation can beat. A tensor that holds a group on two axes counts with
    its present value everywhere.
    """
    rng = check_random_state(0)
    rows = []
    with single_thread():
        pairs = block_pairs(a, moved, symmetry)
        for group in symmetry.groups:
            mine = [pair for pair in pairs if group.name in pair.free]
            scale = sum(pair.scale() for pair in mine)
            if not mine or scale == 0:
                rows.append([group.name, group.size, 0, *[np.nan] * 5])
                continue
            within = tuple(group.within)
            linear = [pair for pair in mine if len(pair.dims(group.name)) == 1]
            shape = (*permutation[group.name].shape, group.size)
            total, bound = np.zeros(shape), 0.0
            for pair in linear:  # one at a time: they are n x n each, and there may be hundreds
                gram = pair.gram(group.name, within).double().cpu().numpy()
                total += gram
                bound += _value(gram, assign(gram))
            fixed = sum(pair.inner_product() for pair in mine if pair not in linear)
            back = np.argsort(permutation[group.name], axis=-1)
            draws = [_value(total, group.draw(rng)) for _ in range(N_RANDOM)]
            values = [
                _value(total, group.identity()),
                _value(total, back),
                np.mean(draws),
                np.std(draws),
                bound,
            ]
            values = [(value + fixed) / scale for value in values]
            values[3] = np.std(draws) / scale
            n_moved = int((permutation[group.name] != np.arange(group.size)).sum())
            rows.append([group.name, group.size, n_moved, *values])
    return pd.DataFrame(rows, columns=COLUMNS)


def _value(gram: np.ndarray, perms: np.ndarray) -> float:
    """Return what a permutation reaches in a gain matrix."""
    return float(assigned_value(gram, perms).sum())
