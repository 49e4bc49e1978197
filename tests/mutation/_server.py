"""Runs tests of a copy of the checkout, each time in a fork that has torch imported already.

Started as a script, with the copy as working directory. Reads one request a line,
`{"module", "tests", "timeout"}`, and answers with one line, `{"status", "by", "seconds"}`. Nothing
of sklmc or its tests is imported here, so that each fork imports what the copy then holds.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

HEAVY = (
    "hypothesis.extra.numpy",
    "joblib",
    "matplotlib.pyplot",
    "pandas",
    "pytest",
    "safetensors.torch",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.model_selection",
    "sklearn.pipeline",
    "sklearn.utils.estimator_checks",
    "skorch",
    "sympy",
    "torch.export",
    "torch.fx.experimental.symbolic_shapes",
    "tqdm",
)
MEMORY = 12 << 30  # bytes of address space; torch alone maps a few


class _FirstFailure:
    """A pytest plugin that remembers what failed first."""

    test = None

    def pytest_runtest_logreport(self, report):
        if report.failed and self.test is None:
            self.test = report.nodeid


def serve() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")  # ours alone: forks write to a file
    os.dup2(2, 1)
    sys.path[0] = os.getcwd()
    for name in HEAVY:
        importlib.import_module(name)
    gc.freeze()
    log = Path(tempfile.mkstemp(suffix=".log")[1])
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line), log)) + "\n")
        answers.flush()
    log.unlink()


def _answer(request: dict, log: Path) -> dict:
    """Run a request in a fork and wait for it, not longer than its timeout."""
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _run_and_exit(request, log)
    status, ended = None, 0
    while not ended and time.monotonic() - began < request["timeout"] * _crowd():
        ended, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # and the processes that the tests began
    if not ended:
        os.waitpid(pid, 0)
        found = {"status": "timeout"}
    elif os.waitstatus_to_exitcode(status) != 0:
        found = {"status": "crash"}
    else:
        found = json.loads(log.read_text(encoding="utf-8").rpartition("\n")[2])
    return {"by": None, **found, "seconds": round(time.monotonic() - began, 2)}


def _crowd() -> float:
    """Return by how much others on this machine make a process slower."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def _run_and_exit(request: dict, log: Path) -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    target = os.open(log, os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    found = _run(request)
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(target, ("\n" + json.dumps(found)).encode())
    os._exit(0)


def _run(request: dict) -> dict:
    import pytest

    try:
        importlib.import_module("sklmc")
        importlib.import_module(request["module"])
    except Exception as error:
        return {"status": "import", "by": repr(error)[:200]}
    first = _FirstFailure()
    options = ["-q", "-p", "no:cacheprovider", "--tb=short", "--hypothesis-seed=0"]
    options += ["-x"] if request.get("stop", True) else []
    code = int(pytest.main([*request["tests"], *options], plugins=[first]))
    status = {0: "survived", 1: "killed"}.get(code, "collection")
    return {"status": status, "by": first.test}


if __name__ == "__main__":
    serve()
