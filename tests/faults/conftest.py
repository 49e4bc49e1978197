"""What every undisturbed job finds, and ways to start, watch and disturb one."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from tests.disks import limit_files
from tests.faults import jobs

PATIENCE = 120  # seconds; only a hang takes as long
PROGRAM = "import sys; from tests.faults.jobs import main; main(*sys.argv[1:])"
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="session")
def truth():
    """Return what a job finds when nothing happens to it, without a folder."""
    return functools.cache(lambda name: jobs.run(name, None))


class Disturbed:
    """A job in a process of its own, with its folder and its log."""

    def __init__(self, name, folder, cache):
        self.name, self.folder, self.cache = name, Path(folder), cache
        self.log = self.folder / "log"
        self.process = None

    def fork(self, sleep=0.05, **more):
        """Run the job on one worker, in a fork of this process."""

        def work():
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ.update({jobs.LOG: str(self.log), jobs.SLEEP: str(sleep), **more})
            try:
                found = jobs.run(self.name, self.cache)
            except (KeyboardInterrupt, OSError) as error:
                limit_files(None)
                text = "\n".join(
                    [type(error).__name__, str(error), *getattr(error, "__notes__", [])]
                )
                (self.folder / "raised").write_text(text)
            else:
                (self.folder / "found").write_text(found)

        self.process = FORK.Process(target=work)
        self.process.start()

    def program(self, backend, sleep=0.5):
        """Run the job on two workers, in a new interpreter."""
        more = {jobs.LOG: str(self.log), jobs.SLEEP: str(sleep)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, self.name, str(self.folder), backend],
            env={**os.environ, **more},
            cwd=Path(__file__).resolve().parents[2],
            stderr=(self.folder / "stderr").open("ab"),
            start_new_session=True,
        )

    def begun(self) -> list[int]:
        """Return the processes that began a piece, one entry for each piece."""
        return [int(pid) for pid in self.log.read_text().split()] if self.log.exists() else []

    def wait_for(self, n_pieces: int):
        """Wait until so many pieces have begun."""
        wait_until(lambda: len(self.begun()) >= n_pieces)

    def found(self) -> str:
        """Wait for the end and return what was found."""
        assert self.join() == 0
        return (self.folder / "found").read_text()

    def raised(self) -> str:
        """Wait for the end and return the class, the message and the notes of what was raised."""
        assert self.join() == 0
        return (self.folder / "raised").read_text()

    def resumed(self, monkeypatch) -> tuple[str, int]:
        """Run the job again in this process; return what it finds and how many pieces it begins."""
        again = self.folder / "again"
        monkeypatch.setenv(jobs.LOG, str(again))
        monkeypatch.setenv(jobs.SLEEP, "0")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing half-written is ever seen
            found = jobs.run(self.name, self.cache)
        assert not list(self.folder.rglob("*.part"))
        return found, len(again.read_text().split()) if again.exists() else 0

    def join(self):
        """Wait for the end and return the exit code."""
        if isinstance(self.process, subprocess.Popen):
            return self.process.wait(PATIENCE)
        self.process.join(PATIENCE)
        return self.process.exitcode


def wait_until(condition):
    """Wait until something holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "nothing happens any more"
        time.sleep(0.01)


@pytest.fixture
def disturb(tmp_path):
    """Return a maker of disturbed jobs whose processes end with the test."""
    made = []

    def make(name, cache=None):
        folder = tmp_path / f"job-{len(made)}"
        folder.mkdir()
        made.append(Disturbed(name, folder, cache or folder / "cache"))
        return made[-1]

    yield make
    for job in made:
        if isinstance(job.process, subprocess.Popen):
            with contextlib.suppress(ProcessLookupError):  # workers outlive a killed parent
                os.killpg(job.process.pid, signal.SIGKILL)
            job.process.wait()
        else:
            job.process.kill()
            job.process.join()
