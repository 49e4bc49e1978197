"""Two processes fill one folder at once: each piece is done by one of them."""

from __future__ import annotations

import os

import pytest

from tests.faults import jobs


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("name", jobs.KEEPS)
def test_two_writers_share_the_work(name, truth, disturb, tmp_path):
    wanted = truth(name)
    both = [disturb(name, tmp_path / "shared") for _ in range(2)]
    for job in both:
        job.fork()
    assert [job.found() for job in both] == [wanted, wanted]
    assert sum(len(job.begun()) for job in both) == jobs.PIECES[name]
