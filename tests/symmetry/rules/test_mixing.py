"""Operations that read an axis jointly and keep it: what depends on its index must not move apart.

Between two linear layers the hidden units are viewed as (groups, units) or with one more level; an
operation then mixes along one of these axes. Labels alone, without the proof, must be right.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklmc.symmetry import discover_symmetry
from tests.symmetry.claims import EXACT, changes_of_outputs

ALONG = {  # operation along one dimension of a tensor (n, a, b) or (n, a, b, c)
    "softmax": lambda x, d: x.softmax(d),
    "log_softmax": lambda x, d: x.log_softmax(d),
    "special_softmax": lambda x, d: torch.special.softmax(x, d),
    "softmin": lambda x, d: F.softmin(x, d),
    "normalize": lambda x, d: F.normalize(x, dim=d),
    "renorm": lambda x, d: torch.renorm(x, 2, d, 1.0),
    "mean": lambda x, d: x - x.mean(d, keepdim=True),
    "amax": lambda x, d: x / (1 + x.abs().amax(d, keepdim=True)),
    "max": lambda x, d: x - x.max(d, keepdim=True).values,
    "argmax": lambda x, d: x * x.argmax(d, keepdim=True),
    "median": lambda x, d: x - x.median(d, keepdim=True).values,
    "logsumexp": lambda x, d: x - x.logsumexp(d, keepdim=True),
    "std": lambda x, d: x / (1 + x.std(d, keepdim=True)),
    "norm": lambda x, d: x / (1 + x.norm(dim=d, keepdim=True)),
    "prod": lambda x, d: x + x.prod(d, keepdim=True),
    "quantile": lambda x, d: x - x.quantile(0.3, d, keepdim=True),
    "kthvalue": lambda x, d: x - x.kthvalue(2, d, keepdim=True).values,
    "mode": lambda x, d: x - x.round().mode(d, keepdim=True).values,
    "cumsum": lambda x, d: x.cumsum(d),
    "cumprod": lambda x, d: x.cumprod(d),
    "cummax": lambda x, d: x.cummax(d).values,
    "logcumsumexp": lambda x, d: x.logcumsumexp(d),
    "flip": lambda x, d: x + x.flip(d),
    "roll": lambda x, d: x * x.roll(1, d),
    "diff": lambda x, d: x.diff(dim=d),
    "sort": lambda x, d: x.sort(d).values,
    "argsort": lambda x, d: x * x.argsort(d),
    "msort": lambda x, d: x.movedim(d, 0).msort().movedim(0, d),
    "topk": lambda x, d: x.topk(2, d).values,
    "gather": lambda x, d: x.gather(d, x.argsort(d)),
    "scatter": lambda x, d: torch.scatter(x, d, x.argsort(d), x),
    "index_select": lambda x, d: x.index_select(d, torch.arange(x.shape[d] - 1)),
    "index": lambda x, d: x.movedim(d, 0)[torch.tensor([1, 0])].movedim(0, d),
    "index_of_its_own": lambda x, d: _looked_up_by_its_own_places(x, d),
    "pad": lambda x, d: F.pad(x.movedim(d, -1), (1, 2)).movedim(-1, d),
    "reflected": lambda x, d: F.pad(x.movedim(d, -1).flatten(1, -2), (1, 0), mode="replicate"),
    "halves": lambda x, d: torch.cat([x.narrow(d, 0, 1).sin(), x.narrow(d, 1, x.shape[d] - 1)], d),
    "one_changed": lambda x, d: torch.cat([x.select(d, 0).unsqueeze(d).sin(), x], d),
    "unfold": lambda x, d: x.unfold(d, 2, 1),
    "repeat": lambda x, d: x.repeat_interleave(2, d).sin(),
    "pooled": lambda x, d: F.avg_pool1d(x.movedim(d, -1).flatten(0, -2), 2, 1).flatten(),
    "attended": lambda x, d: _attended(x.movedim(d, -2)).movedim(-2, d),
    "causal": lambda x, d: _attended(x.movedim(d, -2), is_causal=True).movedim(-2, d),
    "gram": lambda x, d: x.movedim(d, -1) @ x.movedim(d, -1).mT,
    "cosine": lambda x, d: x * F.cosine_similarity(x, x.sin(), d).unsqueeze(d),
    "cdist": lambda x, d: torch.cdist(x.movedim(d, -1), x.movedim(d, -1).sin()),
    "layer_norm": lambda x, d: F.layer_norm(x.movedim(d, -1), [x.shape[d]]).movedim(-1, d),
    "rms_norm": lambda x, d: F.rms_norm(x.movedim(d, -1), [x.shape[d]]).movedim(-1, d),
    "layer_norm_of_two": lambda x, d: F.layer_norm(x.movedim(d, 1), x.movedim(d, 1).shape[2:]),
    "instance_norm": lambda x, d: F.instance_norm(x.movedim(d, 1)).movedim(1, d),
    "group_norm": lambda x, d: F.group_norm(x.movedim(d, 1), 1).movedim(1, d),
    "group_norm_each": lambda x, d: F.group_norm(x.movedim(d, 1), x.shape[d]).movedim(1, d),
    "response_norm": lambda x, d: F.local_response_norm(x.movedim(d, 1), 2).movedim(1, d),
    "glu": lambda x, d: F.glu(torch.cat([x, x.sin()], d), d),
    "fourier": lambda x, d: torch.fft.rfft(x, dim=d).real,
    "standardised": lambda x, d: (x - x.mean(d, True)) / torch.var_mean(x, d, keepdim=True)[0],
}

SHAPES = [(3, 2), (2, 3), (2, 3, 2)]


def _looked_up_by_its_own_places(x, d):
    x = x.movedim(d, 0)
    places = torch.arange(x.shape[0])
    x = x * places.view(-1, *[1] * (x.ndim - 1))
    return x.index_select(0, (places * 2 + 1) % x.shape[0]).movedim(0, d)


def _attended(x, **options):
    return F.scaled_dot_product_attention(x, x.sin(), x.cos(), **options)


class Branches(nn.Module):
    """One branch for each shape and dimension: alone, and added to what it was made of."""

    def __init__(self, op):
        super().__init__()
        dimensions = [(shape, d) for shape in SHAPES for d in range(1, len(shape) + 1)]
        self.op, self.cases = op, []
        self.into, self.out = nn.ModuleList(), nn.ModuleList()
        for shape, d in dimensions:
            hidden = torch.randn(2, *shape)
            made = op(hidden, d)
            for added in (False, True) if made.shape == hidden.shape else (False,):
                self.cases.append((shape, d, added))
                self.into.append(nn.Linear(3, hidden[0].numel()))
                self.out.append(nn.Linear(made.numel() // 2, 2))

    def forward(self, x):
        outputs = []
        for (shape, d, added), into, out in zip(self.cases, self.into, self.out, strict=True):
            hidden = into(x).view(-1, *shape)
            made = self.op(hidden, d)
            made = made + hidden if added else made
            outputs.append(out(made.reshape(x.shape[0], -1)))
        return outputs


@pytest.mark.parametrize("name", list(ALONG))
def test_labels_alone_are_right_where_an_axis_is_read_jointly(name):
    torch.manual_seed(0)
    net, X = Branches(ALONG[name]), torch.randn(5, 3)
    symmetry = discover_symmetry(net, X, verify=False)
    changes = changes_of_outputs(net, X, symmetry)
    assert {case: c for case, c in zip(net.cases, changes, strict=True) if not c < EXACT} == {}
