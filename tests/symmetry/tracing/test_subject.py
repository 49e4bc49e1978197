"""A net is traced in eval mode and in train mode."""

from __future__ import annotations

import torch
from torch import nn

from sklmc.symmetry._tracing._subject import Subject


def test_there_is_a_graph_for_each_mode():
    graphs = Subject(nn.Linear(3, 2), torch.randn(8, 3), "test").graphs()
    assert [graph.training for graph in graphs] == [False, True]
