"""The deck's zoo on two moons: 9 widths x 50 nets in one call, its table beside the deck's.

    python benchmarks/study_moons_zoo.py [--jobs 2] [--page docs/studies/moons_zoo.rst]

Writes results/moons_zoo.json and the documentation page. The deck ("On linear mode connectivity up
to permutation of hidden neurons in neural networks", slide "Model zoo") gives mean and standard
deviation over 50 nets, to three decimals.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from record import provenance, publish
from skorch.callbacks import LRScheduler

from sklmc import ModelGrid, NetClassifier
from sklmc.datasets import load_moons

WIDTHS = [2, 4, 8, 16, 32, 64, 128, 256, 512]
N_NETS, N_EPOCHS, SEED = 50, 100, 0
QUANTITIES = ["train_loss", "test_loss", "test_accuracy"]

# mean and standard deviation of train loss, test loss, test accuracy
DECK = {
    2: [(0.264, 0.088), (0.284, 0.084), (0.859, 0.077)],
    4: [(0.186, 0.087), (0.206, 0.092), (0.903, 0.049)],
    8: [(0.105, 0.095), (0.124, 0.105), (0.941, 0.057)],
    16: [(0.019, 0.038), (0.028, 0.043), (0.991, 0.024)],
    32: [(0.005, 0.001), (0.012, 0.002), (0.996, 0.001)],
    64: [(0.003, 0.001), (0.009, 0.002), (0.997, 0.001)],
    128: [(0.002, 0.0), (0.006, 0.001), (0.998, 0.001)],
    256: [(0.002, 0.0), (0.005, 0.001), (0.999, 0.001)],
    512: [(0.001, 0.0), (0.004, 0.0), (0.998, 0.001)],
}
# Two means of 50 nets agree when they differ by at most this many standard errors, or by less
# than rounding to three decimals and one test point in 512 can make.
STANDARD_ERRORS = 2.6
RESOLUTION = {"train_loss": 0.0011, "test_loss": 0.0011, "test_accuracy": 0.0025}


def train(n_jobs):
    """Return the fitted grid and the seconds that its one call took."""
    net = NetClassifier(
        optimizer=torch.optim.AdamW,
        lr=0.1,
        max_epochs=N_EPOCHS,
        batch_size=256,
        callbacks=[LRScheduler("CosineAnnealingLR", T_max=N_EPOCHS)],
    )
    data = load_moons(512, 512, noise=0.1, random_state=0)
    grid = ModelGrid(
        net, {"module__width": WIDTHS}, n_estimators=N_NETS, n_jobs=n_jobs, random_state=SEED
    )
    start = time.perf_counter()
    grid.fit(data.X_train, data.y_train)
    return grid, time.perf_counter() - start, data


def agrees(quantity, ours, deck):
    """Say whether two means (each with its standard deviation over 50 nets) agree."""
    difference = abs(ours[0] - deck[0])
    error = math.hypot(ours[1], deck[1]) / math.sqrt(N_NETS)
    return difference <= max(STANDARD_ERRORS * error, RESOLUTION[quantity])


def compare(summary):
    """Return one row per width and quantity."""
    rows = []
    for record in summary.to_dict("records"):
        width = record["module__width"]
        for quantity, deck in zip(QUANTITIES, DECK[width]):
            ours = (record[f"{quantity}_mean"], record[f"{quantity}_std"])
            rows.append(
                {
                    "width": width,
                    "quantity": quantity,
                    "ours": ours[0],
                    "ours std": ours[1],
                    "deck": deck[0],
                    "deck std": deck[1],
                    "agrees": agrees(quantity, ours, deck),
                }
            )
    return rows


def page(rows, seconds, n_jobs, command):
    """Return the documentation page as text."""
    by_width = {width: [row for row in rows if row["width"] == width] for width in WIDTHS}
    lines = [
        "Study: the deck's zoo on two moons",
        "==================================",
        "",
        "Nine widths, 50 nets each, trained in one call of :class:`sklmc.ModelGrid`, beside the",
        "table of the deck (*On linear mode connectivity up to permutation of hidden neurons in",
        'neural networks: when does model averaging work?*, slide "Model zoo"). Mean and standard',
        "deviation over 50 nets; losses in nats.",
        "",
        "Settings: 2-w-2 with ReLU; AdamW, learning rate 0.1 with cosine annealing over 100",
        "epochs, weight decay 0.01, batch 256; 512 training and 512 test points, noise 0.1.",
        "Deviations from the deck: two logits with cross entropy where it has one logit with",
        "binary cross entropy; and its data file could not be had, so that these are other moons",
        "of the same kind. Losses are true means over samples.",
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "",
        "   * - width",
    ]
    for quantity in QUANTITIES:
        name = quantity.replace("_", " ")
        lines += [f"     - {name}, ours", f"     - {name}, deck"]
    for width, found in by_width.items():
        lines.append(f"   * - {width}")
        for row in found:
            mark = "" if row["agrees"] else " (differs)"
            lines += [
                f"     - {row['ours']:.3f} ± {row['ours std']:.3f}{mark}",
                f"     - {row['deck']:.3f} ± {row['deck std']:.3f}",
            ]
    good = sum(row["agrees"] for row in rows)
    lines += [
        "",
        f"Two means agree when they differ by at most {STANDARD_ERRORS} standard errors, or by",
        "less than rounding to three decimals (and one test point, for accuracies) can make.",
        f"{good} of {len(rows)} agree.",
        "",
    ]
    for title, wanted in (("Agreements", True), ("Disagreements", False)):
        lines += [f"**{title}**", ""]
        for quantity in QUANTITIES:
            found = [r for r in rows if r["quantity"] == quantity and r["agrees"] is wanted]
            if not found:
                text = "none"
            elif wanted:
                text = "widths " + ", ".join(str(row["width"]) for row in found)
            else:
                text = ", ".join(
                    f"width {row['width']} ({row['ours']:.3f} against {row['deck']:.3f})"
                    for row in found
                )
            lines.append(f"* {quantity.replace('_', ' ')}: {text}")
        lines.append("")
    source = provenance()
    lines += [
        "**How it was made**",
        "",
        f"* ``{command}``; training took {seconds:.0f} s with ``n_jobs={n_jobs}``",
        f"* seeds: ``ModelGrid(random_state={SEED})``, ``load_moons(random_state=0)``",
        f"* sklmc {source['sklmc']} at commit {source['commit']}, torch {source['torch']}, skorch "
        f"{source['skorch']}, Python {source['python']}",
        f"* {source['processor']}, {source['cores']} cores",
        "",
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    default = Path(__file__).parent.parent / "docs" / "studies" / "moons_zoo.rst"
    parser.add_argument("--page", type=Path, default=default)
    options = parser.parse_args()
    grid, seconds, data = train(options.jobs)
    rows = compare(grid.summary(data.X_test, data.y_test))
    parameters = {"seconds": seconds, "n_jobs": options.jobs, "n_nets": N_NETS, "seed": SEED}
    publish("moons_zoo", rows, parameters)
    arguments = " ".join(sys.argv[1:])
    command = f"python benchmarks/study_moons_zoo.py {arguments}".strip()
    options.page.parent.mkdir(exist_ok=True)
    options.page.write_text(page(rows, seconds, options.jobs, command), encoding="utf-8")


if __name__ == "__main__":
    main()
