"""Hunt: ``python -m tests.symmetry.fuzz --seeds 0:5000``."""

from __future__ import annotations

import argparse
import collections
import sys
import time

import torch

from tests.symmetry.fuzz import Net, judge, minimised, plan_of


def main() -> int:
    """Judge a range of nets; print what fails, made small, and the counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.symmetry.fuzz", description=__doc__)
    parser.add_argument("--seeds", default="0:300", help="START:STOP, default %(default)s")
    parser.add_argument("--show", type=int, help="print the net of this seed, judge it, and stop")
    parser.add_argument("--whole", action="store_true", help="do not make small what fails")
    parser.add_argument("--frozen", action="store_true", help="print chains with frozen units too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.show is not None:
        verdict = judge(plan_of(options.show))
        print(Net(plan_of(options.show)).describe(), verdict, sep="\n")
        return bool(verdict.faults)
    start, stop = map(int, options.seeds.split(":"))
    return hunt(range(start, stop), options.whole, options.frozen)


def hunt(seeds: range, whole: bool, frozen: bool) -> int:
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
        counts["frozen without need"] += verdict.frozen
        counts["chains with frozen units"] += verdict.frozen > 0
        if verdict.refused:
            refusals[verdict.refused] += 1
        if verdict.faults or (frozen and verdict.frozen):
            small = plan_of(seed)
            if verdict.faults and not whole:
                small = minimised(small, verdict.faults)
            print(f"\n=== seed {seed}: {', '.join(sorted(verdict.faults))} {verdict}")
            print(Net(small).describe(), flush=True)
            if verdict.frozen:
                print(f"frozen {verdict.frozen} of {verdict.units}", Net(small).units)
        if (seed - seeds.start + 1) % 250 == 0:
            print(f"... {seed + 1}: {dict(counts)}", flush=True)
    print(f"\n{len(seeds)} nets, seeds {seeds.start}:{seeds.stop}")
    for name in ("wrong verified", "wrong unverified", "raw error", "false refusal"):
        print(f"{name}: {counts[name]}")
    for name in ("shaky", "groups", "chains", "units of chains"):
        print(f"{name}: {counts[name]}")
    print(
        f"frozen without need: {counts['frozen without need']} units in "
        f"{counts['chains with frozen units']} chains"
    )
    print(f"refused: {sum(refusals.values())}")
    for reason, count in refusals.most_common():
        print(f"  {count}  {reason}")
    print(f"nets per second: {len(seeds) / spent:.2f} ({time.perf_counter() - began:.0f} s in all)")
    faults = ("wrong verified", "wrong unverified", "raw error", "false refusal")
    return int(any(counts[name] for name in faults))


if __name__ == "__main__":
    sys.exit(main())
