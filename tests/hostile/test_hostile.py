"""Bad calls of every public callable end in a refusal that names the parameter.

The table (``calls_*.py``) holds one valid call of each; bad calls replace one argument at a time by
every bad value of its kind. A part of them, spread evenly over the callables, runs in `make test`,
all of them in `make nightly`.
"""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

import sklmc
from tests.hostile import calls_displays, calls_estimators, calls_merger, calls_nets, calls_sites
from tests.hostile.calls import CALLS, identifier
from tests.hostile.judge import fingerprint, judge
from tests.hostile.world import World
from tests.test_public_names import NAMES, _resolve

TABLE = (calls_nets, calls_sites, calls_merger, calls_estimators, calls_displays)
N_IN_TEST, N_IN_ALL, SEED = 300, 1500, 0
WORLD = World()

# Results: sklmc makes them, and they hold what they are given.
HELD = {
    "sklmc.connectivity.LossPlane",
    "sklmc.connectivity.MedianInterval",
    "sklmc.datasets.DataSplit",
    "sklmc.features.BarrierCause",
    "sklmc.features.BarrierReport",
    "sklmc.features.LinearRegions",
    "sklmc.merging.MomentsRequest",
    "sklmc.merging.SiteMoments",
    "sklmc.symmetry.Block",
    "sklmc.symmetry.BlockAxis",
    "sklmc.symmetry.FrozenAxis",
    "sklmc.symmetry.PermutationGroup",
    "sklmc.symmetry.PermutationSymmetry",
}
HIDDEN = {"sklmc.NetRegressor.predict_proba"}  # skorch has it; a regressor never
# What users call of skorch's methods; all others are hooks that skorch or torch calls.
CALLED = {"fit", "partial_fit", "predict", "predict_proba", "score", "set_params"}


def _methods(path):
    """Return the methods of a public class that sklmc defines and users call."""
    cls = _resolve(path)
    if not inspect.isclass(cls):
        return
    theirs = [base for base in cls.__mro__ if base in (*NeuralNet.__mro__, Callback, nn.Module)]
    for name in sorted({name for base in cls.__mro__ if _ours(base) for name in vars(base)}):
        value = inspect.getattr_static(cls, name)
        called = callable(value) or isinstance(value, (classmethod, staticmethod))
        called = called or hasattr(value, "fn")  # available under a condition
        if not called or name.startswith("_") or name.endswith("_request"):
            continue
        if name in CALLED or not (name == "forward" or any(hasattr(base, name) for base in theirs)):
            if f"{path}.{name}" not in HIDDEN:
                yield f"{path}.{name}"


def _ours(base):
    return base.__module__.split(".")[0] == "sklmc"


def _cases():
    """Return (path, parameter, value) of every bad call."""
    return [(path, *case) for path, call in CALLS.items() for case in call.cases()]


def _chosen():
    """Return a seeded part of the cases, one after the other of each callable in turn."""
    rng = np.random.default_rng(SEED)
    shuffled = []
    for path, call in CALLS.items():
        own = call.cases()
        shuffled.append([(path, *own[place]) for place in rng.permutation(len(own))])
    turns = itertools.chain.from_iterable(itertools.zip_longest(*shuffled))
    return list(itertools.islice(filter(None, turns), N_IN_TEST))


def _complaints(path, parameter, value):
    """Make one bad call and return what is wrong with its outcome."""
    call = CALLS[path]
    arguments = call.bad(WORLD, parameter, value)
    verdict = judge(call.run, arguments, call.named(parameter), call.allows(parameter, value))
    return [f"{identifier(path, parameter, value)}: {text}" for text in verdict.complaints]


@pytest.mark.parametrize("path", NAMES)
def test_every_public_callable_has_a_base_call(path):
    """A new public name: add a valid call of it to the table (see CONTRIBUTING.md)."""
    wanted = [*([] if path in HELD else [path]), *_methods(path)]
    assert [name for name in wanted if name not in CALLS] == []


@pytest.mark.parametrize("path", CALLS)
def test_base_call_is_valid_and_every_parameter_has_a_kind(path):
    call = CALLS[path]
    assert all(call.kind(parameter) for parameter in call.parameters())
    arguments = call.arguments(WORLD)
    assert judge(call.run, arguments, set(), True).raised is None


def test_there_are_enough_cases():
    assert len(_cases()) >= N_IN_ALL
    assert {path for path, *_ in _chosen()} == set(CALLS)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", _chosen(), ids=lambda case: identifier(*case))
def test_bad_call_is_refused_by_name(case):
    assert _complaints(*case) == []


@pytest.mark.nightly
@pytest.mark.parametrize("path", CALLS)
def test_all_bad_calls_are_refused_by_name(path):
    assert [text for case in CALLS[path].cases() for text in _complaints(path, *case)] == []


# -- the judge itself ------------------------------------------------------------------------


def test_judge_sees_what_is_wrong():
    def raw(x):
        return np.linalg.inv(x)

    def unnamed(x):
        sklmc.average_models([])

    def changing(x):
        x[0] = 9.0

    def drawing(x):
        np.random.rand()  # noqa: NPY002

    def idle(x):
        pass

    def complaint(run, x, may_pass=False):
        (first, *_) = [*judge(run, {"x": x}, {"x"}, may_pass).complaints, ""]
        return first

    assert complaint(raw, np.zeros((2, 2))).startswith("raised from _linalg.py")
    assert "does not name ['x']" in complaint(unnamed, 1)
    assert complaint(changing, np.zeros(2), may_pass=True) == "changed an argument"
    assert complaint(drawing, 1, may_pass=True) == "left another numpy generator"
    assert complaint(idle, 1) == "was accepted without a word"
    assert complaint(idle, 1, may_pass=True) == ""


def test_fingerprint_sees_weights_and_flags():
    net = nn.Linear(2, 2).eval()
    before = fingerprint(net)
    assert fingerprint(net) == before
    assert fingerprint(net.train()) != before
    nn.init.zeros_(net.weight)
    assert fingerprint(net.eval()) != before
