"""Making a net that fails small: fewer steps, then smaller sizes, as long as it fails alike."""

from __future__ import annotations

from dataclasses import replace

from tests.symmetry.fuzz._judge import judge
from tests.symmetry.fuzz._nets import Plan


def minimised(plan: Plan, faults: frozenset[str]) -> Plan:
    """Return the smallest plan found that has one of the faults."""

    def fails(candidate: Plan) -> bool:
        return not faults.isdisjoint(judge(candidate).faults)

    length = max(1, len(plan.steps) // 2)
    while True:
        for start in range(0, len(plan.steps), length):
            candidate = plan.without(start, start + length)
            if fails(candidate):
                plan = candidate
                break
        else:
            if length == 1:
                break
            length //= 2
    for largest in (2, 3, 4):
        candidate = replace(plan, largest=largest)
        if fails(candidate):
            return candidate
    return plan
