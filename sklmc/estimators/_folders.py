"""Where the cells of a grid are stored: one folder for each, by fingerprints."""

from __future__ import annotations

import warnings
from pathlib import Path

from sklmc.estimators._cache import open_folder, versions, write_json
from sklmc.estimators._labels import label_points
from sklmc.estimators._net import ArrayNet
from sklmc.exceptions import SklmcWarning
from sklmc.models import Unreadable, fingerprint


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
    try:
        parts = [_read(value, name, "all nets") for name, value in (("X", X), ("y", y))]
    except Unreadable as error:
        _report_unreadable(error)
        return [None] * len(points)
    here = top / fingerprint(*parts, root, versions())[:16]
    folders: list[Path | None] = []
    for params, labels, estimator in zip(points, label_points(points), populations):
        settings = {
            name: value
            for name, value in estimator.get_params(deep=False).items()
            if name not in ("random_state", "verbose")
        }
        cell = f"the nets of {labels}"
        try:
            settings_read = [
                [name, _read(value, name, cell)]
                for name, value in sorted({**settings, **params}.items())
            ]
            kind = _read(type(estimator), "estimator", cell)
        except Unreadable as error:
            _report_unreadable(error)
            folders.append(None)
            continue
        key = fingerprint(kind, settings_read, n_shared_epochs)
        folder = here / key[:24]
        folder.mkdir(parents=True, exist_ok=True)
        write_json(
            folder / "cell.json",
            {
                "params": labels,
                "random_state": root,
                "versions": versions(),
                "settings": {name: str(value) for name, value in sorted(settings.items())},
            },
        )
        folders.append(folder)
    _report_others(top, here, folders)
    return folders


def _read(value, name: str, nets: str) -> str:
    """Return the fingerprint of a parameter; name it where there is none."""
    try:
        return fingerprint(value)
    except Unreadable as error:
        raise Unreadable(
            f"ModelGrid: {nets} are not stored in 'cache_dir', since {name!r} cannot be told from "
            f"others: {error}. They are trained in every fit."
        ) from None


def _report_unreadable(error: Unreadable) -> None:
    """Say why something is not stored."""
    warnings.warn(str(error), SklmcWarning, stacklevel=4)


def _report_others(top: Path, here: Path, folders: list[Path | None]) -> None:
    """Say that the folder also holds nets of something else."""
    if not here.exists():
        return
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
