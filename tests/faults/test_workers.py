"""Worker processes of loky are killed, or left behind, or get Ctrl-C with their parent."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faults import jobs
from tests.faults.conftest import lives, wait_until

IN_TEST = {"killed": "scores", "interrupted": "ensemble", "orphaned": "grid"}
CASES = [
    pytest.param(what, name, marks=pytest.mark.slow if name == usual else pytest.mark.nightly)
    for what, usual in IN_TEST.items()
    for name in jobs.JOBS
]


@pytest.mark.parametrize("what, name", CASES)
def test_loky(what, name, truth, disturb, monkeypatch):
    """A killed worker is an error, Ctrl-C ends cleanly, a killed parent leaves no process."""
    wanted = truth(name)
    job = disturb(name)
    job.program("loky")
    job.wait_for(3)
    parent = job.process.pid
    if what == "killed":
        os.kill(next(pid for pid in job.begun() if pid != parent), signal.SIGKILL)
        assert job.join() == 1
        assert "TerminatedWorkerError" in (job.folder / "stderr").read_text()
    elif what == "interrupted":  # a terminal sends it to all
        os.killpg(parent, signal.SIGINT)
        assert job.found() == wanted  # of the second attempt, in the same process
        assert (job.folder / "interrupted").exists()
    else:
        os.kill(parent, signal.SIGKILL)
        assert job.join() == -signal.SIGKILL
    wait_until(lambda: what == "orphaned" or not any(lives(pid) for pid in job.begun()))
    found, begun = job.resumed(monkeypatch)
    assert found == wanted
    if name in jobs.KEEPS:  # the two workers may have lost what was under way
        assert 0 <= len(job.begun()) + begun - jobs.PIECES[name] <= 2 * jobs.LOST[name]
        assert begun == 0 or what != "interrupted"
