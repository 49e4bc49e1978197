"""Sizes that a net reads off whole numbers of its sample are constants of the trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sklmc import merge_models
from sklmc.exceptions import TraceError
from sklmc.symmetry import discover_symmetry
from tests.symmetry.zoo import Net

EXACT = 1e-12  # rounding in float64
GRAPH = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])  # whose node each of eight is


def graph_net(pool):
    return Net(
        lambda net, x, graph: net.b(pool(net.a(x).relu(), graph)),
        a=nn.Linear(3, 5),
        b=nn.Linear(5, 2),
    )


def sample():
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), GRAPH


def number_as_tensor(h, graph):
    return torch.zeros(graph.max() + 1, 5).index_add(0, graph, h)


def number_as_int(h, graph):
    return torch.zeros(int(graph.max()) + 1, 5, dtype=h.dtype).index_add(0, graph, h)


def parts_of_a_list(h, graph):
    return torch.stack([part.sum(0) for part in h.split(torch.bincount(graph).tolist())])


def branch(h, graph):
    return number_as_int(h, graph) if graph.max() > 1 else h


POOLS = [number_as_tensor, number_as_int, parts_of_a_list, branch]


@pytest.mark.parametrize("pool", POOLS)
def test_units_stay_free_where_sizes_are_read_off_whole_numbers(pool, capfd):
    net = graph_net(pool)
    symmetry = discover_symmetry(net, sample())
    assert [group.size for group in symmetry.groups] == [5]
    assert symmetry.evidence["modes"] == ["eval", "train"]
    assert symmetry.verify(net, sample()) < EXACT
    assert capfd.readouterr() == ("", "")


def test_batches_with_other_numbers_of_graphs_merge():
    nets = [graph_net(number_as_int) for _ in range(2)]
    X = [sample(), (torch.randn(3, 3), torch.tensor([0, 1, 1]))]
    merged = merge_models(nets, X, aligner="activation", repair="renormalize")
    assert merged(*X[1]).shape == (2, 2)


FLOATS = {
    "mask": lambda h, graph: h[h[:, 0] > 0],
    "places": lambda h, graph: h[torch.nonzero(h[:, 0] > 0)[:, 0]],
    "masked_select": lambda h, graph: torch.masked_select(h, h > 0).sum() + h,
}


@pytest.mark.parametrize("pool", FLOATS.values(), ids=FLOATS)
def test_sizes_that_hidden_units_decide_about_are_refused_in_our_words(pool):
    with pytest.raises(TraceError, match=r"at \S+\.py:\d+: the size of a tensor depends on"):
        discover_symmetry(graph_net(pool), sample())


def test_branches_that_the_samples_floats_decide_about_are_refused():
    def pool(h, graph):
        return h * 2 if h.max() * graph.max() > 1 else h

    with pytest.raises(TraceError, match="control flow depends on the values"):
        discover_symmetry(graph_net(pool), sample())


def test_places_that_floats_choose_are_no_sizes():
    def pool(h, graph):
        return number_as_int(h[h.argsort(dim=0)[:, 0]], graph)

    symmetry = discover_symmetry(graph_net(pool), sample())
    assert [group.size for group in symmetry.groups] == [4]  # the first decides about the order
