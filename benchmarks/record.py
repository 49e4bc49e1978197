"""What every benchmark shares: fair timing of several contenders, rows that carry their source."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
import skorch
import torch

import sklmc

RESULTS = Path(__file__).parent / "results"


def provenance() -> dict:
    """Return version, commit and machine: a row without them is worth nothing later."""
    root = Path(__file__).parent.parent
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True
    ).stdout.strip()
    return {
        "sklmc": sklmc.__version__,
        "commit": commit or "unknown",
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "skorch": skorch.__version__,
        "python": platform.python_version(),
        "device": "cpu",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def in_turn(
    contenders: Mapping[str, Callable],
    repeats: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list]:
    """Time contenders one after the other, round after round: the machine's moods hit all alike."""
    seconds: dict[str, list] = {name: [] for name in contenders}
    for turn in range(warmup + repeats):
        for name, run in contenders.items():
            start = clock()
            run()
            if turn >= warmup:
                seconds[name].append(clock() - start)
    return seconds


def ratio_row(seconds: Mapping[str, list], ours: str, other: str) -> dict:
    """Return median seconds of both and the ratio ours / other: median and range over rounds."""
    ratios = [a / b for a, b in zip(seconds[ours], seconds[other])]
    return {
        f"{ours} s": statistics.median(seconds[ours]),
        f"{other} s": statistics.median(seconds[other]),
        "ratio": statistics.median(ratios),
        "ratio min": min(ratios),
        "ratio max": max(ratios),
    }


def publish(name: str, rows: list[dict], parameters: Mapping) -> pd.DataFrame:
    """Print rows as a table and write them, with their source, to results/<name>.json."""
    table = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    record = {"provenance": provenance(), "parameters": dict(parameters), "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1, default=float) + "\n")
    with pd.option_context("display.width", 200, "display.max_columns", None):
        print(table.round(4).to_string(index=False))
    print({**record["provenance"], **record["parameters"]})
    return table


def _processor() -> str:
    """Return the processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
