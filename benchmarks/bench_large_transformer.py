"""A transformer of 350M parameters with random weights on the CPU: time and peak memory, by step.

Each step runs in a process of its own that first makes the two nets, so that its peak is its own:
"peak / models" is the most memory that the process held, less what it held before the nets, over
the memory of the two nets. B is A with its units permuted and a little noise, so that an alignment
has something to find; "recovered" is the share of units that come back to their places.

    python benchmarks/bench_large_transformer.py [--layers 24]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from record import publish
from torch import nn

from sklmc import LMCScorer, PermutationAligner, discover_symmetry, merge_models

VOCABULARY, WIDTH, HEADS, HIDDEN, TOKENS = 50_000, 1024, 16, 4096, 8
N = 4  # samples
NOISE = 1e-3  # of B's weights, beside weights of about .03
STEPS = ("discover", "align", "merge", "align and merge", "path")


class Transformer(nn.Module):
    """Embeds tokens, runs pre-norm encoder layers, and returns the logits of two classes."""

    def __init__(self, n_layers: int):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                WIDTH, HEADS, HIDDEN, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(n_layers)
        )
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(dim=1))


def resident_mib() -> float:
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_b(a: nn.Module, n_layers: int) -> nn.Module:
    """Return a copy of A that differs by noise."""
    b = Transformer(n_layers).eval()
    with torch.no_grad():
        for mine, other in zip(b.parameters(), a.parameters()):
            mine.normal_(std=NOISE).add_(other)
    return b


def make_a(n_layers: int) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """Return A and samples."""
    torch.manual_seed(0)
    a = Transformer(n_layers).eval()
    rng = np.random.default_rng(0)
    return a, rng.integers(VOCABULARY, size=(N, TOKENS)), rng.integers(2, size=N)


def run_step(step: str, n_layers: int) -> dict:
    """Run one step on fresh nets."""
    torch.set_num_threads(1)
    before = resident_mib()
    a, X, y = make_a(n_layers)
    n_parameters = sum(p.numel() for p in a.parameters())
    models = 2 * n_parameters * 4 / 2**20
    row = {"step": step, "parameters": n_parameters, "models MiB": models}
    symmetry = None
    if step != "discover":  # found before, without the proof: what that takes is a row of its own
        b = make_b(a, n_layers)
        symmetry = discover_symmetry(a, X, verify=False)
        permutation = symmetry.random_permutation(1)
        if "align" in step:
            b = symmetry.apply(b, permutation)
    made = resident_mib()
    start, cpu = time.perf_counter(), time.process_time()
    if step == "discover":
        symmetry = discover_symmetry(a, X)
        row["groups"] = len(symmetry.groups)
    elif step == "align":
        aligner = PermutationAligner("weight", symmetry=symmetry, random_state=0).fit(a, b)
        back = aligner.permutation_
        together = [
            permutation[name][back[name]] == np.arange(group.size)
            for name, group in ((g.name, g) for g in symmetry.groups if not g.within)
        ]
        row["recovered"] = float(np.mean(np.concatenate(together)))
    elif step == "align and merge":
        aligner = PermutationAligner("weight", symmetry=symmetry, random_state=0)
        merge_models([a, b], aligner=aligner, repair=None)
    elif step == "merge":
        merge_models([a, b], aligner=None, repair=None)
    else:
        LMCScorer(n_alphas=3, calibration=None).path(a, b, X, y)
    row["s"], row["cpu s"] = time.perf_counter() - start, time.process_time() - cpu
    row["MiB before"], row["MiB with nets"], row["peak MiB"] = before, made, resident_mib()
    row["peak / models"] = (row["peak MiB"] - before) / models
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--step", choices=STEPS, help="run one step and print its row")
    options = parser.parse_args()
    if options.step:
        print(json.dumps(run_step(options.step, options.layers)))
        return
    rows = []
    for step in STEPS:
        command = [sys.executable, Path(__file__).name, "--step", step]
        command += ["--layers", str(options.layers)]
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    torch.set_num_threads(1)
    about = {
        "layers": options.layers,
        "width": WIDTH,
        "seed": 0,
        "samples": f"{N} x {TOKENS} tokens",
    }
    publish("large_transformer", rows, about)


if __name__ == "__main__":
    main()
