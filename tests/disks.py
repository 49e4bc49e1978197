"""A disk that is full, for one process."""

from __future__ import annotations

import contextlib

import pytest


@contextlib.contextmanager
def full_disk(most=20_000):
    """Let no file grow beyond `most` bytes; child processes take that over."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
