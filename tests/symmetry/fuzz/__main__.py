"""Hunt: ``python -m tests.symmetry.fuzz --seeds 0:5000``."""

from __future__ import annotations

import argparse
import collections
import sys
import time

import torch

from tests.symmetry.fuzz import Net, judge, minimised, plan_of, seeds_of

FAULTS = ("wrong verified", "wrong unverified", "raw error", "false refusal", "frozen without need")


def main() -> int:
    """Judge a range of nets; print what fails, made small, and the counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.symmetry.fuzz", description=__doc__)
    parser.add_argument(
        "--seeds", type=seeds_of, default="0:300", help="START:STOP, default %(default)s"
    )
    parser.add_argument("--show", type=int, help="print the net of this seed, judge it, and stop")
    parser.add_argument("--whole", action="store_true", help="do not make small what fails")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.show is not None:
        verdict = judge(plan_of(options.show))
        print(Net(plan_of(options.show)).describe(), verdict, sep="\n")
        return bool(verdict.faults)
    return hunt(options.seeds, options.whole)


def hunt(seeds: range, whole: bool) -> int:
    """Judge nets one after the other; return 1 where one fails."""
    counts: collections.Counter = collections.Counter()
    refusals: collections.Counter = collections.Counter()
    began, spent = time.perf_counter(), 0.0
    for seed in seeds:
        since = time.perf_counter()
        verdict = judge(plan_of(seed))
        spent += time.perf_counter() - since
        counts.update(verdict.faults)
        counts["shaky"] += verdict.shaky
        counts["groups"] += verdict.groups
        counts["chains"] += verdict.units > 0
        counts["units of chains"] += verdict.units
        counts["frozen units"] += verdict.frozen
        if verdict.refused:
            refusals[verdict.refused] += 1
        if verdict.faults:
            small = plan_of(seed) if whole else minimised(plan_of(seed), verdict.faults)
            print(f"\n=== seed {seed}: {', '.join(sorted(verdict.faults))} {verdict}")
            print(Net(small).describe(), flush=True)
        if (seed - seeds.start + 1) % 250 == 0:
            print(f"... {seed + 1}: {dict(counts)}", flush=True)
    print(f"\n{len(seeds)} nets, seeds {seeds.start}:{seeds.stop}")
    for name in FAULTS:
        print(f"{name}: {counts[name]}")
    for name in ("shaky", "groups", "chains", "units of chains", "frozen units"):
        print(f"{name}: {counts[name]}")
    print(f"refused: {sum(refusals.values())}")
    for reason, count in refusals.most_common():
        print(f"  {count}  {reason}")
    print(f"nets per second: {len(seeds) / spent:.2f} ({time.perf_counter() - began:.0f} s in all)")
    return int(any(counts[name] for name in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
