"""The page on merging, from what bench_merging, _seeds, _folds and _sites have measured.

    python benchmarks/study_merging.py

reads results/merging*.json, seeds*, folds and sites*.json, and writes docs/studies/merging.rst.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from bench_folds import CONTENDERS, count_best
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

SEEDS = """\
Close to the ensemble
---------------------

Nets that differ in their seed only: all pairs of three, and five with each of these three as the
first, which stays where it is (the spread is then that of the reference alone). "same" is how
often, in percent of the test images, a net predicts what the ensemble predicts (the mean
probability of the merged nets); "divergence" is the KL divergence from the ensemble's probabilities
in nats. Aligners and repairs see 10,000 training images without labels. "logit" and "probability"
are what the last layer is fitted to; "polished" is a refit and then 300 steps of distillation at
most. Mean and standard deviation."""

FOLDS = """\
Folds
-----

A fifth of each data set is set aside to test on. On the rest, a cross-validation of five folds
trains five nets 64-64 behind scalers and returns them. "best part" is the net that scored best on
its own fold; "merged" is ``merge_models`` with its defaults on the rest and its labels; "one net of
all rows" is trained once more on the rest. Nets of one random state start alike ("one start"); with
random states of their own ("own starts") they have to be aligned. Five fifths, three seeds."""

BEST = """\
How often each of four was the best of them in these fifteen, by {}; a tie is shared."""

SITES = """\
Data that cannot be pooled
--------------------------

Five sites train a net on their own part of the images for 20 epochs: 784-512-512-512-10 on the
55,000 of MNIST and Fashion-MNIST. Parts are equal, or every class is spread by a draw from a
Dirichlet distribution of concentration 0.5 or 0.1. Merges are aligned by weights and weighted by
the sites' sizes. A pooled refit sees 5,000 held-out images without labels; an own-data refit sees,
at every site, at most 3,000 of the images that its net was trained on ("labels": the last layer is
fitted to them). Federated averaging starts from a fresh net and trains two epochs a round at every
site (Adam, 1e-3, not tuned). Accuracy in percent, mean and standard deviation over divisions."""

BYTES = """\
What is sent, in millions of bytes over all five sites and both directions, until every site has
the result, counted from the messages of a merge in rounds; accuracy beside it."""

FINDINGS = """\
What it says
------------

* The refit is the best merge of every pair, with every net and both data sets; alone, without
  alignment, it is not. "auto" finds it. REPAIR's correction ("renormalize") helps narrow and deep
  nets and adds little to wide ones.
* On the same training data a merged net comes near its parts and does not pass them: averaging pays
  where it saves an ensemble, not where one net would do.
* Seeds: a refit brings the merged net near its parts and not to the ensemble: 64x3 nets stay about
  .4 points below the mean part in pairs and .8 to 1.0 in fives. Distillation takes away a third to
  two thirds of that and brings the probabilities nearer to the ensemble's than those of a part are;
  the same steps from the best part alone end at least as high: there merging adds nothing.
  Fitting the last layer to probabilities gains nothing here: the members are alike.
* Of 512x3 nets the refit ends .1 (MNIST) and .2 (Fashion-MNIST) points below the ensemble in pairs,
  .2 and .6 in fives; polish adds nothing there.
* Folds: on iris, wine and breast cancer what is merged, an ensemble, one net of all rows and the
  best part differ by less than a test set can tell. On digits the ensemble is best; the merged net
  has the accuracy of a part and a better cross entropy than one net of all rows. Nets of one random
  state may be averaged as they are; with starts of their own, they have to be aligned.
* Sites with equal parts get a net that is better than the best of them, and .3 (MNIST) to .8
  (Fashion-MNIST) points below their ensemble.
* Where classes are spread unequally, what a net says of classes that it hardly saw misleads the
  others: the pooled refit and the ensemble suffer from it, the own-data refit does not. On Fashion-
  MNIST it passes the ensemble by 2 points (Dirichlet 0.5) and by 8 (0.1); on MNIST it is level with
  it (0.5) and passes it by 11 (0.1). Fitting the last layer to the labels gains .7 (MNIST) and 2
  points (Fashion-MNIST) more where the spread is most unequal; elsewhere it gains little, and costs
  calibration on Fashion-MNIST.
* Where classes are spread unequally, a hundred own images a site bring the merged net to the level
  of the best site; a thousand come within a point of three thousand.
* The own-data refit sends as much as 4.3 rounds of federated averaging. Four rounds
  pass it on MNIST where parts are equal or classes spread at 0.5; on Fashion-MNIST, and on MNIST at
  0.1, five rounds stay below it. Who can talk for many rounds should train; who can talk once
  should merge.
* No merge reaches a net that was trained on all images."""

NEEDED = """\
How many images a refit needs: test accuracy after a refit on that many, held-out images without
labels for "pooled", images of every site for "own"."""

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


def spread_table(
    table: pd.DataFrame, keys: list[str], whats: list[str], column: str, digits: int = 2
) -> list[str]:
    """Return mean and spread of one column: a row for each of the keys, a column for each what."""
    rows = []
    for key, found in table.groupby(keys, sort=False):
        parts = [found.loc[found["what"] == what, column].dropna() for what in whats]
        rows.append([*map(str, key), *(spread(p, digits) if len(p) else "" for p in parts)])
    return list_table([*keys, *whats], rows)


def seed_tables(table: pd.DataFrame) -> list[str]:
    """Return accuracy, agreement and divergence of every merge."""
    whats, lines = list(table["what"].unique()), []
    for column, digits in (("accuracy", 2), ("same", 2), ("divergence", 4)):
        lines += [f"*{column}*", "", *spread_table(table, ["case", "nets"], whats, column, digits)]
    return lines


def fold_tables(table: pd.DataFrame) -> list[str]:
    """Return what each contender reaches, and how often it is best."""
    keys, lines = ["dataset", "start"], []
    whats = [what for what in table["what"].unique() if not what.startswith("part ")]
    for column, digits, title in (("accuracy", 2, "accuracy"), ("loss", 3, "cross entropy")):
        lines += [f"*{title}*", "", *spread_table(table, keys, whats, column, digits)]
    for score, title in (("accuracy", "accuracy"), ("loss", "cross entropy")):
        counts = count_best(table.to_dict("records"), score)
        rows = [
            [one["dataset"], one["start"], *(f"{one[what]:.1f}" for what in CONTENDERS)]
            for one in counts
        ]
        lines += [BEST.format(title), "", *list_table([*keys, *CONTENDERS], rows)]
    return lines


def recommended(table: pd.DataFrame) -> str:
    """Return how often the verdict kept the merged net, and how often it should have."""
    keys = ["dataset", "sites", "division"]
    judged = table[table["what"] == "EnsembleMerger, merged"].set_index(keys)
    best = table[table["what"] == "best site"].set_index(keys)["accuracy"].loc[judged.index]
    kept = judged["recommends"] == "merged"
    right = kept == (judged["accuracy"] >= best)
    return (
        f"Of {len(judged)} divisions EnsembleMerger recommended the merged net in {kept.sum()}; on "
        f"the test images the net that it recommended was the better of the two in {right.sum()}."
    )


def site_tables(table: pd.DataFrame) -> list[str]:
    """Return what each division of the data gives, what is sent, and what a refit needs."""
    keys = ["dataset", "sites"]
    counted = table[table["accuracy"].isna()].groupby("what")["bytes"].mean()  # all nets alike
    table = table[table["accuracy"].notna()]
    refits = table["what"].str.startswith("refit")
    most = table.groupby("what")["n_inputs"].transform("max")
    full = table[~refits | (table["n_inputs"] == most)]
    rounds = [what for what in table["what"].unique() if what.startswith("federated")]
    whats = [what for what in full["what"].unique() if what not in rounds[:-1]]
    lines = spread_table(full, keys, whats, "accuracy")
    lines += [recommended(full), ""]
    lines += ["*Cross entropy after one inverse temperature*", ""]
    lines += spread_table(full, keys, whats, "loss", 3)
    skewed = full[full["sites"] == "skewed.5"]
    rows = []
    for data, found in skewed.groupby("dataset", sort=False):
        for what in (*[w for w in full["what"].unique() if w.startswith("refit")], *rounds):
            part = found[found["what"] == what]
            by_rounds = "own" in what
            n_bytes = counted["refit, own"] if by_rounds else part["bytes"].mean()
            sent = f"{n_bytes / 1e6:.1f}"
            rows.append([data, what, sent, spread(part["accuracy"], 2)])
    lines += [BYTES, "", *list_table(["dataset", "what", "MB", "accuracy"], rows)]
    fewer = table[refits & table["what"].isin([w for w in whats if w.startswith("refit")])]
    fewer = fewer[fewer.groupby([*keys, "what"])["n_inputs"].transform("nunique") > 1]
    counts = sorted(int(n) for n in fewer["n_inputs"].unique())
    rows = []
    for key, found in fewer.groupby([*keys, "what"], sort=False):
        parts = [found.loc[found["n_inputs"] == n, "accuracy"] for n in counts]
        rows.append([*key, *(spread(part, 2) if len(part) else "" for part in parts)])
    return [*lines, NEEDED, "", *list_table([*keys, "what", *map(str, counts)], rows)]


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
        f"torch {source['torch']}, Python {source['python']}, {source['processor']}, one thread"
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
    for names, text, tables in (
        (["seeds"], SEEDS, seed_tables),
        (["folds"], FOLDS, fold_tables),
        (["sites", "sites_merger", "sites_bytes"], SITES, site_tables),
    ):
        loaded = [load(name) for name in names]
        records += [record for _, record in loaded]
        lines += [text, "", *tables(pd.concat([table for table, _ in loaded]))]
    lines += [COST, "", *cost_table(load("merging_many")[0])]
    lines += [FINDINGS, "", "How it was made", "---------------", "", *map(origin, records), ""]
    PAGE.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
