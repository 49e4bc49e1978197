"""Random nets: what is claimed of them holds, and nothing breaks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sklmc.symmetry import PermutationGroup, PermutationSymmetry
from tests.symmetry.fuzz import (
    CHAINS,
    KINDS,
    Net,
    Plan,
    Verdict,
    judge,
    minimised,
    plan_of,
    seeds_of,
)
from tests.symmetry.fuzz._judge import DRAWS, drawn, fault_of
from tests.symmetry.fuzz._nets import INPUTS

EVERY_DAY = range(300)
NIGHTLY = range(300, 5300)
_CHUNK = 30  # nets in one test: workers share them


def pytest_generate_tests(metafunc):
    """Give the hunt its seeds: those of every day, those of the night, or those asked for."""
    if "seeds" not in metafunc.fixturenames:
        return
    asked = metafunc.config.getoption("--fuzz-seeds", default=None)
    if asked:
        found = [(seeds, ()) for seeds in _chunks(seeds_of(asked))]
    else:
        found = [(seeds, pytest.mark.slow) for seeds in _chunks(EVERY_DAY)]
        found += [(seeds, pytest.mark.nightly) for seeds in _chunks(NIGHTLY)]
    params = [pytest.param(s, id=f"{s.start}:{s.stop}", marks=marks) for s, marks in found]
    metafunc.parametrize("seeds", params)


def _chunks(seeds: range) -> list[range]:
    return [seeds[i : i + _CHUNK] for i in range(0, len(seeds), _CHUNK)]


def test_random_nets_keep_their_function_under_all_that_is_claimed(seeds):
    """Every day discovery is verified for one net and not for the next; at night both for each."""
    failed = []
    for seed in seeds:
        both = seed not in EVERY_DAY
        verdict = judge(plan_of(seed), (True, False) if both else (seed % 2 == 0,))
        if verdict.faults:
            small = minimised(plan_of(seed), verdict.faults)
            failed.append(f"{', '.join(verdict.faults)}: {verdict}\n{Net(small).describe()}")
    assert not failed, "\n\n".join(failed)


# -- the fuzzer itself -------------------------------------------------------------------------


def test_a_plan_is_its_seed_and_so_is_its_net():
    a, b = (Net(plan_of(12)) for _ in range(2))
    assert a.plan == b.plan
    assert a.describe() == b.describe()
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name])


@pytest.mark.parametrize("chain, kinds", [(False, KINDS), (True, CHAINS)])
def test_every_kind_of_step_finds_a_place(chain, kinds):
    inputs = ("vector", "sequence", "image") if chain else tuple(INPUTS)
    for name in kinds:
        plans = (Plan(i, given, ((name, i),), chain) for i in range(20) for given in inputs)
        assert any(Net(plan).steps for plan in plans), name


GROUP = PermutationGroup("g", 3, ("a", "b"), (2, 2))


@pytest.mark.parametrize("kind", DRAWS)
def test_draws_are_permutations_of_the_kind_that_they_are_named_for(kind):
    random = np.random.RandomState(0)
    for _ in range(20):
        array = drawn([GROUP], kind, random)["g"]
        GROUP.check(array)
        moved = array != np.arange(3)
        if kind == "transposition":
            assert moved.sum() == 2
        if kind == "one copy":
            assert moved.any(-1).sum() <= 1
        if kind == "derangement":
            assert moved.all()


class Ring(nn.Module):
    """Three units in a ring: they may be turned, but no two of them exchanged."""

    def __init__(self, exchangeable: bool = False):
        super().__init__()
        self.a = nn.Linear(4, 3)
        self.sample = (torch.randn(8, 4),)
        self.exchangeable = exchangeable

    def forward(self, x):
        h = self.a(x)
        return (h if self.exchangeable else h - 2 * h.roll(1, -1)).sin().sum(-1)


def test_judge_finds_that_a_ring_is_not_a_set():
    claim = {"a.weight": ("g", None), "a.bias": ("g",)}
    for net, wrong in ((Ring(), True), (Ring(exchangeable=True), False)):
        symmetry = PermutationSymmetry.from_axes_to_perm(claim, net, net.sample[0], verify=False)
        assert (fault_of(net, symmetry, 0) is not None) == wrong


class Watched(nn.Module):
    """Keeps the mean of its units in train mode, and never reads it."""

    def __init__(self):
        super().__init__()
        self.a, self.out = nn.Linear(4, 3), nn.Linear(3, 2)
        self.register_buffer("seen", torch.zeros(3))
        self.sample = (torch.randn(8, 4),)

    def forward(self, x):
        h = self.a(x).relu()
        if self.training:
            self.seen.copy_(h.mean(0))
        return self.out(h)


@pytest.mark.parametrize("name, wrong", [("g", False), (None, True)])
def test_judge_compares_what_a_train_pass_leaves_behind(name, wrong):
    claim = {"a.weight": ("g", None), "a.bias": ("g",), "out.weight": (None, "g"), "seen": (name,)}
    net = Watched()
    symmetry = PermutationSymmetry.from_axes_to_perm(claim, net, net.sample[0], verify=False)
    assert (fault_of(net, symmetry, 0) is not None) == wrong


def test_a_failing_plan_is_made_small(monkeypatch):
    plan = plan_of(12)
    name = plan.steps[-1][0]

    def judged(candidate):
        verdict = Verdict(candidate)
        verdict.raw = "broken" if any(step == name for step, _ in candidate.steps) else None
        return verdict

    monkeypatch.setattr("tests.symmetry.fuzz._minimise.judge", judged)
    small = minimised(plan, frozenset({"raw error"}))
    assert len(plan.steps) > 1
    assert [step for step, _ in small.steps] == [name]
    assert small.largest == 2


FAILED_ONCE = {
    "units of a dead mean made one": (
        "sequence",
        (("thirds", 1749745463), ("train_only", 1941989230), ("one_chosen", 2226832224)),
        71290,
    ),
    "an empty slice": (
        "vector",
        (("cross_attention", 3545729132), ("pooled", 3264587057), ("weight_in_parts", 133756819)),
        198,
    ),
    "a view of what wide kernels lay out otherwise": (
        "vector",
        (("along_in_view", 62752565), ("train_only", 158475460), ("vmapped", 3166439915)),
        94327,
    ),
}


@pytest.mark.parametrize("kind, steps, seed", FAILED_ONCE.values(), ids=FAILED_ONCE)
def test_nets_that_failed_once_do_not_fail_again(kind, steps, seed):
    verdict = judge(Plan(seed, kind, steps, False, 2))
    assert not verdict.faults, verdict
    assert verdict.refused is None
