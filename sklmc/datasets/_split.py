"""What every loader returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


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
