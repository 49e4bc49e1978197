"""Steps for sequences: attention of every kind, recurrent nets, einsum over two tensors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.symmetry.fuzz._layers import parameter
from tests.symmetry.fuzz._nets import Draw, Step, Unfit, kind


def _sequence(x):
    """Return any tensor as (samples, times, features)."""
    return x[:, None] if x.ndim == 2 else x.flatten(1, -2)


def _heads(h, n):
    """(samples, times, n x width) as (samples, n, times, width)."""
    return h.unflatten(-1, (n, -1)).transpose(1, 2)


def _joined(h):
    return h.transpose(1, 2).flatten(2)


@kind("attention")
def multihead(draw: Draw, x, y):
    width, causal = x.shape[-1], draw.flag()
    heads = draw.choice([n for n in (1, 2, 3) if width % n == 0])
    options = {"bias": draw.flag(), "add_bias_kv": draw.flag(), "batch_first": True}

    def run(m, x, y):
        h = _sequence(x)
        mask = torch.ones(h.shape[1], h.shape[1]).triu(1).bool() if causal else None
        return h + m.a(h, h, h, need_weights=False, attn_mask=mask)[0]

    return Step(run, a=nn.MultiheadAttention(width, heads, **options))


@kind("attention")
def encoder_layer(draw: Draw, x, y):
    width = x.shape[-1]
    heads = draw.choice([n for n in (1, 2, 3) if width % n == 0])
    options = {
        "dim_feedforward": draw.size(),
        "dropout": 0.0,
        "norm_first": draw.flag(),
        "batch_first": True,
        "activation": draw.choice(("relu", "gelu")),
        "layer_norm_eps": 0.1,
    }
    layer = nn.TransformerEncoderLayer(width, heads, **options)
    return Step(lambda m, x, y: m.a(_sequence(x)), a=layer)


@kind("attention")
def decoder_layer(draw: Draw, x, y):
    width = x.shape[-1]
    heads = draw.choice([n for n in (1, 2, 3) if width % n == 0])
    layer = nn.TransformerDecoderLayer(
        width, heads, draw.size(), 0.0, batch_first=True, layer_norm_eps=0.1
    )
    parts = {"a": layer, "memory": nn.Linear(y.shape[-1], width)}
    return Step(lambda m, x, y: m.a(_sequence(x), m.memory(_sequence(y))), **parts)


_MASKS = {
    "none": lambda n: None,
    "inf": lambda n: torch.full((n, n), float("-inf")).triu(1),
    "bool": lambda n: torch.ones(n, n, dtype=torch.bool).tril(),
    "numbers": lambda n: -torch.arange(n).float()[:, None].sub(torch.arange(n).float()).abs(),
    "eye": lambda n: torch.eye(n),
}


@kind("attention")
def scaled_dot_product(draw: Draw, x, y):
    n, qk, v = draw.choice((1, 2, 3)), draw.choice((2, 3)), draw.choice((2, 3))
    mask, causal = draw.choice(_MASKS), draw.flag()
    width = x.shape[-1]
    parts = {
        "q": nn.Linear(width, n * qk),
        "k": nn.Linear(width, n * qk, draw.flag()),
        "v": nn.Linear(width, n * v),
        "o": nn.Linear(n * v, width),
    }

    def run(m, x, y):
        h = _sequence(x)
        q, k, v = (_heads(part(h), n) for part in (m.q, m.k, m.v))
        made = None if causal else _MASKS[mask](h.shape[1])
        h = F.scaled_dot_product_attention(q, k, v, made, is_causal=causal)
        return m.o(_joined(h))

    return Step(run, **parts)


@kind("attention")
def attention_by_hand(draw: Draw, x, y):
    n, width, feature = draw.choice((2, 3)), x.shape[-1], draw.choice((2, 3))
    over = draw.choice((-1, -1, -2, 1, 2))
    act = draw.choice(("softmax", "relu", "sigmoid", "square"))
    mask, norm = draw.choice(_MASKS), draw.choice(("none", "none", "layer", "unit", "affine"))
    parts = {"qkv": nn.Linear(width, 3 * n * feature), "o": nn.Linear(n * feature, draw.size())}
    if norm == "affine":
        parts["norm"] = nn.LayerNorm(feature, eps=0.1)
    mixed = draw.choice(("none", "none", "heads"))
    if mixed == "heads":
        parts["mix"] = nn.Conv2d(n, n, 1)
    packing = draw.choice(("three first", "heads first", "chunk"))

    def run(m, x, y):
        h = _sequence(x)
        packed = m.qkv(h)
        if packing == "three first":
            q, k, v = packed.unflatten(-1, (3, n, feature)).permute(2, 0, 3, 1, 4)
        elif packing == "heads first":
            q, k, v = packed.unflatten(-1, (n, 3, feature)).transpose(1, 2).unbind(3)
        else:
            q, k, v = (_heads(part, n) for part in packed.chunk(3, -1))
        if norm == "layer":
            q, k = (F.layer_norm(t, t.shape[-1:], eps=0.1) for t in (q, k))
        if norm == "unit":
            q, k = (F.normalize(t, dim=-1, eps=0.1) for t in (q, k))
        if norm == "affine":
            q, k = m.norm(q), m.norm(k)
        scores = q @ k.transpose(-1, -2) / math.sqrt(feature)
        made = _MASKS[mask](h.shape[1])
        if made is not None:
            scores = scores.masked_fill(~made, -1e9) if mask == "bool" else scores + made.clamp(-9)
        if mixed == "heads":
            scores = m.mix(scores)
        scores = scores.softmax(over) if act == "softmax" else getattr(torch, act)(scores)
        return m.o(_joined(scores @ v))

    return Step(run, **parts)


@kind("attention")
def grouped_query(draw: Draw, x, y):
    n, share, feature = draw.choice((1, 2, 3)), draw.choice((2, 3)), 2
    width, how = x.shape[-1], draw.choice(("enable", "interleave", "repeat", "expand", "view"))
    parts = {
        "q": nn.Linear(width, n * share * feature),
        "k": nn.Linear(width, n * feature),
        "v": nn.Linear(width, n * feature),
        "o": nn.Linear(n * share * feature, draw.size()),
    }

    def run(m, x, y):
        h = _sequence(x)
        q, k, v = _heads(m.q(h), n * share), _heads(m.k(h), n), _heads(m.v(h), n)
        if how == "enable":
            h = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            return m.o(_joined(h))
        if how == "view":
            q = q.unflatten(1, (n, share))
            h = (q @ k[:, :, None].transpose(-1, -2)).softmax(-1) @ v[:, :, None]
            return m.o(_joined(h.flatten(1, 2)))
        if how == "interleave":
            k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
        elif how == "repeat":
            k, v = k.repeat(1, share, 1, 1), v.repeat(1, share, 1, 1)
        else:
            k, v = (t[:, :, None].expand(-1, -1, share, -1, -1).flatten(1, 2) for t in (k, v))
        return m.o(_joined((q @ k.transpose(-1, -2)).softmax(-1) @ v))

    return Step(run, **parts)


@kind("attention")
def rotary(draw: Draw, x, y):
    n, feature, width = draw.choice((1, 2)), draw.choice((2, 4)), x.shape[-1]
    parts = {name: nn.Linear(width, n * feature) for name in "qkv"}
    halves = draw.flag()

    def turned(t):
        times = torch.arange(t.shape[-2], dtype=t.dtype)[:, None]
        angles = times / 10.0 ** torch.arange(feature // 2, dtype=t.dtype)
        cos, sin = angles.cos(), angles.sin()
        if halves:
            a, b = t.chunk(2, -1)
            return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
        a, b = t[..., ::2], t[..., 1::2]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)

    def run(m, x, y):
        h = _sequence(x)
        q, k, v = turned(_heads(m.q(h), n)), turned(_heads(m.k(h), n)), _heads(m.v(h), n)
        return _joined(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    return Step(run, **parts)


@kind("attention")
def linear_attention(draw: Draw, x, y):
    n, feature, width = draw.choice((1, 2, 3)), draw.choice((2, 3)), x.shape[-1]
    parts = {name: nn.Linear(width, n * feature) for name in "qkv"}
    q_over, k_over = draw.choice((-1, -2, 1)), draw.choice((-1, -2, 1))

    def run(m, x, y):
        h = _sequence(x)
        q, k = _heads(m.q(h), n).softmax(q_over), _heads(m.k(h), n).softmax(k_over)
        return _joined(torch.einsum("bhde,bhtd->bhte", k.transpose(-1, -2) @ _heads(m.v(h), n), q))

    return Step(run, **parts)


@kind("attention")
def cross_attention(draw: Draw, x, y):
    a, b, width = x.shape[-1], y.shape[-1], draw.size()
    parts = {"q": nn.Linear(a, width), "k": nn.Linear(b, width), "v": nn.Linear(b, a)}
    over = draw.choice((-1, -2))

    def run(m, x, y):
        q, other = m.q(_sequence(x)), _sequence(y)
        scores = torch.einsum("btd,bsd->bts", q, m.k(other)).softmax(over)
        return _sequence(x) + torch.bmm(scores, m.v(other))

    return Step(run, **parts)


@kind("attention")
def channel_attention(draw: Draw, x, y):
    width, over = x.shape[-1], draw.choice((-1, -2))
    parts = {"q": nn.Linear(width, draw.size()), "k": nn.Linear(width, draw.size())}

    def run(m, x, y):
        h = _sequence(x)
        scores = m.q(h).transpose(1, 2) @ m.k(h)
        return m.k(h) @ scores.softmax(over).transpose(1, 2)

    return Step(run, **parts)


@kind("attention")
def learned_queries(draw: Draw, x, y):
    n, width = draw.size(), x.shape[-1]

    def run(m, x, y):
        h = _sequence(x)
        return (torch.einsum("qd,btd->bqt", m.p, h) / 2).softmax(-1) @ h

    return Step(run, p=parameter(n, width))


@kind("recurrent")
def recurrent(draw: Draw, x, y):
    make = draw.choice((nn.RNN, nn.LSTM, nn.GRU))
    options = {
        "num_layers": draw.choice((1, 1, 2)),
        "bidirectional": draw.flag(),
        "bias": draw.flag(),
        "batch_first": True,
    }
    width, use = draw.choice((2, 3)), draw.choice(("output", "last", "state"))
    if make is nn.LSTM and draw.flag() and width > 2:
        options["proj_size"] = 2

    def run(m, x, y):
        out, state = m.a(_sequence(x))
        if use == "output":
            return out
        if use == "last":
            return out[:, -1]
        state = state[0] if isinstance(state, tuple) else state
        return state.transpose(0, 1).flatten(1)

    return Step(run, a=make(x.shape[-1], width, **options))


@kind("recurrent")
def cell(draw: Draw, x, y):
    make, width = draw.choice((nn.RNNCell, nn.GRUCell, nn.LSTMCell)), draw.size()
    start = draw.choice(("none", "zeros", "new_zeros", "learned"))
    parts = {"cell": make(x.shape[-1], width)}
    if start == "learned":
        parts["p"] = parameter(width)

    def run(m, x, y):
        h, made = _sequence(x), []
        state = {
            "none": lambda: None,
            "zeros": lambda: torch.zeros(len(h), width),
            "new_zeros": lambda: h.new_zeros(len(h), width),
            "learned": lambda: m.p.expand(len(h), width),
        }[start]()
        if make is nn.LSTMCell and state is not None:
            state = state, state
        for t in range(min(h.shape[1], 3)):
            state = m.cell(h[:, t], state)
            made.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(made, 1)

    return Step(run, **parts)


@kind("recurrent")
def unrolled(draw: Draw, x, y):
    width, zeros = draw.size(), draw.flag()
    parts = {"a": nn.Linear(x.shape[-1], width), "b": nn.Linear(width, width, False)}

    def run(m, x, y):
        inputs, made = _sequence(x), []
        h = torch.zeros(width) if zeros else torch.zeros(len(x), width)
        for t in range(min(inputs.shape[1], 3)):
            h = (m.a(inputs[:, t]) + m.b(h)).tanh()
            made.append(h)
        return torch.stack(made, 1)

    return Step(run, **parts)


@kind("recurrent")
def state_space(draw: Draw, x, y):
    """A diagonal recurrence with a state for every feature."""
    width, n = x.shape[-1], draw.choice((2, 3))
    parts = {"decay": parameter(width, n), "into": nn.Linear(width, n), "out": parameter(width, n)}

    def run(m, x, y):
        inputs, made = _sequence(x), []
        h = torch.zeros(len(x), width, n)
        for t in range(min(inputs.shape[1], 3)):
            x_t = inputs[:, t]
            h = h * m.decay.sigmoid() + x_t[..., None] * m.into(x_t)[:, None]
            made.append((h * m.out).sum(-1))
        return torch.stack(made, 1)

    return Step(run, **parts)


@kind("two tensors")
def stash(draw: Draw, x, y):
    return Step(lambda m, x, y: (x, x))


@kind("two tensors")
def swap(draw: Draw, x, y):
    return Step(lambda m, x, y: (y, x))


@kind("two tensors")
def meet(draw: Draw, x, y):
    """Both live tensors in one, where their shapes are alike."""
    if x.shape != y.shape:
        raise Unfit
    axis = draw.axis(x)
    acts = {
        "add": lambda x, y: x + y,
        "mul": lambda x, y: x * y,
        "maximum": torch.maximum,
        "cat": lambda x, y: torch.cat([x, y], axis),
        "stack": lambda x, y: torch.stack([x, y], axis),
        "where": lambda x, y: torch.where(x > y, x, y.sin()),
        "lerp": lambda x, y: torch.lerp(x, y, 0.3),
        "huber": lambda x, y: F.huber_loss(x, y, reduction="none") + x,
        "isclose": lambda x, y: x * torch.isclose(x, y, atol=0.5),
        "hstack": lambda x, y: torch.hstack([x, y]),
        "cosine": lambda x, y: x * F.cosine_similarity(x, y, axis, 0.1).unsqueeze(axis),
        "distance": lambda x, y: x * F.pairwise_distance(x, y, 2, 0.1).unsqueeze(-1),
        "softmax": lambda x, y: x * y.softmax(axis),
        "complex": lambda x, y: torch.complex(x, y).angle() + torch.complex(x, y).abs(),
        "cross": lambda x, y: x - (x * y).sum(axis, keepdim=True) * y,
        "smooth": lambda x, y: F.smooth_l1_loss(x, y, reduction="none") - y,
    }
    act = acts[draw.choice(acts)]
    return Step(lambda m, x, y: act(x, y))


@kind("two tensors")
def meet_projected(draw: Draw, x, y):
    shape, act = x.shape[1:], draw.choice((torch.add, torch.mul, torch.maximum))
    layer = nn.Linear(y[0].numel(), shape.numel())
    return Step(lambda m, x, y: act(x, m.a(y.flatten(1)).view(-1, *shape)), a=layer)


@kind("two tensors")
def joined_flat(draw: Draw, x, y):
    return Step(lambda m, x, y: torch.cat([x.flatten(1), y.flatten(1)], 1))


@kind("two tensors")
def product(draw: Draw, x, y):
    how = draw.choice(("bmm", "outer", "bti,bsi->bts", "bti,bsj->btj", "bti,bsi->bti", "kron"))
    if how == "kron":
        weight = parameter(2, 2)
        return Step(
            lambda m, x, y: F.linear(x, torch.kron(m.w, torch.eye(x.shape[-1] // 2))), w=weight
        )

    def run(m, x, y):
        a, b = _sequence(x), _sequence(y)
        if how == "bmm":
            return torch.bmm(a, b.transpose(1, 2))
        if how == "outer":
            return torch.einsum("bi,bj->bij", a.mean(1), b.mean(1))
        return torch.einsum(how, a, b)

    return Step(run)


@kind("two tensors")
def odd_einsum(draw: Draw, x, y):
    h = _sequence(x)
    size, width, times = draw.size(), h.shape[-1], h.shape[1]
    equation, shape = draw.choice(
        (
            ("bti,ij->btj", (width, size)),
            ("bti,tij->bj", (times, width, size)),
            ("bti,tj->bij", (times, size)),
            ("bti,ti->bt", (times, width)),
            ("bti,tji->btj", (times, size, width)),
            ("bti,bsi,ij->btj", (width, size)),
            ("bti,bti,tj->bj", (times, size)),
            ("bti,ii->bti", (width, width)),
        )
    )
    twice = equation.count(",") == 2

    def run(m, x, y):
        h = _sequence(x)
        return torch.einsum(equation, h, h, m.w) if twice else torch.einsum(equation, h, m.w)

    return Step(run, w=parameter(*shape))
