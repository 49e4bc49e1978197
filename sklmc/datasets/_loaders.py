"""Moons and digits, which need no download, and images from a file or fetched into one."""

from __future__ import annotations

import os
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import fetch_openml, get_data_home, load_digits, make_moons
from sklearn.model_selection import train_test_split

from sklmc._sklearn import Interval, validate_params
from sklmc._validation import check_option, check_path

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


class DataSplit(NamedTuple):
    """Training and test part of a data set.

    Unpacks in the order of scikit-learn's ``train_test_split``; the parts have names, too.

    Parameters
    ----------
    X_train : ndarray of shape (n_train, n_features) or (n_train, n_channels, height, width)
        Inputs of the training part.
    X_test : ndarray of shape (n_test, n_features) or (n_test, n_channels, height, width)
        Inputs of the test part.
    y_train : ndarray of shape (n_train,)
        Labels of the training part, integers from 0.
    y_test : ndarray of shape (n_test,)
        Labels of the test part.

    See Also
    --------
    load_moons : Two interleaved half circles.
    load_digits_split : Small images of handwritten digits.
    load_images : MNIST, Fashion-MNIST and CIFAR-10.

    Examples
    --------
    >>> from sklmc.datasets import load_moons
    >>> X_train, X_test, y_train, y_test = load_moons(random_state=0)
    >>> load_moons(random_state=0).X_test.shape
    (512, 2)
    """

    X_train: np.ndarray
    X_test: np.ndarray
    y_train: np.ndarray
    y_test: np.ndarray


@validate_params(
    {
        "n_train": [Interval(Integral, 2, None, closed="left")],
        "n_test": [Interval(Integral, 2, None, closed="left")],
        "noise": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def load_moons(n_train=512, n_test=512, *, noise=0.1, random_state=0):
    """Return two interleaved half circles with noise, in a training and a test part.

    The defaults are the setting of the width study that this library began with: 512 points to
    train on, 512 to test on, noise 0.1.

    Parameters
    ----------
    n_train : int, default=512
        Points of the training part.
    n_test : int, default=512
        Points of the test part.
    noise : float, default=0.1
        Standard deviation of the noise, in the unit of the circles' radius.
    random_state : int, RandomState instance or None, default=0
        Seeds noise and split. A number by default: the same data for everybody.

    Returns
    -------
    DataSplit
        X of shape (n, 2), float64; y is 0 or 1, each for half of the points of both parts (to
        one point).

    See Also
    --------
    load_digits_split : Small images of handwritten digits.

    Examples
    --------
    >>> from sklmc.datasets import load_moons
    >>> X_train, X_test, y_train, y_test = load_moons(100, 50, random_state=0)
    >>> X_train.shape, X_test.shape
    ((100, 2), (50, 2))
    """
    X, y = make_moons(n_train + n_test, noise=noise, random_state=random_state)
    return DataSplit(
        *train_test_split(
            X, y, train_size=n_train, test_size=n_test, stratify=y, random_state=random_state
        )
    )


@validate_params(
    {
        "test_size": [
            Interval(Real, 0, 1, closed="neither"),
            Interval(Integral, 1, None, closed="left"),
        ],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def load_digits_split(test_size=0.25, *, random_state=0):
    """Return scikit-learn's handwritten digits in a training and a test part.

    Parameters
    ----------
    test_size : float or int, default=0.25
        Share or number of the 1,797 samples that the test part gets.
    random_state : int, RandomState instance or None, default=0
        Seeds the split. A number by default, as for load_moons.

    Returns
    -------
    DataSplit
        X of shape (n, 64), float32 between 0 and 1 (the pixels of 8 x 8 images, row by row);
        y between 0 and 9, in equal shares in both parts.

    See Also
    --------
    load_images : Larger images of digits and other things.

    Examples
    --------
    >>> from sklmc.datasets import load_digits_split
    >>> split = load_digits_split()
    >>> split.X_train.shape, split.X_test.shape
    ((1347, 64), (450, 64))
    """
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    y = y.astype(np.int64)
    return DataSplit(
        *train_test_split(X, y, test_size=test_size, stratify=y, random_state=random_state)
    )


def load_images(name, *, data_home=None):
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
    if data_home is None:
        data_home = os.environ.get("SKLMC_DATA") or get_data_home()
    folder = check_path(data_home, "load_images", "data_home").expanduser()
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
    y, n = y.astype(np.uint8), source.n_train
    return dict(zip(_PARTS, (X[:n], y[:n], X[n:], y[n:]), strict=True))


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Store four arrays; a reader sees either all of the file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    try:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
