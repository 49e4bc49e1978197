"""Bad models, samples, labels and numbers, by kind of parameter; each made anew for a case."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pandas as pd
import torch
from scipy import sparse

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
    "a dict": lambda w: {"no such argument": w.X},
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
