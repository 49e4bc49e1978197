from __future__ import annotations

import numpy as np
import pytest

from sklmc.datasets import _loaders, load_digits_split, load_images, load_moons


def fake_arrays(shape=(28, 28), n_train=20, n_test=10):
    rng = np.random.default_rng(0)
    return {
        "X_train": rng.integers(0, 256, (n_train, *shape), dtype=np.uint8),
        "y_train": (np.arange(n_train) % 10).astype(np.uint8),
        "X_test": rng.integers(0, 256, (n_test, *shape), dtype=np.uint8),
        "y_test": (np.arange(n_test) % 10).astype(np.uint8),
    }


def never(*args, **kwargs):
    raise AssertionError("nothing may be fetched")


@pytest.fixture
def no_fetch(monkeypatch):
    monkeypatch.setattr(_loaders, "fetch_openml", never)


def test_grey_images_get_a_channel_axis(tmp_path, no_fetch):
    arrays = fake_arrays()
    np.savez(tmp_path / "mnist.npz", **arrays)
    split = load_images("mnist", data_home=tmp_path)
    assert split.X_train.shape == (20, 1, 28, 28)
    assert split.X_train.dtype == np.float32
    assert np.array_equal(np.rint(split.X_train[:, 0] * 255), arrays["X_train"])
    assert split.y_train.dtype == np.int64
    assert split.y_test.tolist() == arrays["y_test"].tolist()


def test_colour_channels_come_first(tmp_path, no_fetch):
    arrays = fake_arrays((32, 32, 3))
    np.savez(tmp_path / "cifar10.npz", **arrays)
    split = load_images("cifar10", data_home=tmp_path)
    assert split.X_test.shape == (10, 3, 32, 32)
    assert split.X_test.flags.c_contiguous
    assert np.array_equal(np.rint(split.X_test[4, 2] * 255), arrays["X_test"][4, :, :, 2])


def test_environment_names_the_folder(tmp_path, no_fetch, monkeypatch):
    np.savez(tmp_path / "mnist.npz", **fake_arrays())
    monkeypatch.setenv("SKLMC_DATA", str(tmp_path))
    assert len(load_images("mnist").X_train) == 20


def test_scikit_learns_data_home_is_the_last_resort(tmp_path, no_fetch, monkeypatch):
    np.savez(tmp_path / "mnist.npz", **fake_arrays())
    monkeypatch.delenv("SKLMC_DATA", raising=False)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    assert len(load_images("mnist").X_train) == 20


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_what_is_fetched_is_stored_and_read_again(tmp_path, monkeypatch, name):
    image = _loaders._SOURCES[name].image
    monkeypatch.setitem(_loaders._SOURCES, name, _loaders._SOURCES[name]._replace(n_train=20))
    rows = np.random.default_rng(0).integers(0, 256, (30, *image))
    calls = []

    def fetch(openml_name, **options):
        calls.append((openml_name, options["data_home"]))
        return rows.reshape(30, -1).astype(float), np.array([str(i % 10) for i in range(30)])

    monkeypatch.setattr(_loaders, "fetch_openml", fetch)
    first = load_images(name, data_home=tmp_path / "new")
    monkeypatch.setattr(_loaders, "fetch_openml", never)
    again = load_images(name, data_home=tmp_path / "new")
    assert calls == [(_loaders._SOURCES[name].openml_name, str(tmp_path / "new"))]
    for a, b in zip(first, again):
        assert np.array_equal(a, b)
    channels_first = rows if len(image) == 3 else rows[:, None]
    assert np.array_equal(np.rint(first.X_train * 255), channels_first[:20])
    assert first.y_test.tolist() == list(range(10))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"{name}.npz"]


def test_failed_fetch_says_where_to_put_the_file(tmp_path, monkeypatch):
    def fetch(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(_loaders, "fetch_openml", fetch)
    with pytest.raises(OSError, match=r"'mnist' is not in .*\(no network\)\. Put mnist\.npz there"):
        load_images("mnist", data_home=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_store_leaves_nothing_behind(tmp_path, monkeypatch):
    def break_off(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", break_off)
    with pytest.raises(KeyboardInterrupt):
        _loaders._write(tmp_path / "mnist.npz", fake_arrays())
    assert list(tmp_path.iterdir()) == []


def test_unknown_name_offers_the_nearest(no_fetch):
    with pytest.raises(ValueError, match=r"'name' must be one of .* Did you mean 'mnist'"):
        load_images("mnits")


def test_file_that_is_no_archive_is_named(tmp_path, no_fetch):
    (tmp_path / "mnist.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"mnist\.npz' is not a file with the arrays X_train"):
        load_images("mnist", data_home=tmp_path)


def test_file_without_an_array_is_named(tmp_path, no_fetch):
    arrays = fake_arrays()
    del arrays["y_test"]
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(ValueError, match="y_test"):
        load_images("mnist", data_home=tmp_path)


@pytest.mark.parametrize(
    "part, value", [("X_train", np.zeros((20, 784))), ("y_test", np.zeros(3, dtype=np.uint8))]
)
def test_file_with_other_arrays_is_refused(tmp_path, no_fetch, part, value):
    np.savez(tmp_path / "mnist.npz", **{**fake_arrays(), part: value})
    with pytest.raises(ValueError, match="must be uint8 images"):
        load_images("mnist", data_home=tmp_path)


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
