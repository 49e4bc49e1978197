"""Paths: LMCScorer.pairwise against the plain loop and against bare forwards, on the same nets.

"plain" does what one writes by hand for each pair and alpha: deep copy, interpolate the state
dicts, load_state_dict, forward, loss and error. "floor" is the forwards alone, of one net that is
never changed. Both score a few pairs and count for all: pairs do not share anything there. All run
with one thread, in turn; each case has a process of its own, so that its peak memory is its own.
"ratio" is plain / ours (more is better); CPU seconds are compared as well, since a shared machine
moves them less. The nets are random: what a path costs does not depend on what they have learned.
The last case takes about 25 minutes for one round of ours, and has no more.

    python benchmarks/bench_paths.py [--quick]
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from record import publish
from torch.nn import functional

from sklmc import LMCScorer
from sklmc.nets import MLP

ALPHAS = np.linspace(0.0, 1.0, 11)
SEED = 0
# n_features, width, n_outputs, depth, norm, samples, nets, nets with --quick, pairs of the peers
CASES = {
    "784-128-10": (784, 128, 10, 1, None, 10_000, 50, 12, 8),
    "784-512-10": (784, 512, 10, 1, None, 10_000, 50, 10, 4),
    "2-512-2": (2, 512, 2, 1, None, 1_000, 50, 20, 40),
    "2-32-2": (2, 32, 2, 1, None, 1_000, 50, 20, 60),
    "784-512-512-512-10 LayerNorm": (784, 512, 10, 3, "layer", 10_000, 50, 4, 2),
}
ROUNDS = 3
ROUNDS_OF_OURS = {"784-512-512-512-10 LayerNorm": 1}


def plain_path(a, b, x, y):
    for alpha in ALPHAS:
        module = copy.deepcopy(a)
        first, second = a.state_dict(), b.state_dict()
        module.load_state_dict(
            {name: (1 - alpha) * first[name] + alpha * second[name] for name in first}
        )
        forward(module.eval(), x, y)


def forward(module, x, y):
    with torch.no_grad():
        outputs = module(x)
        float(functional.cross_entropy(outputs, y))
        float((outputs.argmax(dim=1) != y).float().mean())


def timed(run) -> tuple[float, float]:
    """Return wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_case(name: str, quick: bool) -> dict:
    n_features, width, n_outputs, depth, norm, n, full, few, n_peer = CASES[name]
    n_nets = few if quick else full
    n_pairs = n_nets * (n_nets - 1) // 2
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    nets = [MLP(n_features, n_outputs, width=width, depth=depth, norm=norm) for _ in range(n_nets)]
    x, y = torch.randn(n, n_features), torch.randint(0, n_outputs, (n,))
    X, labels = x.numpy(), y.numpy()
    LMCScorer().pairwise(nets[:2], X[:64], labels[:64])
    before = peak_mib()
    found = {"ours": [timed(lambda: LMCScorer().pairwise(nets, X, labels))]}
    found |= {"plain": [], "floor": []}
    peak = peak_mib()  # before the peers add theirs
    share = n_pairs / n_peer
    rounds = 1 if quick else ROUNDS
    for turn in range(rounds):
        if 0 < turn < ROUNDS_OF_OURS.get(name, rounds):
            found["ours"].append(timed(lambda: LMCScorer().pairwise(nets, X, labels)))
        pairs = [(nets[k % n_nets], nets[(k + 1) % n_nets]) for k in range(n_peer)]
        for key, run in (
            ("plain", lambda pairs=pairs: [plain_path(a, b, x, y) for a, b in pairs]),
            ("floor", lambda pairs=pairs: [forward(a, x, y) for a, _ in pairs for _ in ALPHAS]),
        ):
            wall, cpu = timed(run)
            found[key].append((wall * share, cpu * share))
    row = {"case": name, "samples": n, "nets": n_nets, "pairs": n_pairs, "seed": SEED}
    for key, values in found.items():
        row[f"{key} s"] = statistics.median(wall for wall, _ in values)
    for kind, at in (("ratio", 0), ("cpu ratio", 1)):
        ratios = [p[at] / o[at] for p, o in itertools.product(found["plain"], found["ours"])]
        row[kind] = statistics.median(ratios)
        row[f"{kind} min"], row[f"{kind} max"] = min(ratios), max(ratios)
    row["floor / ours"] = row["floor s"] / row["ours s"]
    row["MiB before"], row["peak MiB"] = before, peak
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer nets, one round")
    parser.add_argument("--case", choices=CASES, help="run one case and print its row")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(run_case(arguments.case, arguments.quick)))
        return
    rows = []
    for name in CASES:
        command = [sys.executable, Path(__file__).name, "--case", name]
        command += ["--quick"] if arguments.quick else []
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{name}: {rows[-1]['ratio']:.1f} times faster than the plain loop", flush=True)
    torch.set_num_threads(1)
    publish("paths", rows, {"n_alphas": len(ALPHAS), "quick": arguments.quick})


if __name__ == "__main__":
    main()
