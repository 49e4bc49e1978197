"""What a net is traced with: rows by the size of a sample, on the device of its tensors."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from sklmc.symmetry._tracing._export import _trace_error, export_graph, trace_input


@pytest.mark.parametrize("size, rows", [(1, 8), (256, 8), (257, 4), (2048, 4), (2049, 2)])
@pytest.mark.parametrize("given", [1, 3, 20])
def test_rows_depend_on_the_size_of_a_sample_and_repeat_what_is_given(size, rows, given):
    X = torch.arange(given * size, dtype=torch.float32).view(given, size)
    (found,) = trace_input((X,))
    assert torch.equal(found, torch.cat([X] * rows)[:rows])


def test_samples_of_several_parts_and_numbers_stay_as_they_are():
    X, number = torch.randn(3, 2), torch.tensor(1.0)
    for sample in ((X, X), (number,), ("text",)):
        assert trace_input(sample) is sample


def test_nets_of_one_tensor_or_none_are_traced():
    for net in (nn.Linear(3, 1, bias=False), nn.Tanh()):
        graph = export_graph(net, (torch.randn(8, 3),), training=False, caller="test")
        assert [entry.kind for entry in graph.entries].count("input") == 1
        assert len(graph.outputs) == 1


class DataDependentError(RuntimeError):
    """Named as torch's own."""


@pytest.mark.parametrize(
    "error, reason",
    [
        (DataDependentError("no"), "its control flow depends on the values of tensors"),
        (RuntimeError("a data-dependent size"), "its control flow depends on the values"),
        (RuntimeError("Could not guard on u0"), "its control flow depends on the values"),
        (TypeError("got a PackedSequence"), "it takes or makes a PackedSequence"),
        (ValueError("several\n  words"), "ValueError: several words"),
        (ValueError("x" * 300), "ValueError: " + "x" * 200 + r"\."),
    ],
)
def test_why_a_net_could_not_be_traced_is_told_in_words(error, reason):
    told = str(_trace_error(error, nn.Tanh(), "test"))
    assert re.match("test: the forward pass of Tanh could not be traced: " + reason, told)
