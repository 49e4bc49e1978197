"""Mutation testing of a seeded sample: ``python -m tests.mutation.sample --n 400 --seed 0``.

Each mutant is one small change of a source file (`mutators.py`); the quickest of the tests that run
the changed lines (`covering.py`) ought to fail on it. Which lines a test runs is gathered first, in
a run of all tests; then copies of the checkout (`workers.py`) try one mutant after the other. Each
result is written down at once, and a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import collections
import json
import queue
import random
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutation.covering import Covering, gather, is_gathered
from tests.mutation.mutators import Mutant, find_mutants
from tests.mutation.rooms import ROOMS, files_of
from tests.mutation.workers import Worker

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "mutation"
KILLED_AT_LEAST = 0.85
ALIVE = ("survived", "no test")


def main() -> int:
    """Sample mutants, try them, report; return 1 where too many survive."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.sample", description=__doc__)
    parser.add_argument("--n", type=int, default=400, help="mutants, default %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="workers, default %(default)s")
    parser.add_argument("--room", choices=ROOMS, action="append", help="these rooms only")
    parser.add_argument("--results", type=Path, default=CACHE / "results.jsonl")
    parser.add_argument("--again", action="store_true", help="forget the survivors in the results")
    parser.add_argument(
        "--gather", nargs="*", metavar="TESTS", help="gather what tests cover: all, or add these"
    )
    options = parser.parse_args()
    if options.gather is not None or not is_gathered(ROOT, CACHE):
        gather(ROOT, CACHE, options.jobs, options.gather or ())
    mutants = sample(options.n, options.seed, options.room or tuple(ROOMS), ROOT)
    results = Results(options.results, forget=ALIVE if options.again else ())
    try_all(mutants, results, options.jobs)
    return report(mutants, results)


def sample(n: int, seed: int, rooms: Sequence[str], root: Path) -> list[Mutant]:
    """Draw mutants from all of the rooms, each as likely as any other, none twice.

    A larger sample begins with a smaller one of the same seed.
    """
    found = [
        mutant
        for room in rooms
        for path in files_of(room, root)
        for mutant in find_mutants((root / path).read_text(encoding="utf-8"), path)
    ]
    random.Random(seed).shuffle(found)
    return found[:n]


class Results:
    """What came out, in a file with one line for each mutant, by the mutant's key."""

    def __init__(self, path: Path, forget: Sequence[str] = ()):
        self.path = path
        self.known: dict[str, dict] = {}
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            entries = [json.loads(line) for line in lines if line.endswith("}")]  # or cut off
            self.known = {e["key"]: e for e in entries}
            self.known = {k: e for k, e in self.known.items() if e["status"] not in forget}
        self._lock = threading.Lock()

    def add(self, mutant: Mutant, result: dict) -> None:
        """Write a result down."""
        entry = {"key": mutant.key, "line": mutant.line, **result}
        with self._lock:
            self.known[entry["key"]] = entry
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")


def try_all(mutants: Sequence[Mutant], results: Results, jobs: int) -> None:
    """Try what is not known yet, in several workers."""
    covering = Covering(ROOT, CACHE)
    left = [mutant for mutant in mutants if mutant.key not in results.known]
    tests = {mutant: covering.tests_of(mutant) for mutant in left}
    waiting: queue.SimpleQueue = queue.SimpleQueue()
    for mutant in left:
        if tests[mutant]:
            waiting.put(mutant)
        else:
            results.add(mutant, {"status": "no test", "by": None, "seconds": 0.0, "tests": []})
    began = time.monotonic()
    threads = [
        threading.Thread(target=_work, args=(waiting, tests, results)) for _ in range(max(jobs, 1))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{len(left)} mutants tried in {time.monotonic() - began:.0f} s, {jobs} jobs")


def _work(waiting: queue.SimpleQueue, tests: dict[Mutant, list[str]], results: Results) -> None:
    """Try mutants until there are no more; what fails on the source as it is does not count."""
    with Worker(ROOT) as worker:
        sound: dict[str, bool] = {}
        while True:
            try:
                mutant = waiting.get_nowait()
            except queue.Empty:
                return
            result, trusted = {"status": "no test", "by": None, "seconds": 0.0}, tests[mutant]
            while trusted := [test for test in trusted if sound.get(test, True)]:
                result = worker.try_mutant(mutant, trusted)
                blamed = result["by"] if result["status"] == "killed" else None
                if blamed is None or sound.setdefault(blamed, _passes(worker, [blamed])):
                    break
            if result["status"] in ("collection", "timeout") and not _passes(worker, trusted):
                result["status"] = "unsound"
            results.add(mutant, {**result, "tests": trusted})


def _passes(worker: Worker, tests: Sequence[str]) -> bool:
    return worker.run(tests, "sklmc/__init__.py")["status"] == "survived"


def report(mutants: Sequence[Mutant], results: Results) -> int:
    """Print what survived and the share of what was killed; return 1 where that is too small."""
    outcome = {mutant: results.known[mutant.key]["status"] for mutant in mutants}
    for mutant in sorted(mutants, key=lambda mutant: (mutant.path, mutant.start)):
        if outcome[mutant] in ALIVE:
            print(f"\n{mutant.path}:{mutant.line} ({mutant.scope or 'module'})", end=" ")
            print(f"{mutant.kind}, {outcome[mutant]}")
            print(f"  - {_one_line(mutant.before)}\n  + {_one_line(mutant.after)}")
    print()
    for room in ROOMS:
        files = set(files_of(room, ROOT))
        here = [mutant for mutant in mutants if mutant.path in files]
        if here:
            print(f"{room}: {_share(here, outcome)}")
    print(f"all: {_share(mutants, outcome)}")
    print(f"how: {dict(collections.Counter(outcome.values()).most_common())}")
    return int(_killed(mutants, outcome) < KILLED_AT_LEAST * len(mutants))


def _killed(mutants: Sequence[Mutant], outcome: dict[Mutant, str]) -> int:
    return sum(outcome[mutant] not in (*ALIVE, "unsound") for mutant in mutants)


def _share(mutants: Sequence[Mutant], outcome: dict[Mutant, str]) -> str:
    killed = _killed(mutants, outcome)
    return f"{killed} of {len(mutants)} killed ({killed / len(mutants):.1%})"


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
