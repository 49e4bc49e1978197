"""What a graph is told by, and what it writes in place."""

from __future__ import annotations

import torch
from torch import nn

from sklmc.symmetry._tracing._graph import written_bases
from sklmc.symmetry._tracing._subject import Subject
from tests.symmetry.zoo import Net


def graph_of(forward, **parts):
    return Subject(Net(forward, **parts), torch.randn(8, 3), "test").graph(False)


def test_which_tensor_comes_first_is_part_of_the_digest():
    """The same steps, with the same names of tensors, in the other order."""
    one = graph_of(lambda net, x: net.q(net.p(x)), p=nn.Linear(3, 3), q=nn.Linear(3, 3))
    same = graph_of(lambda net, x: net.q(net.p(x)), p=nn.Linear(3, 3), q=nn.Linear(3, 3))
    other = graph_of(lambda net, x: net.p(net.q(x)), q=nn.Linear(3, 3), p=nn.Linear(3, 3))
    assert one.hash == same.hash != other.hash


def test_what_a_view_shares_memory_with_is_written_with_the_view():
    def forward(net, x):
        whole, kept = torch.zeros(8, 4), torch.ones(8, 4)
        whole.narrow(1, 0, 2).copy_(x[:, :2])
        whole.chunk(2, 1)[1].add_(1)
        return net.a(whole + kept)

    graph = graph_of(forward, a=nn.Linear(4, 2)).module.graph
    written = {str(node.target) for node in written_bases(graph)}
    assert {"aten.zeros.default", "aten.narrow.default", "aten.chunk.default"} <= written
    assert "aten.ones.default" not in written
