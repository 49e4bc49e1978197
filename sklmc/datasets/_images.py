"""MNIST, Fashion-MNIST and CIFAR-10 from a file, or fetched once and then from a file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import fetch_openml, get_data_home

from sklmc._validation import check_option, check_path
from sklmc.datasets._split import DataSplit

_PARTS = ("X_train", "y_train", "X_test", "y_test")


class _Source(NamedTuple):
    """Where OpenML keeps a data set, and how its rows are to be read."""

    openml_name: str
    version: int
    n_train: int
    image: tuple[int, ...]  # axes of a row: height, width; or channels, height, width


_SOURCES = {
    "mnist": _Source("mnist_784", 1, 60_000, (28, 28)),
    "fashion_mnist": _Source("Fashion-MNIST", 1, 60_000, (28, 28)),
    "cifar10": _Source("CIFAR_10", 1, 50_000, (3, 32, 32)),
}


def load_images(name, data_home=None):
    """Return MNIST, Fashion-MNIST or CIFAR-10 in their official training and test parts.

    The images are read from ``<data_home>/<name>.npz`` where that file is. Where it is not,
    they are fetched from OpenML through scikit-learn (which takes minutes) and stored there.

    Parameters
    ----------
    name : {"mnist", "fashion_mnist", "cifar10"}
        The data set.
    data_home : path-like, default=None
        Folder of the files. None takes the environment variable SKLMC_DATA, or else
        scikit-learn's data home.

    Returns
    -------
    DataSplit
        X of shape (n, n_channels, height, width), float32 between 0 and 1; y of shape (n,),
        int64 between 0 and 9.

    Raises
    ------
    ValueError
        If `name` is unknown, or the file does not hold such a data set.
    OSError
        If the data are neither there nor can be fetched.

    See Also
    --------
    load_digits_split : Digits that need no download.

    Notes
    -----
    The file holds ``X_train``, ``y_train``, ``X_test`` and ``y_test``: images as uint8 of shape
    (n, height, width) or (n, height, width, n_channels), and labels of shape (n,).

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sklmc.datasets import load_images
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 256, (20, 28, 28), dtype=np.uint8)
    >>> labels = np.arange(20) % 10
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/mnist.npz", X_train=images, y_train=labels, X_test=images,
    ...              y_test=labels)
    ...     load_images("mnist", data_home=folder).X_train.shape
    (20, 1, 28, 28)
    """
    check_option(name, _SOURCES, "load_images", "name")
    folder = _data_home(data_home)
    path = folder / f"{name}.npz"
    if path.exists():
        arrays = _read(path)
    else:
        arrays = _fetch(name, folder)
        _write(path, arrays)
    _check(arrays, path)
    return DataSplit(
        _images(arrays["X_train"]),
        _images(arrays["X_test"]),
        arrays["y_train"].astype(np.int64),
        arrays["y_test"].astype(np.int64),
    )


def _data_home(data_home) -> Path:
    """Return the folder of the files: as said, as the environment says, or scikit-learn's."""
    if data_home is None:
        data_home = os.environ.get("SKLMC_DATA") or get_data_home()
    return check_path(data_home, "load_images", "data_home").expanduser()


def _read(path: Path) -> dict[str, np.ndarray]:
    """Return the four arrays of a file."""
    try:
        with np.load(path) as file:
            return {part: file[part] for part in _PARTS}
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"load_images: {str(path)!r} is not a file with the arrays {', '.join(_PARTS)} "
            f"({error}); remove it, so that it is fetched anew, or replace it."
        ) from error


def _fetch(name: str, folder: Path) -> dict[str, np.ndarray]:
    """Fetch a data set from OpenML."""
    source = _SOURCES[name]
    try:
        X, y = fetch_openml(
            source.openml_name,
            version=source.version,
            data_home=str(folder),
            as_frame=False,
            return_X_y=True,
        )
    except (OSError, ValueError) as error:
        raise OSError(
            f"load_images: {name!r} is not in {str(folder)!r} and could not be fetched ({error}). "
            f"Put {name}.npz there, or name the folder that holds it with 'data_home' or the "
            "environment variable SKLMC_DATA."
        ) from error
    X = X.astype(np.uint8).reshape(-1, *source.image)
    if len(source.image) == 3:
        X = np.ascontiguousarray(X.transpose(0, 2, 3, 1))
    y = y.astype(np.uint8)
    n_train = source.n_train
    return {
        "X_train": X[:n_train],
        "y_train": y[:n_train],
        "X_test": X[n_train:],
        "y_test": y[n_train:],
    }


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Store four arrays; a reader sees either all of the file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.stem}-", suffix=".npz", delete=False
    ) as file:
        try:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _check(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Refuse arrays that are no images with labels."""
    for part in ("train", "test"):
        X, y = arrays[f"X_{part}"], arrays[f"y_{part}"]
        if X.dtype != np.uint8 or X.ndim not in (3, 4) or y.shape != (len(X),):
            raise ValueError(
                f"load_images: in {str(path)!r} X_{part} must be uint8 images of shape "
                "(n, height, width) or (n, height, width, n_channels) with one label each, got "
                f"{X.dtype} of shape {X.shape} and labels of shape {y.shape}."
            )


def _images(X: np.ndarray) -> np.ndarray:
    """Return images as floats between 0 and 1 with their channels first."""
    X = X[:, None] if X.ndim == 3 else X.transpose(0, 3, 1, 2)
    return X.astype(np.float32, order="C") / np.float32(255)
