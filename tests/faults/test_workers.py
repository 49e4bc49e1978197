"""Worker processes are killed, or left behind, or their parent gets Ctrl-C."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faults import jobs

USUAL = ("loky", "killed", "scores")  # the others take long
CASES = [
    pytest.param(
        backend,
        what,
        name,
        marks=pytest.mark.slow if (backend, what, name) == USUAL else pytest.mark.nightly,
    )
    for backend in ("loky", "dask")
    for what in ("killed", "orphaned", "interrupted")
    for name in jobs.JOBS
]


@pytest.mark.parametrize("backend, what, name", CASES)
def test_what_workers_finished_is_kept(backend, what, name, truth, disturb, monkeypatch):
    if backend == "dask":
        pytest.importorskip("dask.distributed")
    wanted = truth(name)
    job = disturb(name)
    job.program(backend)
    job.wait_for(3)
    parent = job.process.pid
    if what == "killed":
        os.kill(next(pid for pid in job.begun() if pid != parent), signal.SIGKILL)
        if backend == "loky":
            assert job.join() == 1
            assert "TerminatedWorkerError" in (job.folder / "stderr").read_text()
        elif job.join() == 0:  # dask starts another; joblib may have left the data on the first
            assert job.found() == wanted
        else:
            assert "FutureCancelledError" in (job.folder / "stderr").read_text()
    elif what == "orphaned":
        os.kill(parent, signal.SIGKILL)
        assert job.join() == -signal.SIGKILL
    else:  # a terminal sends Ctrl-C to workers too, which those of dask take for the end
        os.kill(parent, signal.SIGINT) if backend == "dask" else os.killpg(parent, signal.SIGINT)
        assert job.found() == wanted  # of the second attempt, in the same process
        assert (job.folder / "interrupted").exists()
    found, begun = job.resumed(monkeypatch)
    assert found == wanted
    if name in jobs.KEEPS:
        # each worker loses what it does; an interrupted one begins what is queued for it, too
        lost = len(job.begun()) + begun - jobs.PIECES[name]
        assert 0 <= lost <= 2 * jobs.LOST[name] * (2 if what == "interrupted" else 1)
        assert begun == 0 or not (job.folder / "found").exists()
