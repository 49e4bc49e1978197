"""Nets with attention."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.symmetry.zoo._entries import entry, images


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
