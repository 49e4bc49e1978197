"""LMCScorer.grid over populations of nets."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sklmc import LMCScorer
from sklmc.exceptions import PairFailedWarning


@pytest.fixture
def cells(make_mlps):
    return SimpleNamespace(
        cells_=[
            SimpleNamespace(
                params={"width": width, "norm": None}, estimators=make_mlps(3, width=width)
            )
            for width in (4, 8)
        ]
    )


def test_one_row_for_each_cell_condition_and_pair(cells, data):
    frame = LMCScorer(aligner="weight").grid(cells, *data)
    assert len(frame) == 2 * 2 * 3
    assert list(frame)[:5] == ["width", "norm", "condition", "model_a", "model_b"]
    for condition, aligner in (("naive", None), ("aligned", "weight")):
        for cell in cells.cells_:
            part = frame[
                (frame["width"] == cell.params["width"]) & (frame["condition"] == condition)
            ]
            wanted = LMCScorer(aligner=aligner).pairwise(cell.estimators, *data)
            upper = np.triu_indices(wanted.n_models, 1)
            np.testing.assert_array_equal(part["barrier"], wanted.barrier[upper])
    assert set(LMCScorer().grid(cells, *data)["condition"]) == {"naive"}


def test_cell_that_fails_is_named_and_keeps_its_rows(cells, data):
    for net in cells.cells_[1].estimators:
        with torch.no_grad():
            net.layers[0].bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"LMCScorer.grid, cell \{'width': 8.*layers.0.bias"):
        LMCScorer().grid(cells, *data)
    with pytest.warns(PairFailedWarning, match=r"cell \{'width': 8.*no pair could be scored"):
        frame = LMCScorer(error_score=7.0, calibration="crossfit").grid(cells, *data)
    lost = frame[frame["width"] == 8]
    assert lost["barrier"].tolist() == [7.0] * 3
    assert lost["failure"].str.contains("layers.0.bias").all()
    assert np.isfinite(frame[frame["width"] == 4]["barrier"]).all()


def test_something_without_cells_is_refused(data):
    with pytest.raises(TypeError, match=r"'model_grid' must have 'cells_'.*got list"):
        LMCScorer().grid([], *data)


def test_progress_counts_cells(cells, data, capsys):
    LMCScorer(verbose=1).grid(cells, *data)
    assert "2/2" in capsys.readouterr().err
