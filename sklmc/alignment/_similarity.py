"""How well a fit matches each group, beside chance and beside what could be reached."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sklmc._sklearn import check_random_state
from sklmc._torch import single_thread
from sklmc.alignment._assignment import assign, assigned_value
from sklmc.alignment._block_pair import block_pairs

N_RANDOM = 20  # random permutations that tell what chance gives
COLUMNS = ["group", "size", "n_moved", "matched", "identity", "random", "random_std", "bound"]


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
            grams = [pair.gram(group.name, within).double().cpu().numpy() for pair in linear]
            total = sum(grams, start=np.zeros((*permutation[group.name].shape, group.size)))
            fixed = sum(pair.inner_product() for pair in mine if pair not in linear)
            back = np.argsort(permutation[group.name], axis=-1)
            draws = [_value(total, group.draw(rng)) for _ in range(N_RANDOM)]
            values = [
                _value(total, group.identity()),
                _value(total, back),
                np.mean(draws),
                np.std(draws),
                sum(_value(gram, assign(gram)) for gram in grams),
            ]
            values = [(value + fixed) / scale for value in values]
            values[3] = np.std(draws) / scale
            n_moved = int((permutation[group.name] != np.arange(group.size)).sum())
            rows.append([group.name, group.size, n_moved, *values])
    return pd.DataFrame(rows, columns=COLUMNS)


def _value(gram: np.ndarray, perms: np.ndarray) -> float:
    """Return what a permutation reaches in a gain matrix."""
    return float(assigned_value(gram, perms).sum())
