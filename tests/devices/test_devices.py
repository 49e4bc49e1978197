"""Every public road on a device: on a simulated one, and on those that are there.

torch takes a new kind of device only before the first backward pass of a process, and keeps it
until the process ends. So checks have processes of their own; `check_*.py` are ordinary test files.
"""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("check_*.py")))
def test_checks_pass_in_a_process_of_their_own(name):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / name)]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout, done.stdout  # where all are skipped, pytest is content as well
