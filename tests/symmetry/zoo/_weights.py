"""Nets whose weights are not used as they are stored."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.symmetry.zoo._entries import Net, entry


@entry((7, 1))
def weight_norm():
    inp = nn.utils.parametrizations.weight_norm(nn.Linear(5, 7))
    return nn.Sequential(inp, nn.ReLU(), nn.Linear(7, 3)), (torch.randn(8, 5),)


@entry((7, 1))
def spectral_norm():
    inp = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 7))
    return nn.Sequential(inp, nn.ReLU(), nn.Linear(7, 3)), (torch.randn(8, 5),)


@entry((8, 1))
def packed_swiglu():
    def forward(net, x):
        a, b = net.up(x).chunk(2, -1)
        return net.down(F.silu(a) * b)

    return Net(forward, up=nn.Linear(5, 16), down=nn.Linear(8, 3)), (torch.randn(8, 5),)


@entry((8, 1))
def glu():
    return nn.Sequential(nn.Linear(5, 16), nn.GLU(), nn.Linear(8, 3)), (torch.randn(8, 5),)


class Experts(nn.Module):
    """A soft mixture of stacked feed-forward experts."""

    def __init__(self, n=3, width=6, hidden=5):
        super().__init__()
        self.inp, self.router, self.out = nn.Linear(4, width), nn.Linear(width, n), nn.Linear(6, 2)
        self.up = nn.Parameter(torch.randn(n, width, hidden))
        self.down = nn.Parameter(torch.randn(n, hidden, width))

    def forward(self, x):
        x = self.inp(x)
        gates = self.router(x).softmax(-1)
        hidden = torch.einsum("bi,eih->beh", x, self.up).relu()
        return self.out(torch.einsum("be,beh,ehi->bi", gates, hidden, self.down))


@entry((6, 1), (6, 1), (3, 1), (5, 3))
def experts():
    return Experts(), (torch.randn(8, 4),)


@entry((9, 1))
def top_k():
    def forward(net, x):
        hidden = net.inp(x).relu()
        largest = hidden.topk(3, dim=-1).values
        return net.out(hidden) + largest.sum(-1, keepdim=True)

    return Net(forward, inp=nn.Linear(5, 9), out=nn.Linear(9, 2)), (torch.randn(8, 5),)


@entry((6, 1))
def bilinear():
    def forward(net, x):
        return net.out(net.inp(x), net.inp(x))

    return Net(forward, inp=nn.Linear(5, 6), out=nn.Bilinear(6, 6, 3)), (torch.randn(8, 5),)


@entry((7, 1), (6, 1))
def written_in_place():
    def forward(net, x):
        both = torch.zeros(len(x), 13, dtype=x.dtype)
        both[:, :7] = net.a(x)
        both[:, 7:] = net.b(x)
        return net.out(both.relu_())

    net = Net(forward, a=nn.Linear(5, 7), b=nn.Linear(5, 6), out=nn.Linear(13, 3))
    return net, (torch.randn(8, 5),)
