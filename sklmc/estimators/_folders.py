"""Where populations are stored: one folder for each, by fingerprints."""

from __future__ import annotations

import warnings
from numbers import Integral
from pathlib import Path

from sklmc.estimators._fingerprint import fingerprint
from sklmc.estimators._net import ArrayNet
from sklmc.estimators._points import shown
from sklmc.exceptions import SklmcWarning
from sklmc.models import open_folder, versions, write_json


def net_versions() -> dict[str, str]:
    """Return the versions that trained weights may depend on."""
    return versions("skorch")


def check_cache_seed(random_state, caller: str) -> None:
    """Refuse a seed with which nothing could be resumed."""
    if not isinstance(random_state, Integral):
        raise ValueError(
            f"{caller}: 'random_state' must be an int with 'cache_dir', got {random_state!r}: "
            "with other seeds each time nothing could be resumed."
        )


class PopulationFolders:
    """The part of a `cache_dir` that belongs to X, y, a root seed and the versions."""

    def __init__(self, cache_dir, X, y, root: int, caller: str):
        self.top = open_folder(cache_dir, caller)
        self.here = self.top / fingerprint(X, y, root, net_versions())[:16]
        self.root = root
        self.caller = caller

    def make(self, estimator, key: tuple, params: dict) -> Path:
        """Return the folder of a population: of an estimator's settings, and a key of the caller.

        `params` stand in cell.json, for people.
        """
        if not isinstance(estimator, ArrayNet):
            raise ValueError(
                f"{self.caller}: 'cache_dir' stores a NetClassifier or NetRegressor only, got "
                f"{type(estimator).__name__}; set it to None."
            )
        settings = {
            name: value
            for name, value in estimator.get_params(deep=False).items()
            if name not in ("random_state", "verbose")
        }
        folder = self.here / fingerprint(type(estimator), settings, *key)[:24]
        folder.mkdir(parents=True, exist_ok=True)
        write_json(
            folder / "cell.json",
            {
                "params": shown(params, text=True),
                "random_state": self.root,
                "versions": net_versions(),
                "settings": {name: str(value) for name, value in sorted(settings.items())},
            },
        )
        return folder

    def report_others(self, folders: list[Path]) -> None:
        """Say that the `cache_dir` also holds nets of something else."""
        others = sum(1 for path in self.top.iterdir() if path.is_dir() and path != self.here)
        cells = sum(1 for p in self.here.iterdir() if p.is_dir() and p not in set(folders))
        parts = [f"{others} of other data, seeds or versions"] * (others > 0)
        parts += [f"{cells} of other cells"] * (cells > 0)
        if parts:
            warnings.warn(
                f"{self.caller}: 'cache_dir' {str(self.top)!r} also holds nets that are not of "
                f"this grid (folders: {', '.join(parts)}). They are left alone.",
                SklmcWarning,
                stacklevel=4,
            )


def cell_folders(cache_dir, points, populations, source) -> list[Path | None]:
    """Return where each cell of a grid is stored, and say what else is there.

    `source` is X, y, the root seed and the number of shared epochs: what all cells have in common.
    """
    X, y, root, n_shared_epochs = source
    if cache_dir is None:
        return [None] * len(points)
    home = PopulationFolders(cache_dir, X, y, root, "ModelGrid")
    folders = [
        home.make(estimator, (n_shared_epochs, params), params)
        for params, estimator in zip(points, populations)
    ]
    home.report_others(folders)
    return folders
