"""The page on merging, from what bench_merging.py and bench_sites.py have measured.

    python benchmarks/study_merging.py

reads results/merging*.json and results/sites.json and writes docs/studies/merging.rst.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from record import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "studies" / "merging.rst"

PAIRS = """\
Pairs
-----

Every net is merged with every other of three that differ in their seed only; mean and standard
deviation over the three pairs. First the accuracy of the net halfway in percent, then its cross
entropy above the mean of the ends in nats, each after one inverse temperature fitted on 5,000
held-out images. Repairs see 10,000 training images without their labels. "aligner" is how the nets
were aligned; "512x3" is 784-512-512-512-10, LN has LayerNorm."""

REPAIR_PAIRS = """\
REPAIR's pairs
--------------

The two multilayer perceptrons of REPAIR's authors on MNIST: S5 without norm, seven hidden layers
of 128; S4 with batch norm, eleven. Their notebooks show one pair each: S5 ends at 96.55, midpoint
71.68 after activation matching and 82.96 after REPAIR; S4 ends at 98.25, midpoint 80.69, 95.49
after statistics were estimated anew. Ours are other nets of the same settings; three pairs each."""

CIFAR = """\
Batch norm on CIFAR-10
----------------------

Four convolutions with batch norm, and a ResNet-8 with 16, 32 and 64 channels, trained on 10,000
images without augmentation (Adam at 3e-3, 20 epochs). Repairs see 2,000 images."""

ALL = """\
More than two
-------------

All nets of one kind merged into one: aligned with the first by the method that the pairs had, or
into one frame by Git Re-Basin's algorithm for many ("merge_many")."""

SITES = """\
Data that cannot be pooled
--------------------------

Five sites train 784-512-512-512-10 on their own part of 55,000 images for 20 epochs: equal parts;
parts of 40, 30, 15, 10 and 5 %; or classes spread unequally (Dirichlet 0.5). Merges are weighted
by the sites' sizes and see held-out images without labels. "pooled" is one net trained on all
images."""

FINDINGS = """\
What it says
------------

* The refit is the best merge of every pair, with every net and both data sets; alone, without
  alignment, it is not. "auto" finds it. REPAIR's correction ("renormalize") helps narrow and deep
  nets and adds little to wide ones.
* On the same training data a merged net comes near its parts and does not pass them: averaging pays
  where it saves an ensemble, not where one net would do.
* Sites with equal parts get a net that is better than theirs on average, from 100 unlabelled images
  on, and better than the best of them from 300 on. Where one site has most of the data, the merged
  net is nearly as good as that site's, not better.
* Where classes are spread unequally the merged net passed the best site on MNIST and stayed below
  it on Fashion-MNIST; there the ensemble is much better than any merge. No merge reaches a net that
  was trained on all images."""

NEEDED = """\
How many unlabelled images a refit needs: test accuracy in percent after a refit on that many."""

COST = """\
What a prediction costs
-----------------------

Seconds for the 10,000 test images, median of seven rounds in turn, and parameters."""


def load(name: str) -> tuple[pd.DataFrame, dict]:
    """Return rows and record of a results file."""
    record = json.loads((RESULTS / f"{name}.json").read_text())
    return pd.DataFrame(record["rows"]), record


def list_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return a table as lines."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [header, *rows]:
        lines += [f"   {'* -' if place == 0 else '  -'} {cell}" for place, cell in enumerate(row)]
    return [*lines, ""]


def spread(values: pd.Series, digits: int) -> str:
    """Return mean and standard deviation, or the value where there is one."""
    text = f"{values.mean():.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {values.std():.{digits}f}"


def merge_tables(table: pd.DataFrame) -> list[str]:
    """Return accuracy and barrier of every merge, one row per case."""
    table = table[table["accuracy"].notna()]
    merges = list(table["merge"].unique())
    lines = []
    for column, digits, ends in (("accuracy", 2, ["single", "ensemble"]), ("barrier", 4, [])):
        rows = []
        for (case, aligner), found in table.groupby(["case", "aligner"], sort=False):
            row = [case, aligner, *(spread(found.groupby("nets")[e].first(), 2) for e in ends)]
            for merge in merges:
                part = found[found["merge"] == merge][column]
                row.append(spread(part, digits) if len(part) else "")
            rows.append(row)
        title = "accuracy" if column == "accuracy" else "calibrated loss above the ends"
        lines += [f"*{title}*", "", *list_table(["nets", "aligner", *ends, *merges], rows)]
    return lines


def site_tables(table: pd.DataFrame) -> list[str]:
    """Return what each division of the data gives, and what a refit needs."""
    most = table["n_inputs"].max()
    full = table[table["n_inputs"] == most]
    merges = list(full["merge"].unique())
    header = ["data", "sites", "single, mean", "single, best", "ensemble", *merges, "pooled"]
    rows = []
    for (data, kind), found in full.groupby(["dataset", "sites"], sort=False):
        first = found.iloc[0]
        by = found.set_index("merge")["accuracy"]
        values = [first["single"], first["best single"], first["ensemble"]]
        values += [*(by[merge] for merge in merges), first["pooled"]]
        rows.append([data, kind, *(f"{value:.2f}" for value in values)])
    lines = list_table(header, rows)
    refits = table[table["merge"] == "aligned, refit"]
    counts = sorted(refits["n_inputs"].unique())
    rows = [
        [data, kind, *(f"{v:.2f}" for v in found.set_index("n_inputs").loc[counts, "accuracy"])]
        for (data, kind), found in refits.groupby(["dataset", "sites"], sort=False)
    ]
    return [*lines, NEEDED, "", *list_table(["data", "sites", *map(str, counts)], rows)]


def cost_table(table: pd.DataFrame) -> list[str]:
    """Return seconds and parameters of single, merged and ensemble."""
    table = table[table["merge"].str.startswith("prediction")]
    rows = [
        [row["case"], row["merge"].removeprefix("prediction, "), f"{row['seconds']:.3f}",
         f"{row['parameters']:,.0f}"]
        for _, row in table.iterrows()
    ]  # fmt: skip
    return list_table(["nets", "what predicts", "seconds", "parameters"], rows)


def origin(record: dict) -> str:
    """Return how some rows were made, as one point of a list."""
    source, parameters = dict(record["provenance"]), dict(record["parameters"])
    command = parameters.pop("command")
    for name, value in parameters.items():
        values = value if isinstance(value, list) else [value]
        command += f" --{name} " + " ".join(f'"{v}"' if " " in str(v) else str(v) for v in values)
    return (
        f"* ``python benchmarks/{command}``, sklmc {source['sklmc']} at commit {source['commit']}, "
        f"torch {source['torch']}, Python {source['python']}, {source['processor']}, one thread; "
        "seeds 0 to 4"
    )


def main():
    """Write the page."""
    title = "Study: what one net keeps of many"
    lines = [title, "=" * len(title), ""]
    records = []
    for name, text in (
        ("merging", PAIRS),
        ("merging_repair_pairs", REPAIR_PAIRS),
        ("merging_cifar", CIFAR),
        ("merging_many", ALL),
    ):
        table, record = load(name)
        records.append(record)
        mark = "all" if name == "merging_many" else ","
        shown = table[table["nets"].astype(str).str.contains(mark)]
        lines += [text, "", *merge_tables(shown)]
    table, record = load("sites")
    records.append(record)
    lines += [SITES, "", *site_tables(table), COST, "", *cost_table(load("merging_many")[0])]
    lines += [FINDINGS, "", "How it was made", "---------------", "", *map(origin, records), ""]
    PAGE.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
