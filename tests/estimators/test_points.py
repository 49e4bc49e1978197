"""The parameters of a grid in tables: words that can be grouped and merged."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from skorch.callbacks import EarlyStopping, LRScheduler
from torch import nn

from sklmc import LMCScorer, ModelGrid, NetClassifier
from sklmc.estimators._points import label_points
from tests.estimators.test_cache_code import net_with


def labels(*values):
    return [point["name"] for point in label_points([{"name": value} for value in values])]


def test_plain_values_stand_for_themselves():
    values = [1, 1.5, True, None, "text", (1, "a")]
    assert labels(*values) == values
    assert labels(np.float64(0.5), np.str_("a"), (np.int64(1),)) == [0.5, "a", (1,)]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (torch.optim.SGD, "SGD"),
        (torch.relu, "relu"),
        ((nn.ReLU, 2), "(ReLU, 2)"),
        ([64, 32], "[64, 32]"),
        ({"a": nn.ReLU}, "{'a': ReLU}"),
        (functools.partial(nn.CrossEntropyLoss, label_smoothing=0.1),
         "CrossEntropyLoss(label_smoothing=0.1)"),
        ([LRScheduler("StepLR", step_size=2)], "[LRScheduler(policy='StepLR', step_size=2)]"),
        ([EarlyStopping()], "[EarlyStopping()]"),
        (torch.ones(3, 2), "Tensor of shape (3, 2)"),
        (NetClassifier(lr=0.1), "NetClassifier(lr=0.1)"),
        (object(), "object"),
    ],
)  # fmt: skip
def test_other_values_are_words(value, label):
    assert labels(value, value) == [label, label]


def test_different_values_that_read_alike_are_numbered():
    first, second = net_with(0.0), net_with(0.5)
    assert labels(first, second, net_with(0.0), second) == ["Net", "Net (2)", "Net", "Net (2)"]
    assert labels(torch.ones(2), torch.zeros(2))[1] == "Tensor of shape (2,) (2)"


def test_tables_can_be_grouped_and_merged(moons):
    stopping = [EarlyStopping("train_loss")]
    grid = ModelGrid(
        NetClassifier(max_epochs=1),
        [
            {"optimizer": [torch.optim.SGD, torch.optim.Adam], "module__width": [2]},
            {
                "module": [net_with(0.0), net_with(0.5)],
                "callbacks": [stopping],
            },
        ],
        n_estimators=2,
        random_state=0,
    ).fit(*moons)
    summary, pairs = grid.summary(*moons), LMCScorer().grid(grid, *moons)
    assert set(pairs["optimizer"].dropna()) == {"SGD", "Adam"}
    assert pairs.groupby("optimizer")["barrier"].count().to_dict() == {"SGD": 1, "Adam": 1}
    assert pairs.groupby("module")["barrier"].count().to_dict() == {"Net": 1, "Net (2)": 1}
    names = ["optimizer", "module__width", "module", "callbacks"]
    both = pairs.merge(summary, on=names)
    assert len(both) == len(pairs) == 4
    assert both["barrier"].tolist() == pairs["barrier"].tolist()
    members = grid.to_frame()
    assert len(members.merge(summary, on=names)) == 8
