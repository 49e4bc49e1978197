"""Small nets of every kind, each with arguments for forward and the groups that it must have.

Groups are written as (size, copies); the order does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

ZOO: dict[str, Entry] = {}


@dataclass
class Entry:
    """How to build a net, and what must be found in it."""

    build: Callable[[], tuple[nn.Module, tuple]]
    groups: list[tuple[int, int]] = field(default_factory=list)

    def make(self) -> tuple[nn.Module, tuple]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net, inputs = self.build()
            for name, buffer in net.named_buffers():
                # fresh statistics hide what is forgotten about them
                if name.endswith("running_mean"):
                    buffer.copy_(0.2 * torch.randn_like(buffer))
                elif name.endswith("running_var"):
                    buffer.copy_(torch.rand_like(buffer) + 0.5)
            return net, inputs


def entry(*groups: tuple[int, int]):
    """Register a builder with its groups."""

    def register(build):
        ZOO[build.__name__] = Entry(build, sorted(groups))
        return build

    return register


def images(channels: int = 3, size: int = 8, n: int = 4) -> tuple:
    return (torch.randn(n, channels, size, size),)


class Net(nn.Module):
    """A module whose forward is given as a function of itself and the inputs."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, *inputs):
        return self._forward(self, *inputs)


# -- chains ------------------------------------------------------------------------------------


@entry((7, 1), (9, 1))
def mlp():
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 3))
    return net, (torch.randn(8, 5),)


@entry((7, 1), (9, 1))
def mlp_norms():
    first = [nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(0.3)]
    second = [nn.Linear(7, 9), nn.LayerNorm(9), nn.GELU(), nn.Linear(9, 3)]
    return nn.Sequential(*first, *second), (torch.randn(8, 5),)


@entry((5, 1), (7, 1))
def conv_batch_norm():
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Conv2d(5, 7, 3),
        nn.BatchNorm2d(7),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(7, 4),
    )
    return net, images()


@entry((6, 1), (5, 1))
def depthwise():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.Conv2d(6, 5, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 4),
    )
    return net, images()


@entry((6, 1), (8, 1))
def two_branches():
    def forward(net, x):
        return net.out(torch.cat([net.a(x).relu(), net.b(x).relu()], 1))

    net = Net(forward, a=nn.Linear(5, 6), b=nn.Linear(5, 8), out=nn.Linear(14, 3))
    return net, (torch.randn(8, 5),)


class ResidualMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.out = nn.Linear(5, 8), nn.Linear(8, 3)
        self.up = nn.ModuleList(nn.Linear(8, 12) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(12, 8) for _ in range(2))

    def forward(self, x):
        x = self.inp(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(up(x).relu())
        return self.out(x)


@entry((8, 1), (12, 1), (12, 1))
def residual_mlp():
    return ResidualMLP(), (torch.randn(8, 5),)


@entry((5, 1))
def conv_flatten():
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 4))
    return net, images()


@entry((8, 1))
def linear_used_twice():
    def forward(net, x):
        x = net.inp(x)
        return net.out(net.twice(net.twice(x).relu()).relu())

    net = Net(forward, inp=nn.Linear(5, 8), twice=nn.Linear(8, 8), out=nn.Linear(8, 3))
    return net, (torch.randn(8, 5),)


# -- attention ---------------------------------------------------------------------------------


@entry((4, 1), (4, 4), (4, 4), (32, 1))
def encoder_layer():
    return nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), (torch.randn(3, 6, 16),)


@entry((16, 1), *2 * [(4, 1), (4, 4), (4, 4), (32, 1)])
def two_encoder_layers():
    layers = [nn.TransformerEncoderLayer(16, 4, 32, batch_first=True) for _ in range(2)]
    return nn.Sequential(nn.Linear(5, 16), *layers, nn.Linear(16, 3)), (torch.randn(3, 6, 5),)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.source, self.target = nn.Linear(5, 12), nn.Linear(5, 12)
        self.body = nn.Transformer(12, 3, 1, 1, 20, batch_first=True)
        self.out = nn.Linear(12, 3)

    def forward(self, source, target):
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.out(
            self.body(self.source(source), self.target(target), tgt_mask=mask, tgt_is_causal=True)
        )


@entry((12, 1), (12, 1), *3 * [(3, 1), (4, 3), (4, 3)], (20, 1), (20, 1))
def transformer():
    return Transformer(), (torch.randn(3, 6, 5), torch.randn(3, 4, 5))


def rotary(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * cos + turned * sin


class GroupedQueryAttention(nn.Module):
    """Llama's attention: rotary positions, fewer key-value heads than query heads."""

    def __init__(self, width=24, heads=6, kv_heads=2, size=4):
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, size
        self.q = nn.Linear(width, heads * size, bias=False)
        self.k = nn.Linear(width, kv_heads * size, bias=False)
        self.v = nn.Linear(width, kv_heads * size, bias=False)
        self.o = nn.Linear(heads * size, width, bias=False)
        frequencies = 1.0 / (100.0 ** (torch.arange(0, size, 2).float() / size))
        self.register_buffer("inv_freq", frequencies, persistent=False)

    def forward(self, x):
        n, t, _ = x.shape
        q = self.q(x).view(n, t, self.heads, self.size).transpose(1, 2)
        k = self.k(x).view(n, t, self.kv_heads, self.size).transpose(1, 2)
        v = self.v(x).view(n, t, self.kv_heads, self.size).transpose(1, 2)
        angles = torch.outer(torch.arange(t).float(), self.inv_freq)
        angles = torch.cat([angles, angles], -1)
        q, k = (rotary(z, angles.cos(), angles.sin()) for z in (q, k))
        repeats = self.heads // self.kv_heads
        k, v = (
            z[:, :, None].expand(n, self.kv_heads, repeats, t, self.size).flatten(1, 2)
            for z in (k, v)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(n, t, -1))


class LlamaBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(24), nn.RMSNorm(24)
        self.attention = GroupedQueryAttention()
        self.gate, self.up = nn.Linear(24, 20, bias=False), nn.Linear(24, 20, bias=False)
        self.down = nn.Linear(20, 24, bias=False)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


@entry((24, 1), *2 * [(2, 1), (3, 2), (4, 2), (20, 1)])
def llama():
    body = nn.Sequential(LlamaBlock(), LlamaBlock(), nn.RMSNorm(24))
    return nn.Sequential(nn.Embedding(11, 24), body, nn.Linear(24, 11)), (
        torch.randint(11, (3, 5)),
    )


class GPTBlock(nn.Module):
    def __init__(self, width=24, heads=3):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 40), nn.Linear(40, width)
        self.register_buffer("mask", torch.tril(torch.ones(5, 5, dtype=torch.bool)))

    def forward(self, x):
        n, t, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(width, dim=2)
        q, k, v = (z.view(n, t, self.heads, -1).transpose(1, 2) for z in (q, k, v))
        scores = q @ k.transpose(-2, -1) / math.sqrt(k.shape[-1])
        scores = scores.masked_fill(~self.mask[:t, :t], float("-inf"))
        y = F.softmax(scores, -1) @ v
        x = x + self.proj(y.transpose(1, 2).reshape(n, t, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Learned positions, output tied to the embedding."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, 24), nn.Embedding(5, 24)
        self.blocks = nn.Sequential(GPTBlock(), GPTBlock())
        self.norm = nn.LayerNorm(24)
        self.head = nn.Linear(24, 11, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x):
        places = torch.arange(x.shape[1])
        return self.head(self.norm(self.blocks(self.tokens(x) + self.positions(places))))


@entry((24, 1), *2 * [(3, 1), (8, 3), (8, 3), (40, 1)])
def gpt():
    return GPT(), (torch.randint(11, (3, 5)),)


class ViT(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 5, width))
        layer = nn.TransformerEncoderLayer(width, 3, 40, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.norm(self.body(x))[:, 0])


@entry((24, 1), *2 * [(3, 1), (8, 3), (8, 3), (40, 1)])
def vit():
    return ViT(), images()


# -- recurrent ---------------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self, kind, last=False, width=6, **options):
        super().__init__()
        self.inp = nn.Linear(5, width)
        self.rnn = kind(width, 8, batch_first=True, **options)
        ways = 2 if options.get("bidirectional") else 1
        self.out = nn.Linear(options.get("proj_size", 0) or 8, 3)
        self.out = nn.Linear(self.out.in_features * ways, 3)
        self.last = last

    def forward(self, x):
        y, final = self.rnn(self.inp(x))
        if self.last:
            return self.out(final[0][-1] if isinstance(final, tuple) else final[-1])
        return self.out(y)


@entry((6, 1), (8, 1))
def lstm():
    return Recurrent(nn.LSTM), (torch.randn(3, 4, 5),)


@entry((6, 1), (8, 1), (8, 1))
def lstm_two_layers_last_state():
    return Recurrent(nn.LSTM, last=True, num_layers=2), (torch.randn(3, 4, 5),)


@entry((6, 1), (8, 1), (8, 1))
def lstm_bidirectional():
    return Recurrent(nn.LSTM, bidirectional=True), (torch.randn(3, 4, 5),)


@entry((6, 1), (8, 1), (4, 1))
def lstm_projected():
    return Recurrent(nn.LSTM, proj_size=4), (torch.randn(3, 4, 5),)


@entry((6, 1), (8, 1), (8, 1))
def gru_two_layers():
    return Recurrent(nn.GRU, num_layers=2), (torch.randn(3, 4, 5),)


@entry((6, 1), (8, 1), (8, 1))
def rnn_bidirectional():
    return Recurrent(nn.RNN, bidirectional=True), (torch.randn(3, 4, 5),)


class CellLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRUCell(5, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = torch.zeros(len(x), 8, dtype=x.dtype)
        for step in range(x.shape[1]):
            h = self.cell(x[:, step], h)
        return self.out(h)


@entry((8, 1))
def gru_cell():
    return CellLoop(), (torch.randn(3, 4, 5),)


class LSTMCellLoop(CellLoop):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(5, 8)

    def forward(self, x):
        state = None
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return self.out(state[0])


@entry((8, 1))
def lstm_cell():
    return LSTMCellLoop(), (torch.randn(3, 4, 5),)


# -- groups of channels ------------------------------------------------------------------------


@entry((2, 1), (4, 2), (6, 1))
def group_norm():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    return net, images()


@entry((4, 1), (2, 4), (3, 4))
def grouped_conv():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, groups=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    )
    return net, images()


@entry((2, 1), (4, 2), (4, 1))
def group_norm_over_concatenation():
    def forward(net, x):
        x = torch.cat([net.a(x), net.b(x)], 1)
        return net.out(net.norm(x).relu().mean((2, 3)))

    net = Net(
        forward,
        a=nn.Conv2d(3, 8, 3),
        b=nn.Conv2d(3, 4, 3),
        norm=nn.GroupNorm(3, 12),
        out=nn.Linear(12, 4),
    )
    return net, images()


@entry((6, 1), (9, 1))
def instance_norm_prelu():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
        nn.PReLU(6),
        nn.Conv2d(6, 9, 3),
        nn.PReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(9, 4),
    )
    return net, images()


@entry((6, 1), (3, 2))
def conv_transpose():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 6, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 2, groups=2),
    )
    return net, images()


@entry((4, 1))
def pixel_shuffle():
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(4, 2, 3))
    return net, images()


@entry((5, 1))
def pixel_unshuffle():
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.PixelUnshuffle(2), nn.Conv2d(20, 2, 1))
    return net, images()


@entry((4, 2), (2, 1), (2, 1), (2, 4), (3, 2))
def channel_shuffle():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1, groups=2),
        nn.ChannelShuffle(2),
        nn.Conv2d(8, 6, 1, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    return net, images()


@entry((6, 1))
def upsample():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.ReLU(),
        nn.Conv2d(6, 2, 3, padding=1, padding_mode="reflect"),
    )
    return net, images()


# -- weights in disguise -----------------------------------------------------------------------


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


# -- deep image nets ---------------------------------------------------------------------------


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.transition, self.out = nn.Conv2d(18, 9, 1), nn.Linear(9, 4)

    def forward(self, x):
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(norm(torch.cat(features, 1)).relu()))
        return self.out(self.transition(torch.cat(features, 1)).relu().mean((2, 3)))


@entry((6, 1), (4, 1), (4, 1), (4, 1), (9, 1))
def dense_net():
    return DenseNet(), images()


class BasicBlock(nn.Module):
    def __init__(self, n_in, n_out, stride, shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)
        self.pad = None
        self.shortcut = nn.Identity()
        if stride > 1 or n_in != n_out:
            if shortcut == "pad":
                self.pad = (n_out - n_in) // 2
            else:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
                )

    def forward(self, x):
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        if self.pad is not None:
            return (y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))).relu()
        return (y + self.shortcut(x)).relu()


def small_resnet(shortcut, widths=(4, 8, 16), blocks=1):
    layers: list[nn.Module] = [
        nn.Conv2d(3, widths[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    n_in = widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(BasicBlock(n_in, width, stride, shortcut))
            n_in = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, 4)]
    return nn.Sequential(*layers)


@entry((4, 1), (8, 1), (16, 1), (4, 1), (8, 1), (16, 1))
def resnet_projected():
    return small_resnet("project"), images()


@entry((4, 1), (4, 1), (8, 1), (8, 1), (4, 1), (16, 1))
def resnet_padded():
    return small_resnet("pad"), images()


class ConvNeXtBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.gamma = nn.Parameter(1e-6 * torch.ones(width))

    def forward(self, x):
        y = self.norm(self.conv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


@entry((8, 1), (16, 1), (12, 1), (24, 1))
def conv_next():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 2, 2),
        ConvNeXtBlock(8),
        nn.GroupNorm(1, 8),
        nn.Conv2d(8, 12, 2, 2),
        ConvNeXtBlock(12),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(12),
        nn.Linear(12, 4),
    )
    return net, images()


# -- nothing moves -----------------------------------------------------------------------------


def frozen_by(step):
    return Net(
        lambda net, x: net.out(step(net.inp(x))), inp=nn.Linear(5, 6), out=nn.Linear(6, 3)
    ), (torch.randn(8, 5),)


@entry()
def flipped():
    return frozen_by(lambda h: h + h.flip(-1))


@entry()
def accumulated():
    return frozen_by(lambda h: h.cumsum(-1))


@entry()
def ramp():
    return frozen_by(lambda h: h * torch.arange(6, dtype=h.dtype))


# -- more shapes that nets have ----------------------------------------------------------------


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


# -- tensors that are uniform along an axis until an operation makes it otherwise ----------------


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
