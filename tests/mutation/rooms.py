"""What is sampled: patterns of files, so that a file that moves is still found."""

from __future__ import annotations

from pathlib import Path

ROOMS = {
    "symmetry": ("sklmc/symmetry/**/*.py",),
    "alignment": ("sklmc/alignment/**/*.py",),
    "scores": (
        "sklmc/connectivity/**/*scor*.py",
        "sklmc/connectivity/**/*loss*.py",
        "sklmc/connectivity/**/*evaluator*.py",
        "sklmc/connectivity/**/*interval*.py",
        "sklmc/connectivity/**/*path*.py",
    ),
    "least squares": (
        "sklmc/merging/**/*refit*.py",
        "sklmc/merging/**/*ridge*.py",
        "sklmc/merging/**/*layer*.py",
        "sklmc/models/_moments.py",
    ),
}


def files_of(room: str, root: Path) -> list[str]:
    """Return the files of a room, sorted, as paths from the root."""
    found = {path for pattern in ROOMS[room] for path in root.glob(pattern)}
    assert found, f"{room}: no file left; mend the patterns in {__file__}"
    return sorted(path.relative_to(root).as_posix() for path in found)
