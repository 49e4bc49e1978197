"""What a value is: equal in every process for equal values, and for no others."""

from __future__ import annotations

import copy
import enum
import functools
import importlib
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch import nn

import sklmc
from sklmc.models import Unreadable, fingerprint, name_fingerprint
from sklmc.nets import MLP


def settings(value):
    return fingerprint(value)


class Activation(enum.Enum):
    RELU = 1
    TANH = 2


def test_values_are_told_apart_and_equal_ones_not():
    values = [
        *(None, True, 1, 1.5, "1", [1], (1,), {1: 2}, {"1": 2}, {1}, b"1", 1j, slice(1), range(1)),
        *(np.arange(3), np.arange(3.0), np.arange(4), torch.arange(3), np.array(["a"], object)),
        *(torch.ones(2), torch.ones(2, dtype=torch.bfloat16), torch.ones(1, 2)),
        *(MLP, torch.optim.SGD, torch.float32, settings, lambda x: x, lambda x: x + 1),
        *(LRScheduler("StepLR", step_size=1), LRScheduler("StepLR", step_size=2)),
        *(EarlyStopping(), Activation.RELU, Activation.TANH, np.random.RandomState(0)),
        *(
            pd.DataFrame({"a": [1, 2]}),
            pd.DataFrame({"b": [1, 2]}),
            pd.DataFrame({"a": ["x", "y"]}),
        ),
    ]
    digits = [fingerprint(value) for value in values]
    assert len(set(digits)) == len(values)
    assert digits == [fingerprint(value) for value in values]
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint(np.int64(3)) == fingerprint(3)


def test_equal_texts_are_equal_whether_they_are_one_object_or_two():
    one, other = "".join(["a", "b"]), "".join(["a", "b"])
    pairs = (np.array([one, one], object), np.array([one, other], object))
    assert fingerprint(pairs[0]) == fingerprint(pairs[1])
    assert fingerprint(pd.Series(pairs[0])) == fingerprint(pd.Series(pairs[1]))


def test_seeds_know_code_by_its_name_alone():
    """Digits that seeds were made of must stay what they are."""

    def make(rate):
        return lambda x: x * rate

    assert name_fingerprint(make(1)) == name_fingerprint(make(2))
    assert name_fingerprint({"optimizer": torch.optim.SGD, "width": 3}, 0).startswith(
        "7bb2cc5fdb2de424"
    )
    assert name_fingerprint(threading.Lock()) == name_fingerprint(threading.Lock())


def test_what_is_nested_too_deeply_is_refused():
    nested = []
    for _ in range(sys.getrecursionlimit()):
        nested = [nested]
    with pytest.raises(Unreadable, match="nested too deeply"):
        fingerprint(nested)


# Each pair is made by one maker, from values that are captured, named or inherited.


def captured(value):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(value)

    return Net


def captured_by_function(value):
    def loss():
        return nn.CrossEntropyLoss(label_smoothing=value)

    return loss


def class_in_a_closure(value):
    inner = captured(value)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner()

    return Net


def class_in_a_nested_function(value):
    inner = captured(value)
    return lambda: (lambda: inner())()


def base(value):
    class Net(captured(value)):
        pass

    return Net


def base_of_base(value):
    class Net(base(value)):
        pass

    return Net


def class_attribute(value):
    class Net(nn.Module):
        rate = value

    return Net


def made_by_type(value):
    return type("Net", (nn.Module,), {"forward": lambda self, x: x * value})


def default(value):
    def net(rate=value):
        return nn.Dropout(rate)

    return net


def keyword_default(value):
    def net(*, rate=value):
        return nn.Dropout(rate)

    return net


def partial(value):
    return functools.partial(nn.CrossEntropyLoss, label_smoothing=value)


def partial_of_closure(value):
    return functools.partial(captured_by_function(value))


class Factory:
    def __init__(self, rate):
        self.rate_ = rate  # no estimator: a name may end as it likes

    def __call__(self):
        return nn.Dropout(self.rate_)

    def make(self):
        return nn.Dropout(self.rate_)


class Slotted:
    __slots__ = ("rate",)

    def __init__(self, rate):
        self.rate = rate

    def __call__(self):
        return nn.Dropout(self.rate)


def bound_method(value):
    return Factory(value).make


def class_method(value):
    class Net(class_attribute(value)):
        @classmethod
        def make(cls):
            return nn.Dropout(cls.rate)

    return Net.make


def through_property(value):
    class Net(nn.Module):
        rate = property(lambda self: value)

    return Net


def wrapped(value):
    function = captured_by_function(value)

    @functools.wraps(nn.functional.relu)
    def outer():
        return function()

    return outer


def without_gradient(value):
    return torch.no_grad()(captured_by_function(value))


def cached(value):
    return functools.cache(captured_by_function(value))


def global_(value):
    space = {"__name__": "users", "RATE": value, "nn": nn}
    exec("def helper():\n    return nn.Dropout(RATE)\ndef net():\n    return helper()\n", space)
    return space["net"]


def container(value):
    return {"nets": [(captured(value),)]}


def constant(value):
    space = {"__name__": "users", "nn": nn}
    exec(f"class Net:\n    def forward(self, x):\n        return x * {value}\n", space)
    return space["Net"]


MAKERS = [
    captured, captured_by_function, class_in_a_closure, class_in_a_nested_function, base,
    base_of_base, class_attribute, made_by_type, default, keyword_default, partial,
    partial_of_closure, Factory, Slotted, bound_method, class_method, through_property, wrapped,
    without_gradient, cached, global_, container, constant,
]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS)
def test_what_code_reads_tells_it_apart(make):
    assert fingerprint(make(0.0)) == fingerprint(make(0.0))
    assert fingerprint(make(0.0)) != fingerprint(make(0.9))


USER = """
import sklmc_test_helpers
import sklmc_test_helpers as other
from sklmc_test_helpers import deep
from torch import nn

RATES = {"b": 2, "a": 1}
KINDS = {int, str, float, "text", (1, 2)}


class Net(sklmc_test_helpers.Base):
    kinds = frozenset({"x", "y", "z"})

    def forward(self, x):
        from sklmc_test_helpers import late
        assert x in {"p", "q", "r"}
        return again(self, RATES, KINDS, other.deep(x), late(x))


def again(*args):
    return Net, again, deep, lambda: [Net for _ in args]
"""
HELPERS = """
from torch import nn
SCALE = 1


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = SCALE


def deep(x):
    return x + 1


def late(x):
    return x - 1
"""


def write(folder, helpers=HELPERS, user=USER):
    folder.mkdir()
    (folder / "sklmc_test_helpers.py").write_text(helpers)
    (folder / "sklmc_test_user.py").write_text(user)


def in_a_fresh_process(folder, seed):
    """Return the digits of a class, a function and some values, each with all that they read."""
    code = (
        "import sklmc_test_user as user; from sklmc.models import fingerprint as f;"
        "import numpy as np;"
        "print(f(user.Net), f(user.again), f(np.array(['a', 'b'], object), {'k', 'l'}))"
    )
    paths = [str(folder), str(Path(sklmc.__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.slow
def test_digits_are_the_same_in_a_fresh_process(tmp_path):
    write(tmp_path / "first")
    digits = in_a_fresh_process(tmp_path / "first", "0")
    assert len(set(digits)) == 3
    write(tmp_path / "elsewhere", user="# a comment\n\n" + USER)
    assert in_a_fresh_process(tmp_path / "elsewhere", "1") == digits


@pytest.mark.parametrize(
    "change", [("SCALE = 1", "SCALE = 2"), ("x + 1", "x + 2"), ("x - 1", "x - 2")]
)
def test_other_files_of_the_user_count(change, tmp_path, monkeypatch):
    digits = []
    for name, helpers in (("old", HELPERS), ("same", HELPERS), ("new", HELPERS.replace(*change))):
        write(tmp_path / name, helpers)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / name)
            for module in ("sklmc_test_user", "sklmc_test_helpers"):
                patch.delitem(sys.modules, module, raising=False)
            digits.append(fingerprint(importlib.import_module("sklmc_test_user").Net))
    assert digits[0] == digits[1] != digits[2]


def test_code_that_names_itself_ends():
    class Net(nn.Module):
        def copy(self):
            return Net, self.copy

    Net.registry = {"net": Net, "nets": [Net]}
    assert fingerprint(Net) == fingerprint(Net)
    endless: list = []
    endless.append(endless)
    assert fingerprint(endless) == fingerprint(endless)


def test_what_a_global_is_called_counts_only_where_it_is_read():
    space = {"__name__": "users", "a": 1, "b": 1}
    exec("def first():\n    return a\ndef second():\n    return a.b\n", space)
    before = [fingerprint(space[name]) for name in ("first", "second")]
    space["b"] = 2
    assert [fingerprint(space[name]) for name in ("first", "second")] == before
    space["a"] = 2
    assert fingerprint(space["first"]) != before[0]


def test_loggers_are_known_by_their_name():
    names = [fingerprint(logging.getLogger(name)) for name in ("a", "b", "a")]
    assert names[0] == names[2] != names[1]


def reads_anything():
    return eval("1 + 1")


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (threading.Lock(), "a lock cannot be read"),
        ([{"deep": (i for i in ())}], "a generator cannot be read"),
        (torch.ones(2, device="meta"), "on meta"),
        (torch.ones(2, 2).to_sparse(), "sparse"),
        (reads_anything, "reads_anything calls eval"),
        (sys.modules[__name__], "what is used of the module"),
    ],
)
def test_what_cannot_be_read_is_said(value, match):
    with pytest.raises(Unreadable, match=match):
        fingerprint(value)


def test_what_was_pickled_reads_as_before():
    """As every callback is that goes to a worker."""

    class Logged(Callback):
        pass

    callback = Logged()
    before = fingerprint(callback)
    copy.deepcopy(callback)
    assert "__slotnames__" in vars(Logged)
    assert fingerprint(callback) == before
