"""Tensors that are uniform along an axis until an operation makes it otherwise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.symmetry.zoo._entries import Net, entry, images


@entry((6, 1))
def blurred_by_one_filter():
    """A depthwise convolution whose filters are one constant, expanded."""

    def forward(net, x):
        h = net.inp(x).relu()
        filters = torch.ones(1, 1, 3, 3, dtype=h.dtype).expand(6, 1, 3, 3)
        return net.out(F.conv2d(h, filters, groups=6))

    return Net(forward, inp=nn.Conv2d(3, 6, 3), out=nn.Conv2d(6, 2, 1)), images()


@entry((5, 1), (3, 1))
def places_in_patches_of_a_uniform_image():
    """Unfolded patches of an image with three equal channels: the places are not equal.

    The columns that read equal channels may be exchanged; no output sees it.
    """

    def forward(net, x):
        image = x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        return net.out(net.inp(F.unfold(image, 2, stride=2).mean(-1)).relu())

    return Net(forward, inp=nn.Linear(12, 5), out=nn.Linear(5, 2)), images()


@entry((8, 1))
def recurrent_over_equal_inputs():
    """The same input at every time: the states are not the same, so their order counts."""

    def forward(net, x):
        states, _ = net.rnn(x[:, None].expand(-1, 4, -1))
        return net.out(states.flatten(1))

    net = Net(forward, rnn=nn.LSTM(5, 8, batch_first=True), out=nn.Linear(32, 3))
    return net, (torch.randn(3, 5),)


@entry((6, 1))
def causal_attention_with_one_query():
    """Equal queries see different places under a causal mask."""

    def forward(net, x):
        q = net.query.expand(len(x), x.shape[1], -1)
        y = F.scaled_dot_product_attention(q, x, net.value(x), is_causal=True)
        return net.out(y.flatten(1))

    net = Net(forward, value=nn.Linear(6, 6), out=nn.Linear(24, 3))
    net.query = nn.Parameter(torch.randn(1, 1, 6))
    return net, (torch.randn(3, 4, 6),)


@entry((6, 1))
def written_by_index():
    """Rows added into zeros, out of place."""

    def forward(net, x):
        h = net.inp(x).relu()
        base = torch.zeros(4, 6, dtype=x.dtype)
        summed = base.index_add(0, torch.tensor([0, 1, 2, 3, 0, 1, 2, 3]), h)
        spread = base.scatter(0, torch.zeros(8, 6, dtype=torch.int64), h[:1].expand(8, 6))
        placed = base.index_put((torch.tensor([1, 3]),), h[:2])
        return net.out(summed + spread + placed)

    return Net(forward, inp=nn.Linear(3, 6), out=nn.Linear(6, 2)), (torch.randn(8, 3),)
