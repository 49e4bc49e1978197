"""The nets of a cross-validation merged into one: against its parts, their ensemble and a refit.

    python benchmarks/bench_folds.py

A fifth of each data set is set aside to test on; on the rest `cross_validate` trains five nets
behind scalers and returns them. They are merged into one, and compared with the part that scored
best on its own fold, with their mean probability, and with one net trained on all rows of the rest.
Nets of one random state start alike; so "one start" and "own starts" (fold i with random state i)
are measured apart. Five fifths times three seeds: fifteen comparisons of each kind.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings

import numpy as np
import pandas as pd
import torch
from record import publish
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklmc import NetClassifier, merge_models

DATA = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "digits": load_digits,
}
STARTS = ("one start", "own starts")
MERGES = {
    "naive": {"aligner": None, "repair": None},
    "aligned": {"aligner": "weight", "repair": None},
    "aligned, refit": {"aligner": "weight", "repair": "refit"},
    "merged": {"aligner": "weight", "repair": "auto"},
}
CONTENDERS = ("best part", "ensemble", "merged", "one net of all rows")


def trained_parts(estimator, X, y, folds, start: str) -> tuple[list, np.ndarray]:
    """Return the nets of a cross-validation and their scores, each on its own fold."""
    if start == "one start":
        found = cross_validate(estimator, X, y, cv=folds, return_estimator=True)
        return list(found["estimator"]), found["test_score"]
    parts, scores = [], []
    for i, split in enumerate(folds.split(X, y)):
        one = clone(estimator).set_params(netclassifier__random_state=i)
        found = cross_validate(one, X, y, cv=[split], return_estimator=True)
        parts += list(found["estimator"])
        scores += list(found["test_score"])
    return parts, np.array(scores)


def split_rows(name: str, start: str, seed: int, width: int) -> list[dict]:
    """Score all contenders on each fifth that is set aside."""
    X, y = DATA[name](return_X_y=True)
    X = X.astype(np.float32)
    rows: list[dict] = []
    outer = StratifiedKFold(5, shuffle=True, random_state=seed)
    for place, (work, test) in enumerate(outer.split(X, y)):
        net = NetClassifier(module__width=width, module__depth=2, lr=3e-3, random_state=seed)
        estimator = make_pipeline(StandardScaler(), net)
        folds = StratifiedKFold(5, shuffle=True, random_state=seed)
        began = time.process_time()
        parts, scores = trained_parts(estimator, X[work], y[work], folds, start)
        seconds = {"training the parts": time.process_time() - began}
        proba = {
            f"part {i}": part.predict_proba(X[test]).astype(float) for i, part in enumerate(parts)
        }
        alone = list(proba.values())
        proba["best part"] = alone[int(np.argmax(scores))]
        proba["ensemble"] = np.mean(alone, axis=0)
        for what, settings in MERGES.items():
            began = time.process_time()
            merged = merge_models(parts, X[work], y[work], **settings)
            seconds[what] = time.process_time() - began
            proba[what] = merged.predict_proba(X[test]).astype(float)
        began = time.process_time()
        whole = clone(estimator).fit(X[work], y[work])
        seconds["one net of all rows"] = time.process_time() - began
        proba["one net of all rows"] = whole.predict_proba(X[test]).astype(float)
        common = {
            "dataset": name,
            "start": start,
            "seed": seed,
            "fifth": place,
            "n_test": len(test),
        }
        for what, given in proba.items():
            given = given / given.sum(axis=1, keepdims=True)
            rows.append(
                {
                    **common,
                    "what": what,
                    "accuracy": 100 * accuracy_score(y[test], given.argmax(axis=1)),
                    "loss": log_loss(y[test], given, labels=np.unique(y)),
                    "seconds": seconds.get(what),
                }
            )
    return rows


def count_best(rows: list[dict], score: str) -> list[dict]:
    """Return how often each contender is best, by data set and start; a tie is shared."""
    groups: dict[tuple, dict[str, float]] = {}
    for row in rows:
        if row["what"] in CONTENDERS:
            key = (row["dataset"], row["start"], row["seed"], row["fifth"])
            value = -row[score] if score == "loss" else row[score]
            groups.setdefault(key, {})[row["what"]] = value
    shares: dict[tuple, dict[str, float]] = {}
    for (name, start, *_), values in groups.items():
        best = [what for what, value in values.items() if value == max(values.values())]
        counts = shares.setdefault((name, start), dict.fromkeys(CONTENDERS, 0.0))
        for what in best:
            counts[what] += 1 / len(best)
    return [
        {"dataset": name, "start": start, "best by": score, **counts}
        for (name, start), counts in shares.items()
    ]


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=DATA)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for name, start, seed in itertools.product(options.data, STARTS, range(options.seeds)):
        rows += split_rows(name, start, seed, options.width)
        print(rows[-1], flush=True)
    publish("folds", rows, {"command": "bench_folds.py", **vars(options)})
    for score in ("accuracy", "loss"):
        print(pd.DataFrame(count_best(rows, score)).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
