"""What a merged net keeps of the nets it was made of, repair by repair, and what it costs.

    SKLMC_DATA=... python benchmarks/bench_merging.py --nets FOLDER

trains the nets of recipe.py into FOLDER if they are not there; merges all pairs, then all of them;
then nets that were trained on disjoint parts of the data ("sites"). Accuracy in percent on the test
images, loss after one inverse temperature fitted on held-out images.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from recipe import BATCH_SIZE, EPOCHS, RATE, images, module, quality, trained
from record import in_turn, publish
from skorch.callbacks import LRScheduler

from sklmc import NetClassifier, merge_models
from sklmc.models import predict_outputs, read_state, view, write_state

REPAIRS = ("none", "renormalize", "refit", "auto")


def site(folder, name, shape, index, n_sites, data):
    """Return a net trained on every n-th image, from the folder if it is there."""
    path = folder / f"{name}-{shape}-site{index}of{n_sites}.safetensors"
    net = module(shape)
    if not path.exists():
        rows = slice(index, None, n_sites)
        n_steps = EPOCHS * -(-len(data.y_train[rows]) // BATCH_SIZE)
        decay = LRScheduler(
            torch.optim.lr_scheduler.LambdaLR,
            lr_lambda=lambda step: max(0.0, 1.0 - step / n_steps),
            step_every="batch",
        )
        fitted = NetClassifier(
            module__width=net.width, module__depth=net.depth, module__norm=net.norm, lr=RATE,
            batch_size=BATCH_SIZE, max_epochs=EPOCHS, callbacks=[("decay", decay)],
            random_state=index,
        ).fit(data.X_train[rows], data.y_train[rows])  # fmt: skip
        write_state(path, fitted.module_.state_dict())
    net.load_state_dict(read_state(path)[0])
    return net.eval()


def ensemble_accuracy(nets, data) -> float:
    """Return the test accuracy of the mean prediction, in percent."""
    total = 0.0
    for net in nets:
        seen = view(net, caller="bench")
        outputs = predict_outputs(seen, seen.to_input(data.X_test))
        total = total + torch.softmax(outputs.double(), dim=1)
    return 100 * float((total.argmax(dim=1).numpy() == data.y_test).mean())


def merge_rows(label, nets, parts, n_inputs, **about) -> list[dict]:
    """Score one group of nets and what each repair makes of it."""
    ends = np.mean([quality(net, parts) for net in nets], axis=0)
    common = {
        **about,
        "n_inputs": n_inputs,
        "nets": label,
        "single": ends[0],
        "ensemble": ensemble_accuracy(nets, parts),
    }
    rows = []
    X = parts.X_train[:n_inputs]
    naive = quality(merge_models(nets, aligner=None, repair=None), parts)
    rows.append({**common, "merge": "naive", "accuracy": naive[0], "barrier": naive[1] - ends[1]})
    for repair in REPAIRS:
        start = time.perf_counter()
        merged = merge_models(nets, X, repair=None if repair == "none" else repair)
        seconds = time.perf_counter() - start
        accuracy, loss = quality(merged, parts)
        name = "aligned" if repair == "none" else f"aligned, {repair}"
        scores = {"accuracy": accuracy, "barrier": loss - ends[1], "seconds": seconds}
        rows.append({**common, "merge": name, **scores})
        print(rows[-1], flush=True)
    return rows


def cost_rows(shape, nets, data) -> list[dict]:
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
    return [
        {"net": shape, "merge": f"prediction, {name}", "seconds": float(np.median(times))}
        for name, times in seconds.items()
    ]


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", type=Path, required=True, help="folder for trained nets")
    parser.add_argument("--shapes", nargs="+", default=["64x3", "512x3"])
    parser.add_argument("--data", nargs="+", default=["mnist", "fashion_mnist"])
    parser.add_argument("--seeds", type=int, default=3, help="nets of each kind; all pairs")
    parser.add_argument("--sites", type=int, default=5, help="disjoint parts of the data")
    parser.add_argument("--inputs", type=int, default=10_000, help="images that a repair sees")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for shape, name in itertools.product(options.shapes, options.data):
        data = images(name)
        about = {"data": name, "net": shape, "n_inputs": options.inputs}
        nets = [trained(options.nets, name, shape, seed) for seed in range(options.seeds)]
        for i, j in itertools.combinations(range(len(nets)), 2):
            rows += merge_rows(f"{i}, {j}", [nets[i], nets[j]], data, **about)
        rows += merge_rows(f"all {len(nets)}", nets, data, **about)
        sites = [
            site(options.nets, name, shape, index, options.sites, data)
            for index in range(options.sites)
        ]
        rows += merge_rows(f"{options.sites} sites", sites, data, **about)
        rows += cost_rows(shape, nets, data)
    arguments = {**vars(options), "nets": "FOLDER"}
    publish("merging", rows, {"command": "bench_merging.py", **arguments})


if __name__ == "__main__":
    main()
