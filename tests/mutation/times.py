"""A pytest plugin that writes what each passing test costs: `-p tests.mutation.times`.

Seconds of processor time, which other processes on the machine do not make longer.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

BEGAN = pytest.StashKey[float]()


def pytest_addoption(parser):
    parser.addoption("--times-to", metavar="FILE", help="where the seconds of each test go (JSON)")


def pytest_configure(config):
    if config.getoption("--times-to") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Times(Path(config.getoption("--times-to"))))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    item.stash[BEGAN] = time.process_time()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    report.processor_seconds = time.process_time() - item.stash[BEGAN]  # so far, set-up included
    return report


class Times:
    """Keeps what each test took until its last report; forgets those that did not pass."""

    def __init__(self, path: Path):
        self.path = path
        self.seconds: dict[str, float] = {}
        self.not_passed: set[str] = set()

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = round(report.processor_seconds, 3)
        if not report.passed:
            self.not_passed.add(report.nodeid)

    def pytest_sessionfinish(self):
        passed = {n: s for n, s in self.seconds.items() if n not in self.not_passed}
        self.path.write_text(json.dumps(passed), encoding="utf-8")
