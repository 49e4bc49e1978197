"""Nets from sites that cannot pool their data, merged into one: what is kept, and what it costs.

    SKLMC_DATA=... python benchmarks/bench_sites.py --nets FOLDER

trains one net on each of five sites' images into FOLDER if it is not there, for several divisions
of the images: equal at random, of unequal sizes, or with every class spread over the sites by a
draw from a Dirichlet distribution. The merge is scored beside the sites' nets, their ensemble,
rounds of federated averaging and one net trained on all images together. A refit sees held-out
images without labels (pooled), or each site's own images (own). Seconds are the processor's.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from federated import averaged_rounds
from recipe import NETS, ensemble_quality, images, quality, trained
from record import publish

from sklmc import EnsembleMerger, PermutationAligner, merge_models
from sklmc.merging import SiteCoordinator, site_moments

SHAPES = {"mnist": "512x3", "fashion_mnist": "512x3", "cifar10": "conv"}
EPOCHS = 20  # a site has few images: with 10 epochs its net is not trained to its end
SHARES = (0.40, 0.30, 0.15, 0.10, 0.05)  # of the images, where sizes are unequal
CONCENTRATIONS = {"skewed.5": 0.5, "skewed.1": 0.1}  # of a class's Dirichlet draw over the sites
N_OWN = 3000  # images that a site uses for a refit, of those that it trained on
N_POOLED = 5000  # held-out images that a refit on pooled images uses
FEWER = (100, 1000)  # images, to see what a refit needs
COUNTED = ("equal", "skewed.5")  # divisions for which that is measured
N_ROUNDS = 5  # of federated averaging
N_COUNTED = 100  # images behind messages whose bytes are counted: sums have one size


class Division(NamedTuple):
    """The sites of one division: the rows and the net of each, and the rows for a refit."""

    rows: list[np.ndarray]
    nets: list[torch.nn.Module]
    own: list[np.ndarray]
    part: str  # how its files are named


def divide(kind: str, y: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    """Return the rows of each site."""
    rng = np.random.RandomState(seed)
    n_sites = len(SHARES)
    if kind in CONCENTRATIONS:
        sites: list[list] = [[] for _ in range(n_sites)]
        for label in np.unique(y):
            rows = rng.permutation(np.flatnonzero(y == label))
            shares = rng.dirichlet(np.full(n_sites, CONCENTRATIONS[kind]))
            for site, part in zip(sites, _cut(rows, shares)):
                site.append(part)
        return [np.sort(np.concatenate(site)) for site in sites]
    shares = SHARES if kind == "unequal" else np.full(n_sites, 1 / n_sites)
    return [np.sort(part) for part in _cut(rng.permutation(len(y)), shares)]


def _cut(rows: np.ndarray, shares) -> list[np.ndarray]:
    """Cut rows into parts of given shares."""
    return np.split(rows, np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(int))


def trained_sites(folder: Path, name: str, kind: str, seed: int) -> Division:
    """Return a division with its nets, trained or read."""
    y = images(name).y_train
    rows = divide(kind, y, seed)
    part = f"-{kind}-{seed}"
    nets = [
        trained(folder, name, SHAPES[name], i, site, part=part, epochs=EPOCHS)
        for i, site in enumerate(rows)
    ]
    rng = np.random.RandomState(seed)
    return Division(rows, nets, [rng.permutation(site)[:N_OWN] for site in rows], part)


def site_rows(folder: Path, name: str, kind: str, seed: int) -> list[dict]:
    """Score one division of one data set."""
    data, shape = images(name), SHAPES[name]
    division = trained_sites(folder, name, kind, seed)
    nets, sizes = division.nets, [len(site) for site in division.rows]
    common = {"dataset": name, "sites": kind, "division": seed, "images": sizes}
    rows: list[dict] = []

    def add(what: str, scores, **costs) -> None:
        rows.append(
            {
                **common,
                "what": what,
                "accuracy": float(scores[0]),
                "loss": float(scores[1]),
                **costs,
            }
        )
        print(rows[-1], flush=True)

    def merge(what: str, models, n_inputs: int, X=None, y=None, **settings) -> None:
        start = time.process_time()
        merged = merge_models(models, X, y, aligner=None, weights=sizes, **settings)
        seconds = time.process_time() - start
        by_site = settings.get("target") in ("own", "labels")
        sent = n_own_bytes(nets, data.X_held[:N_COUNTED]) if by_site else 2 * n_net_bytes(nets)
        add(what, quality(merged, data), n_inputs=n_inputs, seconds=seconds, bytes=sent)

    alone = [quality(net, data) for net in nets]
    add("best site", max(alone))
    add("mean site", np.mean(alone, axis=0))
    add("ensemble", ensemble_quality(nets, data), bytes=2 * n_net_bytes(nets))
    add("one net of all images", quality(trained(folder, name, shape, 0), data))
    merge("naive", nets, 0, repair=None)
    start = time.process_time()
    aligned = align("weight", nets)
    seconds = time.process_time() - start
    merge("aligned", aligned, 0, repair=None)
    rows[-1]["seconds"] += seconds  # those of refits are without alignment
    fewer = FEWER if kind in COUNTED else ()
    for n in (*fewer, N_POOLED):
        merge("refit, pooled", aligned, n, data.X_held[:n], repair="refit", target="logit")
    for n in (*fewer, N_OWN):
        X = [data.X_train[own[:n]] for own in division.own]
        merge("refit, own", aligned, n, X, repair="refit", target="own")
    y = [data.y_train[own] for own in division.own]
    merge("refit, own, labels", aligned, N_OWN, X, y, repair="refit", target="labels")
    aligned = align("activation", nets, data.X_held)
    merge("activation, refit, own", aligned, N_OWN, X, repair="refit", target="own")
    shared = averaged_rounds(folder, name, shape, division.rows, division.part, N_ROUNDS)
    for turn, net in enumerate(shared, 1):
        sent = turn * 2 * n_net_bytes(nets)
        add(f"federated averaging, {turn}", quality(net, data), bytes=sent)
    return rows


def merger_rows(folder: Path, name: str, kind: str, seed: int) -> list[dict]:
    """Score what EnsembleMerger makes of one division, and what it recommends."""
    data = images(name)
    division = trained_sites(folder, name, kind, seed)
    sizes = [len(site) for site in division.rows]
    X = [data.X_train[own] for own in division.own]
    y = [data.y_train[own] for own in division.own]
    start = time.process_time()
    merger = EnsembleMerger(division.nets, aligner="weight", weights=sizes, random_state=0)
    merger.fit(X, y)
    common = {
        "dataset": name,
        "sites": kind,
        "division": seed,
        "images": sizes,
        "n_inputs": N_OWN,
        "seconds": time.process_time() - start,
        "target": merger.target_,
        "verdict": merger.verdict_,
        "recommends": "merged" if merger.recommended_ is merger.estimator_ else "a site's net",
    }
    rows = []
    for what, net in (("merged", merger.estimator_), ("recommended", merger.recommended_)):
        accuracy, loss = quality(net, data)
        rows.append(
            {**common, "what": f"EnsembleMerger, {what}", "accuracy": accuracy, "loss": loss}
        )
        print(rows[-1], flush=True)
    return rows


def align(method: str, nets, X=None) -> list[torch.nn.Module]:
    """Return nets aligned with the first, which stays as it is."""
    aligner = PermutationAligner(method, random_state=0)
    return [nets[0], *(aligner.fit_transform(nets[0], net, X) for net in nets[1:])]


def n_net_bytes(nets) -> int:
    """Return the bytes of all sites' nets, sent once in one direction."""
    return sum(t.numel() * t.element_size() for net in nets for t in net.state_dict().values())


def n_own_bytes(nets, X) -> int:
    """Return the bytes that an own-data refit sends until every site has the result.

    The nets go up, the aligned ones come back; in each round a request goes down and an answer up,
    as they are counted here on a few samples; the merged net comes down.
    """
    coordinator = SiteCoordinator(nets, aligner=None, min_samples=1)
    n_bytes = 3 * n_net_bytes(nets)
    while (request := coordinator.next_request()) is not None:
        for site, net in zip(coordinator.sites, coordinator.models_, strict=True):
            answer = site_moments(request, net, X, site=site, min_samples=1)
            n_bytes += request.n_bytes + answer.n_bytes
            coordinator.add(answer)
    return n_bytes


def byte_rows(folder: Path, name: str, kind: str, seed: int) -> list[dict]:
    """Count what an own-data refit and a round of federated averaging send."""
    nets = trained_sites(folder, name, kind, seed).nets
    common = {"dataset": name, "sites": kind, "division": seed}
    sent = {
        "refit, own": n_own_bytes(nets, images(name).X_held[:N_COUNTED]),
        "federated averaging, 1": 2 * n_net_bytes(nets),
    }
    return [{**common, "what": what, "bytes": n_bytes} for what, n_bytes in sent.items()]


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", type=Path, default=NETS, help="folder for trained nets")
    parser.add_argument("--data", nargs="+", default=list(SHAPES), choices=SHAPES)
    kinds = ["equal", "unequal", *CONCENTRATIONS]
    parser.add_argument("--sites", nargs="+", default=kinds, choices=kinds)
    parser.add_argument("--divisions", type=int, default=3, help="of each kind")
    parts = ["sites", "merger"]
    parser.add_argument("--parts", nargs="+", default=parts, choices=[*parts, "bytes"])
    parser.add_argument("--into", default="sites", help="name of the file of results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for name, kind in itertools.product(options.data, options.sites):
        for seed in range(options.divisions):
            if "sites" in options.parts:
                rows += site_rows(options.nets, name, kind, seed)
            if "merger" in options.parts:
                rows += merger_rows(options.nets, name, kind, seed)
            if "bytes" in options.parts:
                rows += byte_rows(options.nets, name, kind, seed)
    publish(options.into, rows, {"command": "bench_sites.py", **vars(options), "nets": "FOLDER"})


if __name__ == "__main__":
    main()
