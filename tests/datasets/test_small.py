from __future__ import annotations

import numpy as np
import pytest

from sklmc.datasets import load_digits_split, load_moons


def test_moons_default_is_the_studys_setting():
    X_train, X_test, y_train, y_test = load_moons()
    assert X_train.shape == X_test.shape == (512, 2)
    assert np.bincount(y_train).tolist() == np.bincount(y_test).tolist() == [256, 256]


def test_moons_repeat_with_the_seed_and_differ_without():
    a, b, c = load_moons(), load_moons(), load_moons(random_state=1)
    assert np.array_equal(a.X_train, b.X_train)
    assert not np.array_equal(a.X_train, c.X_train)


def test_moons_noise_is_a_standard_deviation():
    clean, noisy = (load_moons(noise=noise, random_state=3) for noise in (0.0, 0.1))
    outer = clean.X_train[clean.y_train == 0]
    assert np.allclose(np.linalg.norm(outer, axis=1), 1)
    # 1,024 draws: the standard deviation is known to about two percent
    assert (noisy.X_train - clean.X_train).std() == pytest.approx(0.1, rel=0.1)


def test_digits_are_scaled_and_stratified():
    X_train, X_test, y_train, y_test = load_digits_split()
    assert X_train.dtype == np.float32
    assert y_train.dtype == np.int64
    assert X_train.min() == 0
    assert X_train.max() == 1
    assert len(X_train) + len(X_test) == 1797
    shares = np.bincount(y_train) / len(y_train) - np.bincount(y_test) / len(y_test)
    assert np.abs(shares).max() < 0.003


def test_digits_test_size_can_be_a_number():
    assert len(load_digits_split(100).X_test) == 100


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: load_moons(1), "'n_train' parameter of load_moons"),
        (lambda: load_moons(noise=-1), "'noise' parameter of load_moons"),
        (lambda: load_digits_split(1.5), "'test_size' parameter of load_digits_split"),
    ],
)
def test_bad_values_are_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()
