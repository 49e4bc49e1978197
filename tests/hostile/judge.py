"""Run one bad call, and say whether what came of it is right."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

import sklmc
from tests.hostile.world import World

PACKAGE = Path(sklmc.__file__).parent
HERE = Path(__file__).parent
SECONDS = 20.0  # a refusal takes milliseconds; a busy machine is slow, a hang is not this short
# Where scikit-learn looks at arguments; its messages about data speak of them in their own words.
VALIDATION = {
    *("validation.py", "_param_validation.py", "multiclass.py", "_array_api.py", "_tags.py"),
    *("_classification.py", "_regression.py", "_validation.py", "_search.py", "_split.py"),
    "base.py",
}
ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)  # what a path may meet


@dataclass
class Verdict:
    """What came of a call; `complaints` is empty where it was right."""

    complaints: list[str] = field(default_factory=list)
    raised: BaseException | None = None


def judge(run, arguments, named, may_pass) -> Verdict:
    """Call ``run(**arguments)`` and look at the outcome, the arguments and the world.

    A refusal must speak of one of `named`; `may_pass` says that the call may return.
    """
    verdict = Verdict()
    before, world = fingerprint(arguments), globals_now()
    started = time.perf_counter()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            run(**arguments)
    except Exception as error:
        verdict.raised = error
        verdict.complaints += _complaints_about(error, named)
    else:
        if not may_pass:
            verdict.complaints.append("was accepted without a word")
    finally:
        plt.close("all")
    seconds = time.perf_counter() - started
    if seconds > SECONDS:
        verdict.complaints.append(f"took {seconds:.0f} s")
    changed = [name for name, value in globals_now().items() if world[name] != value]
    if changed:
        verdict.complaints.append(f"left another {', '.join(changed)}")
        restore()
    if fingerprint(arguments) != before:
        verdict.complaints.append("changed an argument")
    return verdict


def _complaints_about(error, named) -> list[str]:
    """Say what is wrong with a refusal."""
    kinds = (ValueError, TypeError, NotFittedError)
    kinds += ABSENT if named & {"path", "data_home", "cache_dir"} else ()
    frames = traceback.extract_tb(error.__traceback__)
    where = Path(frames[-1].filename)
    place = f"{where.name}:{frames[-1].lineno}"
    said = f"{type(error).__name__}: {error}"
    found = []
    if not isinstance(error, kinds):
        found.append(f"raised {said!r} at {place}")
    by_sklearn = "sklearn" in where.parts and where.name in VALIDATION
    by_joblib = where.name == "_parallel_backends.py" and "n_jobs" in str(error)
    # Python itself refuses an unknown keyword, where the call is made
    by_python = (where.parent == HERE or where.name == "inspect.py") and isinstance(
        error, TypeError
    )
    if not (PACKAGE in where.parents or by_sklearn or by_joblib or by_python):
        found.append(f"raised from {place}: {said!r}")
    elif not by_sklearn and not any(names(str(error), name) for name in named):
        found.append(f"does not name {sorted(named)!r}: {said!r}")
    return found


def names(message: str, parameter: str) -> bool:
    """Say whether a message names a parameter as a word (``models[1]`` names ``models``)."""
    return (
        re.search(rf"(?<![A-Za-z0-9_]){re.escape(parameter)}(?![A-Za-z0-9])", message) is not None
    )


# -- what must stay as it is ---------------------------------------------------------------


def globals_now() -> dict:
    """Return what belongs to the whole process."""
    _, numpy_keys, place, *_ = np.random.get_state()  # noqa: NPY002
    return {
        "default dtype": torch.get_default_dtype(),
        "torch generator": torch.get_rng_state().numpy().tobytes(),
        "numpy generator": (numpy_keys.tobytes(), place),
        "random generator": hash(random.getstate()),
        "number of threads": torch.get_num_threads(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "folder": os.getcwd(),
        "numpy errors": tuple(np.geterr().items()),
        "warning filters": tuple(map(str, warnings.filters)),
        "default device": torch.get_default_device(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "environment": hash(tuple(os.environ.items())),
    }


def restore() -> None:
    """Put back what later cases would trip over."""
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)


def fingerprint(value, depth=0):
    """Return something equal for equal values: arrays by bytes, nets by weights and flags."""
    if isinstance(value, torch.Tensor):
        if value.is_meta or value.layout is not torch.strided:
            return str(value.shape)
        raw = value.detach().contiguous().reshape(-1).view(torch.uint8)
        return (str(value.dtype), tuple(value.shape), raw.numpy().tobytes())
    if isinstance(value, np.ndarray):
        same = value.tolist() if value.dtype == object else value.tobytes()
        return (str(value.dtype), value.shape, repr(same) if value.dtype == object else same)
    if isinstance(value, (pd.DataFrame, pd.Series)):
        return value.to_json()
    if sparse.issparse(value):
        return value.toarray().tobytes()
    if isinstance(value, World):
        return fingerprint([value.nets, value.X, value.y, value.fitted])
    if depth > 3:
        return type(value).__name__
    if isinstance(value, torch.nn.Module):
        lazy = torch.nn.parameter.UninitializedParameter
        tensors = [*value.named_parameters(), *value.named_buffers()]
        state = [(k, None if isinstance(v, lazy) else fingerprint(v)) for k, v in tensors]
        return (state, [part.training for part in value.modules()])
    if isinstance(value, BaseEstimator) or hasattr(value, "module_"):
        return [(k, fingerprint(v, depth + 1)) for k, v in vars(value).items()]
    if isinstance(value, Mapping):
        return [(str(k), fingerprint(v, depth + 1)) for k, v in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [fingerprint(v, depth + 1) for v in value]
    return type(value).__name__ if type(value).__module__ != "builtins" else repr(type(value))
