"""The only process of a job is killed or gets Ctrl-C: what is finished stays, and is right."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faults import jobs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("name", jobs.JOBS)
def test_cut_off_run_resumes_to_the_same_bytes(name, number, truth, disturb, monkeypatch):
    wanted = truth(name)
    job = disturb(name)
    job.fork()
    job.wait_for(5)
    os.kill(job.process.pid, number)
    if number == signal.SIGKILL:
        assert job.join() == -signal.SIGKILL
    else:
        assert job.raised().startswith("KeyboardInterrupt")
    before = len(job.begun())
    found, begun = job.resumed(monkeypatch)
    assert found == wanted
    if name in jobs.KEEPS:  # what was under way is done again, and nothing else
        assert 0 <= before + begun - jobs.PIECES[name] <= jobs.LOST[name]
