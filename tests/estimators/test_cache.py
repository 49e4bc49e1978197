"""Nets on disk: resumed to the bit, never read when damaged, shared between processes."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import time
import warnings

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.linear_model import SGDClassifier
from skorch.callbacks import LRScheduler

from sklmc import ModelGrid, NetClassifier, NetRegressor
from sklmc.estimators._cache_dir import member_path
from sklmc.exceptions import SklmcWarning
from sklmc.models import _storage
from sklmc.nets import MLP
from tests.disks import full_disk
from tests.estimators.test_grid import NET, WIDTHS, bits

FORK = multiprocessing.get_context("fork")


def make(folder, **options):
    defaults = {"param_grid": WIDTHS, "n_estimators": 4, "random_state": 0, "cache_dir": folder}
    return ModelGrid(NET, **{**defaults, **options})


def stored(folder):
    return sorted(folder.rglob("*.safetensors"))


def no_training(monkeypatch):
    monkeypatch.setattr("sklmc.estimators._cell.fit_members", None)


def state_of(net):
    entries = net.optimizer_.state_dict()["state"].values()
    return [v.numpy().tobytes() for entry in entries for _, v in sorted(entry.items())]


@pytest.mark.parametrize("vectorize", [True, False])
def test_second_fit_trains_nothing_and_gives_the_same(vectorize, moons, tmp_path, monkeypatch):
    schedule = LRScheduler("CosineAnnealingLR", T_max=3)
    options = {"vectorize": vectorize, "param_grid": {"callbacks": [None, [schedule]]}}
    first = make(tmp_path, **options).fit(*moons)
    assert len(stored(tmp_path)) == 8
    no_training(monkeypatch)
    second = make(tmp_path, **options).fit(*moons)
    assert bits(second) == bits(first)
    for one, other in zip(first, second):
        assert one.train_loss.tolist() == other.train_loss.tolist()
        for net, twin in zip(one.estimators, other.estimators):
            assert state_of(net) == state_of(twin)
            assert net.history == twin.history
            assert net.get_params().keys() == twin.get_params().keys()
            assert net.predict(moons[0]).tolist() == twin.predict(moons[0]).tolist()


def train_on(grid, moons):
    for cell in grid:
        for net in cell.estimators:
            net.partial_fit(*moons)
    return grid


def test_restored_nets_train_on_where_they_ended(moons, tmp_path):
    first = train_on(make(tmp_path).fit(*moons), moons)
    second = train_on(make(tmp_path).fit(*moons), moons)
    assert bits(first) == bits(second)


def test_restored_nets_of_a_spawn_train_on_through_shared_epochs(moons, tmp_path):
    first = train_on(make(tmp_path).spawn(20).fit(*moons), moons)
    second = train_on(make(tmp_path).spawn(20).fit(*moons), moons)
    assert bits(first) == bits(second)


def test_restored_regressors_predict_the_same(moons, targets, tmp_path):
    grids = [
        ModelGrid(NetRegressor(max_epochs=2), WIDTHS, n_estimators=2, random_state=0,
                  cache_dir=tmp_path).fit(moons[0], targets)
        for _ in range(2)
    ]  # fmt: skip
    for one, other in zip(*grids):
        for net, twin in zip(one.estimators, other.estimators):
            assert np.array_equal(net.predict(moons[0]), twin.predict(moons[0]))


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("missing", [[0], [2], [1, 3], [0, 1, 2, 3]])
def test_what_is_missing_is_trained_to_the_same_bits(missing, vectorize, moons, tmp_path):
    options = {"vectorize": vectorize, "param_grid": {"module__width": 3}}
    first = make(tmp_path, **options).fit(*moons)
    for index in missing:
        stored(tmp_path)[0].with_name(member_path(tmp_path, index).name).unlink()
    assert bits(make(tmp_path, **options).fit(*moons)) == bits(first)


def test_new_members_and_cells_leave_files_untouched(moons, tmp_path, monkeypatch):
    make(tmp_path).fit(*moons)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in stored(tmp_path)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grown = make(tmp_path, n_estimators=6, param_grid={"module__width": [2, 4, 5]}).fit(*moons)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    assert len(stored(tmp_path)) == 18
    no_training(monkeypatch)
    with pytest.warns(SklmcWarning, match="of other cells"):
        shrunk = make(tmp_path).fit(*moons)
    assert bits(shrunk) == [cell[:4] for cell in bits(grown)[:2]]


def test_a_grown_chunk_that_was_cut_off_resumes_to_the_same_bits(moons, tmp_path):
    make(tmp_path, n_estimators=2).fit(*moons)
    grown = make(tmp_path, n_estimators=6).fit(*moons)
    for path in stored(tmp_path):
        if path.name.startswith("00004"):
            path.unlink()
    assert bits(make(tmp_path, n_estimators=6).fit(*moons)) == bits(grown)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
        lambda data: data.replace(b"train_loss", b"train_lost", 1),
        lambda data: b"",
        lambda data: b"something else",
    ],
)
def test_damaged_files_are_named_moved_aside_and_trained_again(damage, moons, tmp_path):
    first = make(tmp_path).fit(*moons)
    path = stored(tmp_path)[5]
    path.write_bytes(damaged := damage(path.read_bytes()))
    with pytest.warns(SklmcWarning, match=f"{path.name}' is damaged.*computed again"):
        again = make(tmp_path).fit(*moons)
    assert bits(again) == bits(first)
    assert path.with_name(path.name + ".damaged-0").read_bytes() == damaged
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(tmp_path).fit(*moons)


def test_a_file_of_another_member_is_not_taken_for_this_one(moons, tmp_path):
    first = make(tmp_path).fit(*moons)
    path = stored(tmp_path)[0]
    path.write_bytes(path.with_name("00001.safetensors").read_bytes())
    with pytest.warns(SklmcWarning, match="damaged"):
        assert bits(make(tmp_path).fit(*moons)) == bits(first)


@pytest.mark.parametrize("what", ["X", "y", "seed", "epochs", "module", "version"])
def test_nets_of_anything_else_are_left_alone(what, moons, tmp_path, monkeypatch):
    make(tmp_path).fit(*moons)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    X, y, options = *moons, {}
    net = NetClassifier(max_epochs=2)
    if what == "X":
        X = X + 1e-9
    elif what == "y":
        y = 1 - y
    elif what == "seed":
        options = {"random_state": 1}
    elif what == "epochs":
        net.set_params(max_epochs=3)
    elif what == "module":

        class Other(MLP):
            pass

        net.set_params(module=Other)
    else:
        monkeypatch.setattr(_storage, "FORMAT", 2)
    expected = "of other cells" if what in ("epochs", "module") else "of other data"
    with pytest.warns(SklmcWarning, match=expected):
        make(tmp_path, **options).set_params(estimator=net).fit(X, y)
    assert len(stored(tmp_path)) == 16
    assert all(path.read_bytes() == content for path, content in before.items())


def test_cell_json_tells_parameters_and_versions(moons, tmp_path):
    make(tmp_path, param_grid={"optimizer": torch.optim.SGD}).fit(*moons)
    (path,) = tmp_path.rglob("cell.json")
    content = json.loads(path.read_text())
    assert content["params"] == {"optimizer": "SGD"}
    assert content["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_cache_needs_a_number_as_seed(random_state, moons, tmp_path):
    with pytest.raises(ValueError, match="'random_state' must be an int with 'cache_dir'"):
        make(tmp_path, random_state=random_state).fit(*moons)


def test_cache_that_cannot_be_written_is_named(moons, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"'cache_dir' .* cannot be written into"):
        make(tmp_path / "file").fit(*moons)


def test_cache_stores_nets_only(moons, tmp_path):
    with pytest.raises(ValueError, match="stores a NetClassifier or NetRegressor only"):
        make(tmp_path, param_grid={}).set_params(estimator=SGDClassifier()).fit(*moons)


def test_full_disk_keeps_what_is_finished(moons, tmp_path, monkeypatch):
    original, count = _storage.write_state, 0

    def full(path, *args):
        nonlocal count
        count += 1
        if count > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(path, *args)

    monkeypatch.setattr(_storage, "write_state", full)
    with pytest.raises(OSError, match="No space left") as caught:
        make(tmp_path).fit(*moons)
    assert "stays good" in caught.value.__notes__[-1]
    assert len(stored(tmp_path)) == 5
    monkeypatch.undo()
    assert bits(make(tmp_path).fit(*moons)) == bits(make(None).fit(*moons))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_full_disk_ends_in_one_message_wherever_it_is_met(n_jobs, moons, tmp_path):
    wide = NetClassifier(module__width=3000, max_epochs=0)  # more than a file may hold
    grid = make(tmp_path, param_grid={}, n_jobs=n_jobs).set_params(estimator=wide)
    match = r"cannot be written .* free some space"
    with full_disk(), parallel_config("multiprocessing"), pytest.raises(OSError, match=match) as e:
        grid.fit(*moons)
    assert "stays good in" in e.value.__notes__[-1]
    assert not list(tmp_path.rglob("*.part"))


def test_notes_that_cannot_be_written_end_in_the_same_message(moons, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sklmc.estimators._cache_dir.write_json", full)
    with pytest.raises(OSError, match="No space left") as caught:
        make(tmp_path).fit(*moons)
    assert "stays good in" in caught.value.__notes__[-1]


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("vectorize", [True, False])
def test_killed_at_random_moments_resumes_to_the_same_bits(vectorize, moons, tmp_path):
    options = {"vectorize": vectorize, "n_estimators": 6}
    truth = bits(make(None, **options).fit(*moons))
    generator = random.Random(0)
    finished = 0
    for _ in range(10):
        process = FORK.Process(target=lambda: make(tmp_path, **options).fit(*moons))
        process.start()
        time.sleep(generator.uniform(0.005, 0.12))
        kill(process)
        assert len(stored(tmp_path)) >= finished
        finished = len(stored(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing half-written is ever seen
        assert bits(make(tmp_path, **options).fit(*moons)) == truth
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_fill_one_folder_together(moons, tmp_path):
    truth = bits(make(None, n_estimators=6).fit(*moons))
    processes = [
        FORK.Process(target=lambda: make(tmp_path, n_estimators=6).fit(*moons)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bits(make(tmp_path, n_estimators=6).fit(*moons)) == truth
