"""Where populations are stored: one folder for each, by fingerprints."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path

from sklmc.estimators._labels import label_points
from sklmc.estimators._net import ArrayNet
from sklmc.exceptions import SklmcWarning
from sklmc.models import Unreadable, fingerprint, keeping, open_folder, versions, write_json


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
        self.root = root
        self.caller = caller
        self.here: Path | None = None  # None: the data cannot be told from others
        try:
            parts = [self._read(value, name, "all nets") for name, value in (("X", X), ("y", y))]
        except Unreadable as error:
            _report_unreadable(error)
        else:
            self.here = self.top / fingerprint(*parts, root, net_versions())[:16]

    def make(self, estimator, params: Mapping, labels: Mapping, key) -> Path | None:
        """Return the folder of a population: of an estimator, parameters and a key of the caller.

        None, with a warning, where something cannot be told from others. `labels` are the
        parameters for people, in cell.json.
        """
        if not isinstance(estimator, ArrayNet):
            raise ValueError(
                f"{self.caller}: 'cache_dir' stores a NetClassifier or NetRegressor only, got "
                f"{type(estimator).__name__}; set it to None."
            )
        if self.here is None:
            return None
        settings = {
            name: value
            for name, value in estimator.get_params(deep=False).items()
            if name not in ("random_state", "verbose")
        }
        nets = f"the nets of {dict(labels)}" if labels else "the nets"
        try:
            values = [
                [name, self._read(value, name, nets)]
                for name, value in sorted({**settings, **params}.items())
            ]
            kind = self._read(type(estimator), "estimator", nets)
        except Unreadable as error:
            _report_unreadable(error)
            return None
        folder = self.here / fingerprint(kind, values, key)[:24]
        with keeping(self.top, self.caller):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(
                folder / "cell.json",
                {
                    "params": labels,
                    "random_state": self.root,
                    "versions": net_versions(),
                    "settings": {name: str(value) for name, value in sorted(settings.items())},
                },
            )
        return folder

    def report_others(self, folders: list[Path | None]) -> None:
        """Say that the `cache_dir` also holds nets of something else."""
        if self.here is None or not self.here.exists():
            return
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

    def _read(self, value, name: str, nets: str) -> str:
        """Return the fingerprint of a parameter; name it where there is none."""
        try:
            return fingerprint(value)
        except Unreadable as error:
            raise Unreadable(
                f"{self.caller}: {nets} are not stored in 'cache_dir', since {name!r} cannot be "
                f"told from others: {error}. They are trained in every fit."
            ) from None


def cell_folders(cache_dir, points, populations, source) -> list[Path | None]:
    """Return where each cell of a grid is stored, and say what else is there.

    `source` is X, y, the root seed and the number of shared epochs: what all cells have in common.
    """
    X, y, root, n_shared_epochs = source
    if cache_dir is None:
        return [None] * len(points)
    home = PopulationFolders(cache_dir, X, y, root, "ModelGrid")
    folders = [
        home.make(estimator, params, labels, n_shared_epochs)
        for params, labels, estimator in zip(points, label_points(points), populations)
    ]
    home.report_others(folders)
    return folders


def _report_unreadable(error: Unreadable) -> None:
    """Say why something is not stored."""
    warnings.warn(str(error), SklmcWarning, stacklevel=5)
