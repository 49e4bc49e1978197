"""What a merged net keeps of the nets it was made of, repair by repair, and what it costs.

    SKLMC_DATA=... python benchmarks/bench_merging.py --nets FOLDER

trains the nets of recipe.py into FOLDER if they are not there, and merges all pairs of the first
three, then all of them. Accuracy in percent on the test images, loss after one inverse temperature
fitted on held-out images; "barrier" is that loss above the mean of the parts.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from recipe import NETS, ensemble_quality, images, quality, trained
from record import in_turn, publish

from sklmc import merge_models
from sklmc.models import predict_outputs, view

MERGES = {
    "naive": {"aligner": None, "repair": None},
    "aligned": {"repair": None},
    "aligned, batch_norm": {"repair": "batch_norm"},
    "aligned, renormalize": {"repair": "renormalize"},
    "aligned, refit": {"repair": "refit"},
    "aligned, auto": {"repair": "auto"},
    "refit without alignment": {"aligner": None, "repair": "refit"},
}
CASES = {  # name: data set, recipe, nets, aligner
    "512x3 MNIST": ("mnist", "512x3", 5, "weight"),
    "512x3 Fashion": ("fashion_mnist", "512x3", 5, "weight"),
    "64x3 MNIST": ("mnist", "64x3", 5, "activation"),
    "64x3 Fashion": ("fashion_mnist", "64x3", 5, "activation"),
    "128x7 MNIST": ("mnist", "128x7", 3, "activation"),
    "128x7 Fashion": ("fashion_mnist", "128x7", 3, "activation"),
    "LN512x3 MNIST": ("mnist", "LN512x3", 3, "weight"),
    "LN512x3 Fashion": ("fashion_mnist", "LN512x3", 3, "weight"),
    "S5": ("mnist", "S5", 3, "activation"),
    "S4": ("mnist", "S4", 3, "activation"),
    "conv CIFAR-10": ("cifar10", "conv", 3, "weight"),
    "ResNet-8 CIFAR-10": ("cifar10", "resnet8", 3, "activation"),
}
N_PAIRED = 3  # of these nets all pairs are merged


def merge_rows(models, data, X, merges, aligner="weight", weights=None, **about) -> list[dict]:
    """Score some nets, and what each way of merging makes of them."""
    ends = np.mean([quality(net, data) for net in models], axis=0)
    common = {**about, "aligner": aligner, "single": ends[0]}
    common["ensemble"] = ensemble_quality(models, data)[0]
    rows = []
    for name, settings in merges.items():
        start = time.perf_counter()
        merged = merge_models(models, X, weights=weights, **{"aligner": aligner, **settings})
        seconds = time.perf_counter() - start
        accuracy, loss = quality(merged, data)
        scores = {"accuracy": accuracy, "barrier": loss - ends[1], "seconds": seconds}
        rows.append({**common, "n_inputs": len(X), "merge": name, **scores})
        print(rows[-1], flush=True)
    return rows


def cost_rows(case, nets, data) -> list[dict]:
    """Time predictions of one net, of the merge and of the ensemble, in turn."""
    merged = view(merge_models(nets, data.X_train[:1000]), caller="bench")
    views = [view(net, caller="bench") for net in nets]
    X = views[0].to_input(data.X_test)
    seconds = in_turn(
        {
            "single": lambda: predict_outputs(views[0], X),
            "merged": lambda: predict_outputs(merged, X),
            "ensemble": lambda: [predict_outputs(one, X) for one in views],
        },
        repeats=7,
    )
    sizes = {
        name: sum(p.numel() for one in parts for p in one.module.parameters())
        for name, parts in (("single", views[:1]), ("merged", [merged]), ("ensemble", views))
    }
    return [
        {
            "case": case, "nets": len(nets), "merge": f"prediction, {name}",
            "seconds": float(np.median(times)), "parameters": sizes[name],
        }
        for name, times in seconds.items()
    ]  # fmt: skip


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", type=Path, default=NETS, help="folder for trained nets")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--groups", nargs="+", default=["pairs", "all"], choices=["pairs", "all"])
    parser.add_argument("--into", default="merging", help="name of the file of results")
    parser.add_argument("--inputs", type=int, default=10_000, help="images that a repair sees")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for case in options.cases:
        name, shape, n_nets, aligner = CASES[case]
        data = images(name)
        nets = [trained(options.nets, name, shape, seed) for seed in range(n_nets)]
        normed = any("running_mean" in key for key in nets[0].state_dict())
        merges = {k: v for k, v in MERGES.items() if normed or v["repair"] != "batch_norm"}
        X = data.X_train[: options.inputs]
        if "pairs" in options.groups:
            for i, j in itertools.combinations(range(N_PAIRED), 2):
                pair = [nets[i], nets[j]]
                rows += merge_rows(pair, data, X, merges, aligner, case=case, nets=f"{i}, {j}")
        if "all" in options.groups:
            for many in (aligner, "merge_many"):
                rows += merge_rows(nets, data, X, merges, many, case=case, nets=f"all {n_nets}")
            rows += cost_rows(case, nets, data)
    publish(options.into, rows, {"command": "bench_merging.py", **vars(options), "nets": "FOLDER"})


if __name__ == "__main__":
    main()
