"""Nets that differ in their seed only, merged: how close the one net comes to their ensemble.

    SKLMC_DATA=... python benchmarks/bench_seeds.py --nets FOLDER

trains five nets of recipe.py into FOLDER if they are not there, and merges all pairs of the first
three, and all five with each of these as the first, which aligners leave as it is. "same" is how
often, in percent of the test images, a net predicts what the ensemble of the merged nets predicts;
"divergence" is the KL divergence of its probabilities from the ensemble's. Labels only say that the
nets classify; polish is also given to the best part alone. Seconds are the processor's.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from recipe import NETS, ensemble_quality, fidelity, images, quality, trained
from record import publish

from sklmc import merge_models
from sklmc.merging._distill import distill
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.models import read_data, view

CASES = {  # name: data set, recipe, aligner
    "512x3 MNIST": ("mnist", "512x3", "weight"),
    "512x3 Fashion": ("fashion_mnist", "512x3", "weight"),
    "64x3 MNIST": ("mnist", "64x3", "activation"),
    "64x3 Fashion": ("fashion_mnist", "64x3", "activation"),
}
GROUPS = {
    "pairs": ((0, 1), (0, 2), (1, 2)),
    "fives": ((0, 1, 2, 3, 4), (1, 2, 3, 4, 0), (2, 3, 4, 0, 1)),
}
N_INPUTS = 10_000  # training images that an aligner and a repair see
MERGES = {
    "aligned": {"repair": None},
    "refit, logit": {"repair": "refit", "target": "logit"},
    "refit, probability": {"repair": "refit", "target": "probability"},
    "auto": {"repair": "auto", "target": "auto"},
}


def group_rows(case: str, folder: Path, seeds: tuple[int, ...]) -> list[dict]:
    """Score some nets, their ensemble and what merges make of them."""
    name, shape, aligner = CASES[case]
    data = images(name)
    nets = [trained(folder, name, shape, seed) for seed in seeds]
    X = data.X_train[:N_INPUTS]
    rows: list[dict] = []

    def add(what: str, scores, same, **costs) -> None:
        rows.append(
            {
                "case": case,
                "nets": len(nets),
                "seeds": list(seeds),
                "what": what,
                "accuracy": scores[0],
                "loss": scores[1],
                "same": same[0],
                "divergence": same[1],
                **costs,
            }
        )
        print(rows[-1], flush=True)

    alone = [quality(net, data) for net in nets]
    follows = [fidelity(net, nets, data) for net in nets]
    best = int(np.argmax([accuracy for accuracy, _ in alone]))
    add("mean part", np.mean(alone, axis=0), np.mean(follows, axis=0))
    add("best part", alone[best], follows[best])
    add("ensemble", ensemble_quality(nets, data), (100.0, 0.0))
    for what, settings in MERGES.items():
        start = time.process_time()
        merged = merge_models(nets, X, aligner=aligner, **settings)
        seconds = time.process_time() - start
        add(what, quality(merged, data), fidelity(merged, nets, data), seconds=seconds)
    looks = [view(net, caller="bench") for net in nets]
    parts = {f"part {k}": look.state for k, look in enumerate(looks)}
    start = time.process_time()
    merged = merge_models(nets, X, aligner=aligner, **MERGES["refit, logit"])
    samples = SampleSet(*read_data(looks[0], X, data.y_train[:N_INPUTS]))  # labels: it classifies
    middle = view(merged, caller="bench").state
    ends = EndPoints.alike([look.state for look in looks])
    taught = distill(looks[0], parts, middle, ends, samples, seed=0)
    seconds = time.process_time() - start
    for what, state in zip(("best part, same steps", "polished"), taught.values(), strict=True):
        net = looks[0].rebuild(state)
        add(what, quality(net, data), fidelity(net, nets, data), seconds=seconds)
    return rows


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", type=Path, default=NETS, help="folder for trained nets")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--groups", nargs="+", default=list(GROUPS), choices=GROUPS)
    parser.add_argument("--into", default="seeds", help="name of the file of results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for case in options.cases:
        for size in options.groups:
            for seeds in GROUPS[size]:
                rows += group_rows(case, options.nets, seeds)
    publish(options.into, rows, {"command": "bench_seeds.py", **vars(options), "nets": "FOLDER"})


if __name__ == "__main__":
    main()
