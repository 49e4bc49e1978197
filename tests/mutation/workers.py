"""Copies of the checkout, one for each worker, in which mutants are written and their tests run."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.mutation.mutators import Mutant

TIMEOUT = 60.0  # seconds; a mutant that takes longer is noticed by whoever waits for the tests
LEFT_OUT = ("build", "dist", "demo_output", "_build", "__pycache__", "*.egg-info", ".*")


class Worker:
    """A copy of a checkout with a server in it (`_server.py`); the checkout is never written to."""

    def __init__(self, root: Path):
        self.home = Path(tempfile.mkdtemp(prefix="mutation-"))
        self.copy = self.home / "checkout"
        shutil.copytree(root, self.copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
        # By hash, since two mutants of one second and one size would share a time stamp.
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(self.copy / "sklmc", quiet=2, invalidation_mode=mode)
        one_thread = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        (self.home / "tmp").mkdir()
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("_server.py"))],
            cwd=self.copy,
            env={
                **os.environ,
                **dict.fromkeys(one_thread, "1"),
                "MPLBACKEND": "Agg",
                "PYTHONPATH": str(self.copy),
                "TMPDIR": str(self.home / "tmp"),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_) -> None:
        self._server.stdin.close()
        self._server.wait(timeout=TIMEOUT)
        shutil.rmtree(self.home, ignore_errors=True)

    def try_mutant(self, mutant: Mutant, tests: Sequence[str]) -> dict:
        """Return how the tests end with the mutant in place: `status`, `by`, `seconds`."""
        with self._written(mutant):
            return self.run(tests, mutant.path)

    def run(self, tests: Sequence[str], path: str) -> dict:
        """Run tests on the copy as it is; `path` names the file that must import."""
        module = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        request = {"module": module, "tests": list(tests), "timeout": TIMEOUT}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    @contextlib.contextmanager
    def _written(self, mutant: Mutant):
        file = self.copy / mutant.path
        whole = file.read_bytes()
        file.write_text(mutant.apply(whole.decode()), encoding="utf-8")
        try:
            yield
        finally:
            file.write_bytes(whole)
