"""Data sets that come with scikit-learn and need no download."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
from sklearn.datasets import load_digits, make_moons
from sklearn.model_selection import train_test_split

from sklmc._sklearn import Interval, validate_params
from sklmc.datasets._split import DataSplit


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
