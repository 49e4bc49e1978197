"""Bad values by kind of parameter, and which of them a callable may take all the same.

A value is made anew for every case. ``MAY_PASS`` holds, by kind, what is unusual and yet can mean
something: a call that returns with it is right, and so is a refusal. Everything else must be
refused.
"""

from __future__ import annotations

import datetime
import math

import numpy as np
import pandas as pd
import torch
from scipy import sparse

import sklmc
from tests.hostile.world import FEATURES, ROWS, module, net

NOT_A_THING = {
    "an object": lambda w: object(),
    "a class": lambda w: dict,
    "a generator": lambda w: (i for i in range(3)),
    "a set": lambda w: {1, "a"},
    "a date": lambda w: datetime.datetime(2020, 1, 1),
}
NOT_A_NUMBER = {
    "None": lambda w: None,
    "text": lambda w: "three",
    "nan": lambda w: math.nan,
    "complex": lambda w: 1 + 2j,
    "a list": lambda w: [1],
    "a dict": lambda w: {"a": 1},
    "an array": lambda w: np.ones(3),
    "an empty array": lambda w: np.array([]),
    **NOT_A_THING,
}

MODEL = {
    "None": lambda w: None,
    "a number": lambda w: 3,
    "text": lambda w: "net",
    "a module class": lambda w: torch.nn.Linear,
    "an array": lambda w: np.zeros((2, 2)),
    "a state dict": lambda w: dict(w.a.state_dict()),
    "a list": lambda w: [w.a],
    "an unfitted net": lambda w: net(),
    "an ensemble": lambda w: w.ensemble,
    "nan weights": lambda w: w.diverged,
    "no values": lambda w: w.on_meta,
    "lazy": lambda w: w.lazy,
    "another architecture": lambda w: w.other,
    "other input": lambda w: module(n_features=FEATURES + 3),
    "a Pipeline": lambda w: w.pipeline,
    "no weights": lambda w: torch.nn.Flatten(),
    "a tensor": lambda w: torch.ones(3, 3),
    **NOT_A_THING,
}
MODELS = {
    "None": lambda w: None,
    "a number": lambda w: 3,
    "text": lambda w: "nets",
    "one model": lambda w: w.a,
    "no models": lambda w: [],
    "a list of one": lambda w: [w.a],
    "with None": lambda w: [w.a, None, w.b],
    "with a class": lambda w: [w.a, w.b, torch.nn.Linear],
    "with text": lambda w: [w.a, w.b, "net"],
    "with an unfitted net": lambda w: [net(), w.fitted, w.fitted],
    "another architecture": lambda w: [w.a, w.b, w.other],
    "nan weights": lambda w: [w.a, w.b, w.diverged],
    "no values": lambda w: [w.a, w.b, w.on_meta],
    "other input": lambda w: [module(i, n_features=FEATURES + 3) for i in range(3)],
    "nested": lambda w: [[w.a], [w.b], [w.a]],
    "an array of numbers": lambda w: np.ones(3),
    "of mixed kinds": lambda w: [w.fitted, w.a, w.b],
    "the same twice": lambda w: [w.a, w.a, w.a],
    "too many": lambda w: [*w.nets, module(9)],
    "a dict": lambda w: dict(enumerate(w.nets)),
    **NOT_A_THING,
}


def _changed(array, value):
    """Return a float copy of an array with one entry changed."""
    array = np.array(array, dtype=float)
    array.reshape(-1)[0] = value
    return array


DATA = {
    "None": lambda w: None,
    "a number": lambda w: 3.0,
    "text": lambda w: "X",
    "nan": lambda w: _changed(w.X, math.nan),
    "inf": lambda w: _changed(w.X, math.inf),
    "1e300": lambda w: _changed(w.X, 1e300),
    "no rows": lambda w: w.X[:0],
    "one row": lambda w: w.X[:1],
    "no columns": lambda w: w.X[:, :0],
    "one axis": lambda w: w.X[:, 0],
    "three axes": lambda w: w.X[:, :, None],
    "too wide": lambda w: np.hstack([w.X, w.X]),
    "too narrow": lambda w: w.X[:, :1],
    "an empty list": lambda w: [],
    "ragged": lambda w: [[1.0, 2.0], [1.0]] * (ROWS // 2),
    "texts": lambda w: np.array([["a", "b"]] * ROWS),
    "mixed": lambda w: [[1.0, "b"]] * ROWS,
    "objects": lambda w: np.array([[object(), None]] * ROWS, dtype=object),
    "numbers as objects": lambda w: w.X.astype(object),
    "dates": lambda w: np.full((ROWS, FEATURES), np.datetime64("2020-01-01")),
    "complex": lambda w: w.X + 1j,
    "sparse": lambda w: sparse.csr_matrix(w.X),
    "on the meta device": lambda w: torch.ones(ROWS, FEATURES, device="meta"),
    "sparse tensor": lambda w: torch.from_numpy(w.X).to_sparse(),
    "a dict": lambda w: {"x": w.X},
    "a table with text": lambda w: pd.DataFrame({"a": ["x"] * ROWS, "b": 1.0}),
    "fewer rows": lambda w: w.X[:-1],
    "integers": lambda w: np.ones((ROWS, FEATURES), dtype=int) * (1 + np.arange(ROWS))[:, None],
    "a list of lists": lambda w: w.X.tolist(),
    "a tuple of tensors": lambda w: (torch.from_numpy(w.X).float(), torch.zeros(3)),
    "an empty tuple": lambda w: (),
    **NOT_A_THING,
}
TARGET = {
    "None": lambda w: None,
    "a number": lambda w: 1,
    "text": lambda w: "y",
    "out of range": lambda w: np.where(np.arange(ROWS) == 0, 99, w.y),
    "negative": lambda w: w.y - 1,
    "huge": lambda w: np.where(np.arange(ROWS) == 0, 2**62, w.y),
    "nan": lambda w: _changed(w.y, math.nan),
    "inf": lambda w: _changed(w.y, math.inf),
    "1e300": lambda w: _changed(w.y, 1e300),
    "texts": lambda w: np.array(["a", "b", "c", "d"] * (ROWS // 4)),
    "mixed": lambda w: ["a", 1] * (ROWS // 2),
    "objects": lambda w: np.array([object()] * ROWS, dtype=object),
    "shorter": lambda w: w.y[:-1],
    "longer": lambda w: np.append(w.y, 0),
    "no rows": lambda w: w.y[:0],
    "an empty list": lambda w: [],
    "two columns": lambda w: np.stack([w.y, w.y], axis=1),
    "three axes": lambda w: w.y[:, None, None],
    "complex": lambda w: w.y + 1j,
    "dates": lambda w: np.full(ROWS, np.datetime64("2020-01-01")),
    "fractions": lambda w: w.y + 0.5,
    "one class": lambda w: np.zeros(ROWS, dtype=int),
    "booleans": lambda w: w.y > 0,
    "one column": lambda w: w.y[:, None],
    "on the meta device": lambda w: torch.ones(ROWS, dtype=torch.long, device="meta"),
    "sparse": lambda w: sparse.csr_matrix(w.y[:, None]),
    "a dict": lambda w: {"y": w.y},
    **NOT_A_THING,
}
COUNT = {
    "zero": lambda w: 0,
    "negative": lambda w: -1,
    "a fraction": lambda w: 1.5,
    "inf": lambda w: math.inf,
    "1e300": lambda w: 1e300,
    "digits": lambda w: "3",
    "a boolean": lambda w: True,
    **NOT_A_NUMBER,
}
REAL = {
    "negative": lambda w: -0.5,
    "inf": lambda w: math.inf,
    "1e300": lambda w: 1e300,
    "zero": lambda w: 0.0,
    "two": lambda w: 2.0,
    "digits": lambda w: "0.5",
    "a boolean": lambda w: True,
    **NOT_A_NUMBER,
}
ALPHAS = {
    **REAL,
    "with an end": lambda w: [0.0, 0.5],
    "with text": lambda w: [0.5, "a"],
    "with nan": lambda w: [0.5, math.nan],
    "empty": lambda w: [],
}
SEED = {
    "negative": lambda w: -1,
    "a fraction": lambda w: 1.5,
    "too large": lambda w: 2**40,
    "a generator of numbers": lambda w: np.random.default_rng(0),
    **{name: make for name, make in NOT_A_NUMBER.items() if name != "None"},
}
JOBS = {
    "a fraction": lambda w: 1.5,
    "zero": lambda w: 0,
    **{name: make for name, make in NOT_A_NUMBER.items() if name != "None"},
}
VERBOSE = {
    "negative": lambda w: -1,
    **NOT_A_NUMBER,
}
OPTION = {
    "a typo": lambda w: "wieght",
    "empty text": lambda w: "",
    "bytes": lambda w: b"weight",
    "a list of texts": lambda w: ["weight"],
    "a number": lambda w: 3,
    **{name: make for name, make in NOT_A_NUMBER.items() if name != "text"},
}
FLAG = {
    "text": lambda w: "yes",
    "a number": lambda w: 2,
    **{name: make for name, make in NOT_A_NUMBER.items() if name != "text"},
}
WEIGHTS = {
    "a number": lambda w: 0.5,
    "text": lambda w: "equal",
    "texts": lambda w: ["a", "b", "c"],
    "too few": lambda w: [1.0],
    "too many": lambda w: [1.0] * 7,
    "negative": lambda w: [2.0, -1.0, 1.0],
    "zero": lambda w: [0.0, 0.0, 0.0],
    "nan": lambda w: [math.nan, 1.0, 1.0],
    "inf": lambda w: [math.inf, 1.0, 1.0],
    "complex": lambda w: [1j, 1.0, 1.0],
    "two axes": lambda w: np.ones((3, 1)),
    "empty": lambda w: [],
    "ragged": lambda w: [[1.0], [1.0, 2.0], 1.0],
    "a dict": lambda w: {0: 1.0},
    **NOT_A_THING,
}
ALIGNER = {
    "a typo": lambda w: "wieght",
    "an aligner class": lambda w: sklmc.PermutationAligner,
    "wrong options": lambda w: sklmc.PermutationAligner("wieght"),
    "a scorer": lambda w: sklmc.LMCScorer(),
    "a number": lambda w: 3,
    "a list": lambda w: ["weight"],
    **NOT_A_THING,
}
SCORER = {
    "a name": lambda w: "loss",
    "a scorer class": lambda w: sklmc.LMCScorer,
    "wrong options": lambda w: sklmc.LMCScorer("losss"),
    "an aligner": lambda w: sklmc.PermutationAligner(),
    "a function": lambda w: len,
    "a number": lambda w: 3,
    **NOT_A_THING,
}
ESTIMATOR = {
    "None": lambda w: None,
    "a net class": lambda w: sklmc.NetClassifier,
    "a module": lambda w: w.a,
    "a module class": lambda w: type(w.a),
    "text": lambda w: "net",
    "a number": lambda w: 3,
    "a list": lambda w: [net()],
    "wrong options": lambda w: net(batch_size=-5),
    "a module instance inside": lambda w: net(module=w.a),
    "an unknown option": lambda w: net(module__widht=3),
    **NOT_A_THING,
}
GRID = {
    "None": lambda w: None,
    "text": lambda w: "lr",
    "a number": lambda w: 3,
    "no values": lambda w: {"lr": []},
    "a bare text": lambda w: {"lr": "ab"},
    "an unknown name": lambda w: {"learning_rate": [0.1]},
    "a typo": lambda w: {"module__widht": [3]},
    "a list of numbers": lambda w: [1, 2],
    "a wrong value": lambda w: {"lr": [-1.0]},
    "keys that are no names": lambda w: {3: [1]},
    "an empty list": lambda w: [],
    **NOT_A_THING,
}
PATH = {
    "None": lambda w: None,
    "a number": lambda w: 3.5,
    "a list": lambda w: ["a"],
    "nan": lambda w: math.nan,
    "no such file": lambda w: w.folder / "nothing" / "here",
    "a folder": lambda w: w.folder,
    "a zero byte": lambda w: "a\0b",
    **NOT_A_THING,
}
TEXT = {
    "None": lambda w: None,
    "a number": lambda w: 3,
    "no such name": lambda w: "nowhere",
    "a list": lambda w: [3],
    "bytes": lambda w: b"layers",
    **NOT_A_THING,
}
LAYERS = {
    "a typo": lambda w: "wieght",
    "a number": lambda w: 3,
    "None": lambda w: None,
    "no layers": lambda w: [],
    "an unknown layer": lambda w: ["layers.99"],
    "twice": lambda w: ["layers.0", "layers.0"],
    "numbers": lambda w: [0, 1],
    "bytes": lambda w: b"all",
    "a dict": lambda w: {"layers.0": 1},
    **NOT_A_THING,
}
BOUNDS = {
    "None": lambda w: None,
    "a number": lambda w: 3,
    "text": lambda w: "bounds",
    "one pair": lambda w: ((0.0, 1.0),),
    "three pairs": lambda w: ((0.0, 1.0),) * 3,
    "turned": lambda w: ((1.0, 0.0), (0.0, 1.0)),
    "empty": lambda w: ((0.0, 0.0), (0.0, 1.0)),
    "nan": lambda w: ((math.nan, 1.0), (0.0, 1.0)),
    "inf": lambda w: ((0.0, math.inf), (0.0, 1.0)),
    "texts": lambda w: (("a", "b"), (0.0, 1.0)),
    "complex": lambda w: ((0j, 1.0), (0.0, 1.0)),
    "ragged": lambda w: ((0.0, 1.0), (0.0,)),
    **NOT_A_THING,
}
MATRIX = {
    "None": lambda w: None,
    "a number": lambda w: 3.0,
    "text": lambda w: "matrix",
    "empty": lambda w: np.zeros((0, 0)),
    "one axis": lambda w: np.zeros(3),
    "not square": lambda w: np.zeros((3, 2)),
    "three axes": lambda w: np.zeros((3, 3, 3)),
    "texts": lambda w: np.full((3, 3), "a"),
    "complex": lambda w: np.zeros((3, 3)) + 1j,
    "objects": lambda w: np.full((3, 3), None, dtype=object),
    "ragged": lambda w: [[1.0], [1.0, 2.0]],
    "a dict": lambda w: {"a": 1},
    **NOT_A_THING,
}
CURVE = {
    "None": lambda w: None,
    "a number": lambda w: 0.5,
    "text": lambda w: "curve",
    "empty": lambda w: np.array([]),
    "too long": lambda w: np.zeros(17),
    "too many axes": lambda w: np.zeros((3, 3, 3)),
    "texts": lambda w: np.array(["a", "b", "c"]),
    "complex": lambda w: np.zeros(3) + 1j,
    "objects": lambda w: np.array([None, {}, object()]),
    "ragged": lambda w: [[1.0], [1.0, 2.0], 2.0],
    "a dict": lambda w: {"a": 1},
    **NOT_A_THING,
}
LABELS = {
    "a number": lambda w: 3,
    "text": lambda w: "ABC",
    "too few": lambda w: ["A"],
    "too many": lambda w: list("ABCDEFGHIJKLMNOPQRS"),
    "nested": lambda w: [["A"], ["B"], ["C"]],
    "objects": lambda w: [object(), object(), object()],
    "a dict": lambda w: {"A": 1},
    **{name: make for name, make in NOT_A_THING.items() if name != "a generator"},
}
TABLE = {
    "None": lambda w: None,
    "text": lambda w: "table",
    "a number": lambda w: 3,
    "an array": lambda w: np.zeros((3, 3)),
    "an empty table": lambda w: pd.DataFrame(),
    "other columns": lambda w: pd.DataFrame({"a": [1.0], "b": [2.0]}),
    "a list": lambda w: [1, 2],
    "an empty list": lambda w: [],
    "an empty dict": lambda w: {},
    "a dict": lambda w: {"a": 1},
    **NOT_A_THING,
}
AXES = {
    "text": lambda w: "ax",
    "a number": lambda w: 3,
    "a list": lambda w: [1],
    **NOT_A_THING,
}
KEYWORDS = {
    "text": lambda w: "red",
    "a number": lambda w: 3,
    "a list": lambda w: [1],
    **NOT_A_THING,
}
CALLABLE = {name: make for name, make in OPTION.items() if name != "a class"}  # may be a class
FOLDER = {name: make for name, make in PATH.items() if name not in ("None", "no such file")}
FACTORY = {name: make for name, make in KEYWORDS.items() if name != "a class"}
RESULT = {  # what another callable of sklmc returns
    "None": lambda w: None,
    "text": lambda w: "score",
    "a number": lambda w: 3,
    "an array": lambda w: np.zeros((3, 3)),
    "a list": lambda w: [1],
    "a dict": lambda w: {"a": 1},
    "a model": lambda w: w.a,
    "an empty list": lambda w: [],
    **NOT_A_THING,
}
ARRAYS = {  # index arrays by group
    **RESULT,
    "an unknown group": lambda w: {"nowhere": [0, 1]},
    "no permutation": lambda w: {w.group.name: [0] * w.group.size},
    "too short": lambda w: {w.group.name: [0]},
    "fractions": lambda w: {w.group.name: np.arange(w.group.size) + 0.5},
    "texts": lambda w: {w.group.name: ["a"] * w.group.size},
    "ragged": lambda w: {w.group.name: [[0], [0, 1]]},
    "out of range": lambda w: {w.group.name: np.arange(w.group.size) + 1},
}

KINDS = {
    "model": MODEL,
    "models": MODELS,
    "data": DATA,
    "target": TARGET,
    "count": COUNT,
    "real": REAL,
    "alphas": ALPHAS,
    "seed": SEED,
    "jobs": JOBS,
    "verbose": VERBOSE,
    "option": OPTION,
    "flag": FLAG,
    "weights": WEIGHTS,
    "aligner": ALIGNER,
    "scorer": SCORER,
    "estimator": ESTIMATOR,
    "grid": GRID,
    "path": PATH,
    "text": TEXT,
    "layers": LAYERS,
    "bounds": BOUNDS,
    "matrix": MATRIX,
    "curve": CURVE,
    "labels": LABELS,
    "callable": CALLABLE,
    "folder": FOLDER,
    "table": TABLE,
    "axes": AXES,
    "keywords": KEYWORDS,
    "factory": FACTORY,
    "result": RESULT,
    "arrays": ARRAYS,
}

MAY_PASS = {
    "model": {"other input", "a Pipeline", "no weights"},
    "models": {"the same twice", "of mixed kinds"},
    # a module says itself what it makes of more axes (MLP flattens them)
    "data": {"numbers as objects", "integers", "a list of lists", "one row", "three axes"},
    "target": {"booleans", "one column", "one class"},
    "count": {"a boolean"},
    "real": {"a boolean"},
    "alphas": {"a boolean"},
    "seed": {"a boolean"},
    "jobs": {"a boolean"},
    "verbose": {"a boolean"},
    "layers": {"twice"},
}

# A refusal may name the other side of what does not fit together, or what lies inside.
ALSO_NAMED = {
    "model": {"tensor", "X", "y", "layers"},
    "models": {"tensor", "X", "endpoints"},
    "estimator": {"module", "module__widht", "batch_size"},
    "grid": {"module__widht", "lr", "learning_rate"},
    "data": {"y", "model", "n_features", "batch"},
    "text": {"group", "layers"},
    "curve": {"scores", "curves", "loss", "group"},
    "matrix": {"y"},
    "labels": {"classes"},
    "arrays": {"group", "groups"},
    "layers": {"group", "layer"},
    "target": {"X"},
}
