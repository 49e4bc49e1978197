"""More shapes that nets have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.symmetry.zoo._entries import Net, entry, images


@entry((4, 1), (6, 1), (8, 1), (5, 1), (7, 1))
def u_net():
    def forward(net, x):
        a = net.a(x).relu()
        b = net.b(F.max_pool2d(a, 2)).relu()
        up = net.up(net.c(b).relu())
        return net.out(net.d(torch.cat([up, a], 1)).relu())

    net = Net(
        forward,
        a=nn.Conv2d(3, 4, 3, padding=1),
        b=nn.Conv2d(4, 6, 3, padding=1),
        c=nn.Conv2d(6, 8, 3, padding=1),
        up=nn.ConvTranspose2d(8, 5, 2, 2),
        d=nn.Conv2d(9, 7, 3, padding=1),
        out=nn.Conv2d(7, 2, 1),
    )
    return net, images()


@entry((8, 1), (4, 1))
def squeeze_and_excite():
    def forward(net, x):
        h = net.conv(x).relu()
        gates = net.up(net.down(h.mean((2, 3))).relu()).sigmoid()
        return net.out((h * gates[:, :, None, None]).mean((2, 3)))

    parts = {"conv": nn.Conv2d(3, 8, 3), "down": nn.Linear(8, 4), "up": nn.Linear(4, 8)}
    return Net(forward, **parts, out=nn.Linear(8, 3)), images()


@entry((9, 1), (5, 1))
def tied_autoencoder():
    def forward(net, x):
        code = net.b(net.a(x).relu()).relu()
        return F.linear(F.linear(code, net.b.weight.t()).relu(), net.a.weight.t())

    return Net(forward, a=nn.Linear(6, 9), b=nn.Linear(9, 5)), (torch.randn(8, 6),)


@entry((5, 1), (6, 1))
def weights_made_by_a_net():
    def forward(net, x):
        weights = net.maker(x).view(-1, 6, 5)
        return net.out(torch.bmm(weights, net.inp(x)[:, :, None])[..., 0].relu())

    net = Net(forward, maker=nn.Linear(4, 30), inp=nn.Linear(4, 5), out=nn.Linear(6, 2))
    return net, (torch.randn(8, 4),)


@entry((6, 1), (3, 6))
def maxout():
    def forward(net, x):
        return net.out(net.inp(x).view(len(x), 6, 3).max(-1).values)

    return Net(forward, inp=nn.Linear(4, 18), out=nn.Linear(6, 2)), (torch.randn(8, 4),)


@entry((7, 1))
def scale_and_shift():
    def forward(net, x, condition):
        scale, shift = net.condition(condition).chunk(2, -1)
        return net.out((net.inp(x) * scale + shift).relu())

    net = Net(forward, inp=nn.Linear(3, 7), condition=nn.Linear(2, 14), out=nn.Linear(7, 2))
    return net, (torch.randn(8, 3), torch.randn(8, 2))


@entry((4, 1), (5, 1))
def gram_matrix():
    def forward(net, x):
        h = net.inp(x).view(-1, 4, 5)
        return net.out((h @ h.transpose(1, 2)).flatten(1))

    return Net(forward, inp=nn.Linear(5, 20), out=nn.Linear(16, 2)), (torch.randn(8, 5),)


@entry((8, 1), (2, 1), (4, 2), (4, 2))
def linear_attention():
    def forward(net, x):
        n, t, _ = x.shape
        q, k, v = net.qkv(net.inp(x)).reshape(n, t, 3, 2, 4).permute(2, 0, 3, 1, 4)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        y = (q @ (k.transpose(-2, -1) @ v)) / (q @ k.sum(-2)[..., None])
        return net.out(y.transpose(1, 2).flatten(2))

    net = Net(forward, inp=nn.Linear(3, 8), qkv=nn.Linear(8, 24), out=nn.Linear(8, 3))
    return net, (torch.randn(2, 5, 3),)


@entry((4, 1), (2, 1), (4, 2))
def normed_queries_and_keys():
    def forward(net, x):
        n, t, _ = x.shape
        parts = net.qkv(x).chunk(3, -1)
        q, k, v = (z.view(n, t, 2, 4).transpose(1, 2) for z in parts)
        y = F.scaled_dot_product_attention(net.q_norm(q), net.k_norm(k), v)
        return net.out(y.transpose(1, 2).flatten(2))

    norms = {"q_norm": nn.LayerNorm(4), "k_norm": nn.LayerNorm(4)}
    net = Net(forward, qkv=nn.Linear(3, 24), **norms, out=nn.Linear(8, 3))
    return net, (torch.randn(2, 5, 3),)


class GraphAttention(nn.Module):
    """Takes exactly as many rows as its graph has nodes."""

    def __init__(self, n=7, heads=3, size=4):
        super().__init__()
        self.inp, self.out = nn.Linear(5, heads * size), nn.Linear(heads * size, 2)
        self.source = nn.Parameter(torch.randn(heads, size))
        self.target = nn.Parameter(torch.randn(heads, size))
        self.register_buffer("edges", torch.rand(n, n) + torch.eye(n))
        self.shape = (n, heads, size)

    def forward(self, x):
        h = self.inp(x).view(self.shape)
        scores = (h * self.source).sum(-1)[:, None] + (h * self.target).sum(-1)[None]
        scores = F.leaky_relu(scores).masked_fill(self.edges[:, :, None] < 0.5, -1e9)
        return self.out(torch.einsum("ijh,jhd->ihd", scores.softmax(1), h).flatten(1).relu())


@entry((3, 1), (4, 3))
def graph_attention():
    return GraphAttention(), (torch.randn(7, 5),)


@entry((6, 1), (6, 1), (5, 1))
def rows_of_weights_used_apart():
    """One parameter, read in two pieces by two streams."""

    class Pieces(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 6), nn.Linear(3, 6)
            self.both = nn.Parameter(torch.randn(10, 6))
            self.out = nn.Linear(5, 2)

        def forward(self, x):
            first, second = self.both.split([5, 5])
            return self.out(F.linear(self.a(x).relu(), first) * F.linear(self.b(x).tanh(), second))

    return Pieces(), (torch.randn(8, 3),)


@entry((8, 1), (5, 1))
def embedding_bag():
    net = nn.Sequential(nn.EmbeddingBag(11, 8), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2))
    return net, (torch.randint(11, (4, 6)),)
