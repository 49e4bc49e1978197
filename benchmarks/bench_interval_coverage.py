"""How often PairwiseScore.interval holds the median that it is about.

    python benchmarks/bench_interval_coverage.py [--quick]

Pools of 800 small nets are trained and all 319,600 pairs of each scored once (midpoint barrier).
Then n nets are drawn from a pool (without replacement, which at n = 40 makes intervals look
better by a factor of about sqrt(1 - 40 / 800) = .97), and the interval made of their pairs is
asked whether it holds the median of all pairs of the pool. "percentiles" are the plain bootstrap
percentiles beside it, from the same resamples. "shared" is the share of the variance of pairs
(above or below the pool's median) that the two models by themselves explain: the more, the less
independent pairs are. The pool "sums" has no nets: its pairs are sums of one normal number for
each model, and share most. The stretch of the interval is Student's; no constant of it was fitted.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch
from record import publish

from sklmc import DeepEnsemble, LMCScorer, MultiAligner, NetClassifier
from sklmc.connectivity._intervals import median_interval, small_sample_stretch
from sklmc.datasets import load_digits_split, load_moons

N_POOL, N_DRAWS, N_RESAMPLES, CONFIDENCE, SEED = 800, 2000, 1000, 0.95, 0
SIZES = (5, 10, 20, 40)


def trained(n_nets, data, seed=SEED, **settings):
    """Return a population of nets."""
    net = NetClassifier(lr=0.02, batch_size=64, **settings)
    return DeepEnsemble(net, n_estimators=n_nets, random_state=seed).fit(*data[:2]).estimators_


def barriers(models, data):
    """Return the barrier of each pair at the midpoint."""
    return LMCScorer(n_alphas=3).pairwise(models, *data[2:]).barriers()


def moons():
    found = load_moons(256, 256, noise=0.2, random_state=SEED)
    return found.X_train, found.y_train, found.X_test, found.y_test


def digits():
    found = load_digits_split(random_state=SEED)
    return found.X_train, found.y_train, found.X_test, found.y_test


def moons_of_width_8(n):
    return barriers(trained(n, moons(), max_epochs=30, module__width=8), moons())


def aligned_moons_of_width_32(n):
    nets = trained(n, moons(), max_epochs=30, module__width=32)
    return barriers(MultiAligner("reference").fit_transform(nets), moons())


def moons_half_of_them_briefly_trained(n):
    long = trained(n // 2, moons(), max_epochs=30, module__width=8)
    short = trained(n - n // 2, moons(), seed=SEED + 1, max_epochs=3, module__width=8)
    return barriers([*long, *short], moons())


def digits_of_two_layers(n):
    settings = {"max_epochs": 20, "module__width": 8, "module__depth": 2}
    return barriers(trained(n, digits(), **settings), digits())


def sums(n):
    effects = np.random.default_rng(SEED).normal(size=n)
    first, second = np.triu_indices(n, 1)
    return effects[first] + effects[second]


POOLS = {
    "sums": sums,
    "moons 2-8-2": moons_of_width_8,
    "moons 2-8-2, half of them briefly trained": moons_half_of_them_briefly_trained,
    "moons 2-32-2, aligned to the first": aligned_moons_of_width_32,
    "digits 64-8-8-10": digits_of_two_layers,
}


def as_matrix(values, n):
    matrix = np.zeros((n, n))
    matrix[np.triu_indices(n, 1)] = values
    return matrix + matrix.T


def shared_variance(matrix):
    """Return the share of variance of the pairs' side of the median that models explain."""
    n = len(matrix)
    pairs = matrix[np.triu_indices(n, 1)]
    side = as_matrix(np.sign(pairs - np.median(pairs)), n)
    of_models = (side.sum(axis=1) / (n - 1)).var()
    return float(2 * of_models / side[np.triu_indices(n, 1)].var())


def coverage(matrix, n_models, n_draws):
    """Return the coverage of the interval and of plain percentiles, and the median width."""
    n_pool = len(matrix)
    truth = np.median(matrix[np.triu_indices(n_pool, 1)])
    stretch = small_sample_stretch(n_models, CONFIDENCE)
    hits, plain_hits, widths = 0, 0, []
    for draw in range(n_draws):
        rng = np.random.RandomState(draw)
        chosen = rng.choice(n_pool, n_models, replace=False)
        values = matrix[np.ix_(chosen, chosen)][np.triu_indices(n_models, 1)]
        middle, low, high = median_interval(values, n_models, CONFIDENCE, N_RESAMPLES, rng)
        hits += low <= truth <= high
        plain_hits += (low - middle) / stretch <= truth - middle <= (high - middle) / stretch
        widths.append(high - low)
    share = hits / n_draws
    return {
        "coverage": share,
        "standard error": math.sqrt(share * (1 - share) / n_draws),
        "percentiles": plain_hits / n_draws,
        "median width": float(np.median(widths)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small pools, few draws")
    quick = parser.parse_args().quick
    n_pool, n_draws = (100, 50) if quick else (N_POOL, N_DRAWS)
    torch.set_num_threads(1)
    rows = []
    for name, make in POOLS.items():
        start = time.process_time()
        matrix = as_matrix(make(n_pool), n_pool)
        shared = shared_variance(matrix)
        for n_models in SIZES:
            found = coverage(matrix, n_models, n_draws)
            rows.append({"pool": name, "shared": shared, "models": n_models, **found})
            print(rows[-1], flush=True)
        print(f"{name}: {time.process_time() - start:.0f} s", flush=True)
    parameters = {
        "n_pool": n_pool, "n_draws": n_draws, "n_resamples": N_RESAMPLES,
        "confidence": CONFIDENCE, "seed": SEED,
    }  # fmt: skip
    publish("interval_coverage", rows, parameters)


if __name__ == "__main__":
    main()
