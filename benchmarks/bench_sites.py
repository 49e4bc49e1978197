"""Nets from sites that cannot pool their data, merged into one; and how little data that takes.

    SKLMC_DATA=... python benchmarks/bench_sites.py --nets FOLDER

trains one net 784-512-512-512-10 on each site's images into FOLDER if it is not there. The sites'
parts are disjoint: equal at random, of unequal sizes, or with classes unequally spread. A merge
sees held-out images without their labels. Beside it: one net trained on all images together.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from pathlib import Path

import numpy as np
import torch
from bench_merging import MERGES, merge_rows
from recipe import images, quality, trained
from record import publish

SHAPE = "512x3"
EPOCHS = 20  # a site has few images: with 10 epochs its net is not trained to its end
SHARES = (0.40, 0.30, 0.15, 0.10, 0.05)  # of the images, where sizes are unequal
CONCENTRATION = 0.5  # of the Dirichlet distribution of each class over the sites
N_INPUTS = (100, 300, 1000, 5000)
COMPARED = ("naive", "aligned", "aligned, renormalize", "aligned, refit", "aligned, auto")


def divide(kind: str, y: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    """Return the rows of each site."""
    rng = np.random.RandomState(seed)
    n_sites = len(SHARES)
    if kind == "skewed":
        sites: list[list] = [[] for _ in range(n_sites)]
        for label in np.unique(y):
            rows = rng.permutation(np.flatnonzero(y == label))
            shares = rng.dirichlet(np.full(n_sites, CONCENTRATION))
            for site, part in zip(sites, _cut(rows, shares)):
                site.append(part)
        return [np.sort(np.concatenate(site)) for site in sites]
    shares = SHARES if kind == "unequal" else np.full(n_sites, 1 / n_sites)
    return [np.sort(part) for part in _cut(rng.permutation(len(y)), shares)]


def _cut(rows: np.ndarray, shares) -> list[np.ndarray]:
    """Cut rows into parts of given shares."""
    return np.split(rows, np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(int))


def site_rows(folder: Path, name: str, kind: str) -> list[dict]:
    """Score one division of one data set."""
    data = images(name)
    sites = divide(kind, data.y_train)
    nets = [
        trained(folder, name, SHAPE, i, rows, part=f"-{kind}", epochs=EPOCHS)
        for i, rows in enumerate(sites)
    ]
    alone = [quality(net, data)[0] for net in nets]
    sizes = np.array([len(rows) for rows in sites])
    about = {
        "dataset": name, "sites": kind, "images": sizes.tolist(), "best single": max(alone),
        "pooled": quality(trained(folder, name, SHAPE, 0), data)[0],
    }  # fmt: skip
    rows = []
    for n in N_INPUTS:
        names = COMPARED if n == max(N_INPUTS) else ("aligned, refit",)
        merges = {name: MERGES[name] for name in names}
        rows += merge_rows(nets, data, data.X_held[:n], merges, weights=sizes, **about)
    return rows


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", type=Path, required=True, help="folder for trained nets")
    parser.add_argument("--data", nargs="+", default=["mnist", "fashion_mnist"])
    parser.add_argument("--sites", nargs="+", default=["equal", "unequal", "skewed"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for name, kind in itertools.product(options.data, options.sites):
        rows += site_rows(options.nets, name, kind)
    publish("sites", rows, {"command": "bench_sites.py", **vars(options), "nets": "FOLDER"})


if __name__ == "__main__":
    main()
