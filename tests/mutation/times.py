"""A pytest plugin that writes how long each passing test took: `-p tests.mutation.times`."""

from __future__ import annotations

import collections
import json
from pathlib import Path


def pytest_addoption(parser):
    parser.addoption("--times-to", metavar="FILE", help="where the seconds of each test go (JSON)")


def pytest_configure(config):
    if config.getoption("--times-to") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Times(Path(config.getoption("--times-to"))))


class Times:
    """Sums set-up, call and tear-down of each test; forgets those that did not pass."""

    def __init__(self, path: Path):
        self.path = path
        self.seconds: collections.Counter = collections.Counter()
        self.not_passed: set[str] = set()

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] += report.duration
        if not report.passed:
            self.not_passed.add(report.nodeid)

    def pytest_sessionfinish(self):
        passed = {n: round(s, 3) for n, s in self.seconds.items() if n not in self.not_passed}
        self.path.write_text(json.dumps(passed), encoding="utf-8")
