"""A disk that is full, for one process."""

from __future__ import annotations

import contextlib

import pytest


def limit_files(size):
    """Let this process, and its children, write no file longer than so many bytes; None lets it."""
    resource = pytest.importorskip("resource")
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (most if size is None else size, most))


@contextlib.contextmanager
def full_disk(most=20_000):
    """Let no file grow beyond `most` bytes."""
    limit_files(most)
    try:
        yield
    finally:
        limit_files(None)
