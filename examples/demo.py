"""How wide must nets be before they can be averaged into one?
===========================================================

Populations of nets that differ by seed alone are trained at several widths, on two moons and on
scikit-learn's digits. Every pair is scored along the straight path between its nets, as trained
and aligned; each population is averaged into one net: as it is, aligned, and repaired after that.
What comes out is one table and a figure for each data set.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

import sklmc
from sklmc import (
    DeepEnsemble,
    LMCScorer,
    NetClassifier,
    PathDisplay,
    WidthCurveDisplay,
    merge_models,
)
from sklmc.datasets import load_digits_split, load_moons

# data set: how to load it, widths of the two hidden layers, how to train
STUDIES = {
    "moons": (load_moons, (4, 16, 64, 256), {"max_epochs": 60, "batch_size": 64}),
    "digits": (load_digits_split, (4, 16, 64, 256), {"max_epochs": 20, "batch_size": 64}),
}


def study_width(data, width, training, n_estimators, n_jobs, random_state):
    """Train one population; return its row of the table and its pairwise scores."""
    net = NetClassifier(module__width=width, module__depth=2, **training)
    population = DeepEnsemble(
        net, n_estimators=n_estimators, n_jobs=n_jobs, random_state=random_state
    ).fit(data.X_train, data.y_train)
    nets = population.estimators_
    test = data.X_test, data.y_test
    scores = {
        name: LMCScorer(aligner=aligner, calibration="crossfit", n_jobs=n_jobs).pairwise(
            nets, *test
        )
        for name, aligner in (("as trained", None), ("aligned", "weight"))
    }
    pairs = np.triu_indices(n_estimators, k=1)
    naive, aligned = scores.values()
    accuracies = [net.score(*test) for net in nets]
    row = {
        "width": width,
        "accuracy": np.mean(accuracies),
        "std": np.std(accuracies, ddof=1),
        "ensemble": population.score(*test),
        "naive average": merge_models(nets, aligner=None).score(*test),
        "aligned average": merge_models(nets, repair=None).score(*test),
        "and repaired": merge_models(nets, data.X_train).score(*test),
        "naive barrier": np.median(naive.barrier[pairs]),
        "aligned barrier": np.median(aligned.barrier[pairs]),
        "calibrated barrier": np.median(aligned.calibrated_barrier[pairs]),
        "naive epsilon": np.median(naive.epsilon[pairs]),
        "aligned epsilon": np.median(aligned.epsilon[pairs]),
    }
    return row, scores


def draw(name, table, scores, path):
    """Draw accuracy and barrier against width, and the paths at the largest width."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    accuracies = ["accuracy", "ensemble", "naive average", "aligned average", "and repaired"]
    WidthCurveDisplay.from_frame(table, y=accuracies).plot(ax=axes[0])
    axes[0].set_ylabel("test accuracy")
    barriers = ["naive barrier", "aligned barrier", "calibrated barrier"]
    WidthCurveDisplay.from_frame(table, y=barriers).plot(ax=axes[1])
    axes[1].set_ylabel("median barrier (nats)")
    PathDisplay.from_scores(scores).plot(ax=axes[2])
    axes[2].set_ylabel("test loss (nats)")
    axes[2].set_title(f"width {table['width'].max()}, all pairs")
    figure.suptitle(name)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main():
    """Run both studies, print the table, save table and figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    parser.add_argument("--n-estimators", type=int, default=5, help="nets in each population")
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--random-state", type=int, default=0)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    start, tables = time.perf_counter(), []
    todo = sum(len(widths) for _, widths, _ in STUDIES.values())
    with tqdm(total=todo, unit="population") as bar:
        for name, (load, widths, training) in STUDIES.items():
            rows = []
            for width in widths:
                bar.set_description(f"{name}, width {width}")
                row, scores = study_width(
                    load(), width, training, options.n_estimators, options.n_jobs,
                    options.random_state,
                )  # fmt: skip
                rows.append(row)
                bar.set_postfix({"aligned barrier": f"{row['aligned barrier']:.3f}"})
                bar.update()
            tables.append(pd.DataFrame(rows).assign(data=name).set_index(["data", "width"]))
            draw(name, tables[-1].reset_index(), scores, options.output / f"{name}.png")
    table = pd.concat(tables)
    table.to_csv(options.output / "table.csv")
    with pd.option_context("display.width", 200, "display.max_columns", None):
        print(table.round(3).to_string())
    print(
        f"\nsklmc {sklmc.__version__}, torch {torch.__version__}, {options.n_estimators} nets per "
        f"population, seed {options.random_state}, {time.perf_counter() - start:.0f} s. "
        f"Losses are test cross entropies in nats.\nTable and figures: {options.output}/"
    )


if __name__ == "__main__":
    main()
