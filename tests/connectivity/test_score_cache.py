"""Scores of a grid on disk: resumed to the bit, of these nets alone, never read when damaged."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator

from sklmc import LMCScorer, PermutationAligner
from sklmc.connectivity import _pair_scoring
from sklmc.exceptions import NonFiniteLossWarning, PairFailedWarning, SklmcWarning


@pytest.fixture
def cells(make_mlps):
    return SimpleNamespace(
        cells_=[
            SimpleNamespace(params={"width": width}, estimators=make_mlps(3, width=width))
            for width in (4, 8)
        ]
    )


@pytest.fixture
def count(monkeypatch):
    """Return a list that gets an entry for every cell that is computed."""
    done = []
    original = _pair_scoring._compute

    def compute(views, *args, **shared):
        done.append(len(views))
        return original(views, *args, **shared)

    monkeypatch.setattr(_pair_scoring, "_compute", compute)
    return done


def reads_anything(x):
    return eval("x")


def stored(folder):
    return sorted(folder.rglob("*.safetensors"))


@pytest.mark.parametrize(
    "aligner, calibration",
    [(None, None), (None, "given"), ("weight", "crossfit"), ("merge_many", None)],
)
def test_second_run_scores_nothing_and_gives_the_same(
    cells, data, tmp_path, count, aligner, calibration
):
    calibration = data if calibration == "given" else calibration
    plain = LMCScorer(aligner=aligner, calibration=calibration).grid(cells, *data)
    count.clear()
    scorer = LMCScorer(aligner=aligner, calibration=calibration, cache_dir=tmp_path)
    first = scorer.grid(cells, *data)
    assert len(count) == len(stored(tmp_path)) == (2 if aligner is None else 4)
    second = scorer.grid(cells, *data)
    assert len(count) == len(stored(tmp_path))
    pd.testing.assert_frame_equal(first, plain, check_exact=True)
    pd.testing.assert_frame_equal(second, plain, check_exact=True)


def test_a_cell_that_is_missing_is_scored_again(cells, data, tmp_path, count):
    scorer = LMCScorer(cache_dir=tmp_path)
    first = scorer.grid(cells, *data)
    stored(tmp_path)[0].unlink()
    pd.testing.assert_frame_equal(scorer.grid(cells, *data), first, check_exact=True)
    assert len(count) == 3


def test_trained_nets_and_those_read_from_a_cache_are_the_same(moons, nets, tmp_path, count):
    """fit leaves a net in another mode than reading does; neither is part of what is scored."""
    scorer = LMCScorer(aligner="weight", cache_dir=tmp_path)
    scorer.grid(SimpleNamespace(cells_=[SimpleNamespace(params={}, estimators=nets)]), *moons)
    nets[0].module_.train()
    scorer.grid(SimpleNamespace(cells_=[SimpleNamespace(params={}, estimators=nets)]), *moons)
    nets[0].module_.eval()
    assert len(count) == 2


def test_what_is_read_off_the_paths_may_change(cells, data, tmp_path, count):
    LMCScorer(cache_dir=tmp_path).grid(cells, *data)
    options = {"metric": "error", "baseline": "max", "n_jobs": 2, "error_score": 3.0}
    other = LMCScorer(**options, cache_dir=tmp_path).grid(cells, *data)
    assert len(count) == 2
    wanted = LMCScorer(**options).grid(cells, *data)
    pd.testing.assert_frame_equal(other, wanted, check_exact=True)


@pytest.mark.parametrize(
    "what",
    ["weight", "buffer", "order", "X", "y", "alphas", "repair", "calibration", "X_cal", "seed"],
)
def test_scores_of_anything_else_are_not_taken(what, make_mlps, data, tmp_path, count):
    X, y = data
    nets = make_mlps(2, norm="batch")
    cells = SimpleNamespace(cells_=[SimpleNamespace(params={}, estimators=nets)])
    options = {"calibration": data, "cache_dir": tmp_path}
    if what == "seed":
        options["aligner"] = PermutationAligner(random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # interpolated running statistics
        LMCScorer(**options).grid(cells, X, y)
        count.clear()
        if what == "weight":
            with torch.no_grad():
                nets[0].get_parameter("layers.0.bias")[0] += 1e-6
        elif what == "buffer":
            next(b for n, b in nets[0].named_buffers() if n.endswith("running_var"))[0] += 1e-6
        elif what == "order":
            nets.reverse()
        elif what == "X":
            X = X + np.float32(1e-6)
        elif what == "y":
            y = np.roll(y, 1)
        else:
            options |= {
                "alphas": {"n_alphas": 5},
                "repair": {"repair": "batch_norm"},
                "calibration": {"calibration": "crossfit"},
                "X_cal": {"calibration": (data[0][:50], data[1][:50])},
                "seed": {"aligner": PermutationAligner(random_state=1)},
            }[what]
        frame = LMCScorer(**options).grid(cells, X, y)
        computed = len(count)
        wanted = LMCScorer(**{**options, "cache_dir": None}).grid(cells, X, y)
    assert computed == 1
    pd.testing.assert_frame_equal(frame, wanted, check_exact=True)


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:-1] + b"!"])
def test_damaged_files_are_named_moved_aside_and_scored_again(damage, cells, data, tmp_path):
    scorer = LMCScorer(cache_dir=tmp_path)
    first = scorer.grid(cells, *data)
    path = stored(tmp_path)[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(SklmcWarning, match=f"LMCScorer.grid.*{path.name}' is damaged"):
        again = scorer.grid(cells, *data)
    pd.testing.assert_frame_equal(again, first, check_exact=True)
    assert len(list(tmp_path.glob("*.damaged-0"))) == 1


class Moody(BaseEstimator):
    """An aligner that fails while its file is there."""

    def __init__(self, path):
        self.path = path

    def fit(self, model_a, model_b, X, y):
        if self.path.exists() and float(model_b.layers[0].bias[0]) > 0:
            raise ValueError("not today")
        return self

    def transform(self, model):
        return model


def test_pairs_that_failed_are_tried_again(cells, data, tmp_path, count):
    trouble = tmp_path / "trouble"
    trouble.write_text("")
    scorer = LMCScorer(aligner=Moody(trouble), error_score=5.0, cache_dir=tmp_path)
    with pytest.warns(PairFailedWarning):
        first = scorer.grid(cells, *data)
    assert first["failure"].notna().any()
    trouble.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scorer.grid(cells, *data)["failure"].isna().all()


def test_dead_nets_are_warned_of_again_and_the_others_read(cells, data, tmp_path, count):
    with torch.no_grad():
        cells.cells_[0].estimators[2].layers[0].bias[0] = torch.nan
        for layer in (0, 2):
            cells.cells_[1].estimators[1].layers[layer].weight *= 1e25  # too large together
    scorer = LMCScorer(error_score=5.0, cache_dir=tmp_path)
    frames = []
    for _ in range(2):
        with pytest.warns(PairFailedWarning, match="bias"), pytest.warns(NonFiniteLossWarning):
            frames.append(scorer.grid(cells, *data))
    pd.testing.assert_frame_equal(*frames, check_exact=True)
    assert len(count) == 2


def test_scores_of_nets_that_cannot_be_told_apart_are_not_stored(cells, data, tmp_path, count):
    wanted = LMCScorer().grid(cells, *data)
    count.clear()
    cells.cells_[0].estimators[0].activation = reads_anything
    with pytest.warns(SklmcWarning, match="width.: 4.*scores are not stored in 'cache_dir'"):
        frame = LMCScorer(cache_dir=tmp_path).grid(cells, *data)
    pd.testing.assert_frame_equal(frame, wanted, check_exact=True)
    assert len(stored(tmp_path)) == 1


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_aligners_without_a_fixed_seed_are_refused(random_state, cells, data, tmp_path):
    aligner = PermutationAligner(random_state=random_state)
    with pytest.raises(ValueError, match="'aligner' must have an int as 'random_state'"):
        LMCScorer(aligner=aligner, cache_dir=tmp_path).grid(cells, *data)


def test_folder_that_cannot_be_written_is_named(cells, data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"LMCScorer.grid: 'cache_dir' .* cannot be written into"):
        LMCScorer(cache_dir=tmp_path / "file").grid(cells, *data)
    with pytest.raises(ValueError, match="'cache_dir' parameter of LMCScorer"):
        LMCScorer(cache_dir=3).grid(cells, *data)
