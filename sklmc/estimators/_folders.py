"""Where the cells of a grid are stored: one folder for each, by fingerprints."""

from __future__ import annotations

import warnings
from pathlib import Path

from sklmc.estimators._cache import open_folder, versions, write_json
from sklmc.estimators._fingerprint import fingerprint
from sklmc.estimators._net import ArrayNet
from sklmc.estimators._points import shown
from sklmc.exceptions import SklmcWarning


def cell_folders(cache_dir, points, populations, source) -> list[Path | None]:
    """Return where each cell is stored, and say what else is there.

    `source` is X, y, the root seed and the number of shared epochs: what all cells have in common.
    """
    X, y, root, n_shared_epochs = source
    if cache_dir is None:
        return [None] * len(points)
    for estimator in populations:
        if not isinstance(estimator, ArrayNet):
            raise ValueError(
                "ModelGrid: 'cache_dir' stores a NetClassifier or NetRegressor only, got "
                f"{type(estimator).__name__}; set it to None."
            )
    top = open_folder(cache_dir, "ModelGrid")
    here = top / fingerprint(X, y, root, versions())[:16]
    folders = []
    for params, estimator in zip(points, populations):
        settings = {
            name: value
            for name, value in estimator.get_params(deep=False).items()
            if name not in ("random_state", "verbose")
        }
        key = fingerprint(type(estimator), settings, n_shared_epochs, params)
        folder = here / key[:24]
        folder.mkdir(parents=True, exist_ok=True)
        write_json(
            folder / "cell.json",
            {
                "params": shown(params, text=True),
                "random_state": root,
                "versions": versions(),
                "settings": {name: str(value) for name, value in sorted(settings.items())},
            },
        )
        folders.append(folder)
    _report_others(top, here, folders)
    return folders


def _report_others(top: Path, here: Path, folders: list[Path]) -> None:
    """Say that the folder also holds nets of something else."""
    others = sum(1 for path in top.iterdir() if path.is_dir() and path != here)
    cells = sum(1 for path in here.iterdir() if path.is_dir() and path not in set(folders))
    parts = [f"{others} of other data, seeds or versions"] * (others > 0)
    parts += [f"{cells} of other cells"] * (cells > 0)
    if parts:
        warnings.warn(
            f"ModelGrid: 'cache_dir' {str(top)!r} also holds nets that are not of this grid "
            f"(folders: {', '.join(parts)}). They are left alone.",
            SklmcWarning,
            stacklevel=4,
        )
