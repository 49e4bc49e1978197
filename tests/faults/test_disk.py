"""A disk that runs full in the middle of a job, and folders that cannot be written into."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sklmc.models import STAYS_GOOD
from tests.faults import jobs

# root may write into a folder without write permission, but into none of these
PLACES = ["file", "file/inner", *["/proc/sklmc"] * Path("/proc/self").is_dir()]
FULL = {"ensemble": 3, "grid": 3, "scores": 6, "width": 4}  # then one fold of two is lost


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("name", jobs.KEEPS)
def test_full_disk_is_raised_and_what_is_finished_kept(name, truth, disturb, monkeypatch):
    """Also in a search that takes a fold that fails for a bad width: this one is not."""
    wanted = truth(name)
    job = disturb(name)
    job.fork(sleep=0, **{jobs.FULL: str(FULL[name])})
    raised = job.raised()
    assert raised.startswith("OSError")
    assert STAYS_GOOD in raised
    assert len(job.begun()) == FULL[name]
    found, begun = job.resumed(monkeypatch)
    assert found == wanted
    assert begun == jobs.PIECES[name] - FULL[name] + jobs.LOST[name]


@pytest.mark.parametrize("name", jobs.KEEPS)
@pytest.mark.parametrize("place", PLACES)
def test_folder_that_cannot_be_written_is_refused_at_once(name, place, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(jobs, "begin", None)
    with pytest.raises(ValueError, match=r"'cache_dir' .* cannot be written into"):
        jobs.run(name, tmp_path / place)
