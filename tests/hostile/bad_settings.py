"""Bad values of settings and of results that are handed on, by kind of parameter."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pandas as pd

import sklmc
from tests.hostile.bad_inputs import NOT_A_THING, OPTION
from tests.hostile.world import net

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
BYTES = {  # of a message
    **RESULT,
    "no bytes": lambda w: b"",
    "a zero": lambda w: b"\0",
    "a page": lambda w: b"HTTP/1.1 200 OK\r\n\r\n<html>",
    "a pickle": lambda w: pickle.dumps({"a": 1}),
    "zeros": lambda w: bytes(200),
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
