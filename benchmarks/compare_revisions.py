"""Two revisions of sklmc on the cases of bench_matching, bench_paths and bench_population.

Each revision is checked out into a folder of its own and runs in a process of its own, which keeps
nets and data of a case. The two take turns, round after round, which of them first changing with
the round; processor seconds are compared, since what else runs on the machine moves them less.
"ratio" is after / before: its median over the rounds, its range, and the interval of the median
that the order statistics of the rounds give (seven rounds: second lowest to second highest is
87.5 %, lowest to highest 98.4 %; the latter is shown).

    python benchmarks/compare_revisions.py --before REV [--after REV] [--rounds 7] [--only PART ...]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHORTEST = 0.3  # seconds of a measurement: shorter calls are repeated


def matching(build):
    """Return a call that aligns two random nets, as bench_matching does."""
    import torch

    from sklmc import PermutationAligner
    from sklmc.symmetry import discover_symmetry

    a, b, x = build()
    torch.manual_seed(0)
    aligner = PermutationAligner(symmetry=discover_symmetry(a, x))
    return lambda: aligner.fit(a, b)


def mlps(width):
    """Return two random MLPs 784-width x3-10 and a sample."""
    import torch

    from sklmc.nets import MLP

    torch.manual_seed(0)
    nets = [MLP(n_features=784, n_outputs=10, width=width, depth=3).eval() for _ in range(2)]
    return *nets, torch.randn(8, 784)


def images(name, **options):
    """Return two random convolutional nets and a sample."""
    import torch

    import sklmc.nets

    torch.manual_seed(0)
    nets = [getattr(sklmc.nets, name)(norm="batch", **options).eval() for _ in range(2)]
    return *nets, torch.randn(8, 3, 32, 32)


def paths(n_features, width, n_outputs, depth, norm, n, n_nets):
    """Return a call that scores all pairs of random nets, as bench_paths does."""
    import torch

    from sklmc import LMCScorer
    from sklmc.nets import MLP

    torch.manual_seed(0)
    nets = [MLP(n_features, n_outputs, width=width, depth=depth, norm=norm) for _ in range(n_nets)]
    X = torch.randn(n, n_features).numpy()
    y = torch.randint(0, n_outputs, (n,)).numpy()
    return lambda: LMCScorer().pairwise(nets, X, y)


def population(n_features, width, n, n_nets, n_epochs):
    """Return a call that trains an ensemble, as bench_population does."""
    import numpy as np

    from sklmc import DeepEnsemble, NetClassifier

    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, n_features)).astype("float32")
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    net = NetClassifier(module__width=width, lr=0.01, max_epochs=n_epochs, batch_size=128)
    return lambda: DeepEnsemble(net, n_nets, random_state=0).fit(X, y)


CASES = {
    "matching: MLP 784-128x3-10": lambda: matching(lambda: mlps(128)),
    "matching: MLP 784-512x3-10": lambda: matching(lambda: mlps(512)),
    "matching: ResNet-20 x1": lambda: matching(lambda: images("ResNet20")),
    "matching: VGG-11 x1": lambda: matching(lambda: images("VGG11")),
    "paths: 784-128-10, 12 nets": lambda: paths(784, 128, 10, 1, None, 10_000, 12),
    "paths: 784-512-10, 6 nets": lambda: paths(784, 512, 10, 1, None, 10_000, 6),
    "paths: 2-512-2, 20 nets": lambda: paths(2, 512, 2, 1, None, 1_000, 20),
    "paths: 2-32-2, 20 nets": lambda: paths(2, 32, 2, 1, None, 1_000, 20),
    "paths: 784-512x3-10 LayerNorm, 3 nets": lambda: paths(784, 512, 10, 3, "layer", 4_000, 3),
    "population: 2-32-2, 50 nets, 100 epochs": lambda: population(2, 32, 1_000, 50, 100),
    "population: 2-128-2, 50 nets, 30 epochs": lambda: population(2, 128, 1_000, 50, 30),
    "population: 2-512-2, 50 nets, 10 epochs": lambda: population(2, 512, 1_000, 50, 10),
    "population: 784-128-10, 8 nets, 1 epoch": lambda: population(784, 128, 20_000, 8, 1),
}


def serve() -> None:
    """Prepare the case that is named on the first line, then time one call for each line."""
    import torch

    torch.set_num_threads(1)
    call = CASES[sys.stdin.readline().rstrip("\n")]()
    call()
    start = time.process_time()
    call()
    repeats = max(1, round(SHORTEST / (time.process_time() - start)))
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.process_time()
        for _ in range(repeats):
            call()
        print((time.process_time() - start) / repeats, flush=True)


class Worker:
    """One revision that holds one case ready."""

    def __init__(self, folder: Path, case: str):
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment,
        )  # fmt: skip
        self.ask(case)

    def ask(self, line: str) -> str:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def compare(before: Path, after: Path, case: str, rounds: int) -> dict:
    """Return the row of one case: seconds of both and their ratio over the rounds."""
    workers = {"before": Worker(before, case), "after": Worker(after, case)}
    seconds: dict[str, list[float]] = {key: [] for key in workers}
    for turn in range(rounds):
        order = list(workers) if turn % 2 == 0 else list(workers)[::-1]
        for key in order:
            seconds[key].append(float(workers[key].ask("again")))
    for worker in workers.values():
        worker.close()
    ratios = [a / b for a, b in zip(seconds["after"], seconds["before"])]
    return {
        "case": case,
        "before s": statistics.median(seconds["before"]),
        "after s": statistics.median(seconds["after"]),
        "ratio": statistics.median(ratios),
        "ratio min": min(ratios),
        "ratio max": max(ratios),
    }


def check_out(revision: str, folder: Path) -> str:
    """Write a revision's package into a folder; return its commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", revision],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    folder.mkdir()
    archive = subprocess.run(
        ["git", "archive", commit, "sklmc"], cwd=ROOT, check=True, capture_output=True
    )
    subprocess.run(["tar", "-x"], cwd=folder, check=True, input=archive.stdout)
    return commit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before")
    parser.add_argument("--after", default="HEAD")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose name contains one")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    with tempfile.TemporaryDirectory() as name:
        folders = {"before": Path(name) / "before", "after": Path(name) / "after"}
        commits = {k: check_out(getattr(options, k), folder) for k, folder in folders.items()}
        rows = []
        for case in CASES:
            if any(part in case for part in options.only):
                rows.append(compare(folders["before"], folders["after"], case, options.rounds))
                print(json.dumps(rows[-1]), flush=True)
    from record import publish

    publish("revisions", rows, {**commits, "rounds": options.rounds, "clock": "processor seconds"})


if __name__ == "__main__":
    main()
