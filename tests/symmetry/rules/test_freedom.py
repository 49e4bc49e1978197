"""Operations that need not freeze anything, or only the axis that they work along.

Every operation stands between two linear layers; what is claimed without the proof is true, and it
is all that is there.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklmc.symmetry import discover_symmetry
from tests.symmetry.claims import EXACT, changes_of_outputs

TABLE = torch.linspace(-1, 1, 5)


def loss(function, **options):
    return lambda x: function(x, x.sin(), reduction="none", **options)


def positive(function):
    return lambda x: function(x.sigmoid(), x.cos().abs(), reduction="none")


ELEMENTWISE = {
    "log_sigmoid": F.logsigmoid,
    "hardswish": F.hardswish,
    "expit": torch.special.expit,
    "ndtr": torch.special.ndtr,
    "absolute": torch.absolute,
    "arctan": torch.arctan,
    "multiply": lambda x: torch.multiply(x, x.sin()),
    "greater": lambda x: x * torch.greater(x, 0),
    "floor_division": lambda x: x // 0.3 + x,
    "floor_division_of_two": lambda x: x // (x.sin().abs() + 0.1) + x,
    "isclose": lambda x: x * torch.isclose(x, x.round(), atol=0.2),
    "isin": lambda x: x + torch.isin(x.round(), torch.tensor([0.0, 1.0, 5.0])),
    "huber_loss": loss(F.huber_loss),
    "smooth_l1_loss": loss(F.smooth_l1_loss),
    "l1_loss": loss(F.l1_loss),
    "mse_loss": loss(F.mse_loss),
    "mse_loss_summed": lambda x: x * F.mse_loss(x, x.sin()),
    "binary_cross_entropy": positive(F.binary_cross_entropy),
    "binary_cross_entropy_with_logits": loss(F.binary_cross_entropy_with_logits),
    "kl_div": positive(F.kl_div),
    "soft_margin_loss": lambda x: F.soft_margin_loss(x, x.detach().sign(), reduction="none"),
    "poisson_nll_loss": positive(F.poisson_nll_loss),
    "hinge_embedding_loss": lambda x: F.hinge_embedding_loss(x, x.sign(), reduction="none"),
    "margin_ranking_loss": lambda x: x * F.margin_ranking_loss(x, x.sin(), x.sign()),
    "bucketize": lambda x: x + torch.bucketize(x, TABLE),
    "searchsorted": lambda x: x + torch.searchsorted(TABLE, x),
    "absolute_in_place": lambda x: x.clone().abs_(),
    "mish_in_place": lambda x: F.mish(x.clone(), inplace=True),
    "threshold_in_place": lambda x: F.threshold(x.clone(), 0.1, -0.2, inplace=True),
    "less_in_place": lambda x: x + x.clone().lt_(x.sin()),
    "zeroed": lambda x: x + torch.empty_like(x).fill_(2.0) * x.clone().zero_(),
    "complex": lambda x: torch.complex(x, x.sin()).abs(),
    "polar": lambda x: torch.polar(x.abs() + 1, x).imag,
    "conjugate": lambda x: (torch.complex(x, x.sin()).conj() * 1j).real,
    "cast_to_complex": lambda x: (x * (1 + 2j)).angle(),
}

UNITS = {  # operation on (n, 6 units) -> groups
    "hstack": (lambda x: torch.hstack([x, x.sin()]), [(6, 1)]),
    "hstack_of_two": (lambda x: torch.hstack([x[:, :2], x[:, 2:].sin()]), [(2, 1), (4, 1)]),
    "column_stack": (lambda x: torch.column_stack([x, x.sin(), x[:, 0]]), [(5, 1)]),
    "vstack": (lambda x: torch.vstack([x, x.sin()]).unflatten(0, (2, -1)).sum(0), [(6, 1)]),
    "dstack": (lambda x: torch.dstack([x, x.sin()]).flatten(1), [(6, 1)]),
    "view_as_real": (lambda x: torch.view_as_real(torch.complex(x, x.sin())), [(6, 1)]),
    "diag_embed": (lambda x: torch.diag_embed(x), [(6, 1)]),
    "diag_embed_beside": (lambda x: torch.diag_embed(x, 1), []),
    "kron": (lambda x: torch.kron(x, torch.tensor([[1.0, 2.0]])), [(6, 1)]),
    "kron_of_ones": (lambda x: torch.kron(torch.ones(1, 2), x), [(2, 6), (6, 1)]),
    "index_fill": (lambda x: x.index_fill(1, torch.tensor([0, 2]), 1.0), []),
    "fft": (lambda x: torch.fft.fft(x).abs(), []),
    "fft_over_samples": (lambda x: torch.fft.fft(x, dim=0).abs(), [(6, 1)]),
    "eye": (lambda x: x @ (torch.eye(6).to(x) + 0.5), [(6, 1)]),
    "eye_cut": (lambda x: x @ torch.eye(6, 5).to(x), []),
    "inner": (lambda x: torch.inner(x, x.sin()[:4]), [(6, 1)]),
    "addr": (lambda x: torch.addr(x, x.mean(1), x.mean(0)), [(6, 1)]),
}

BLOCKS = {  # operation on (n, 2, 3) -> groups
    "pairwise_distance": (lambda x: F.pairwise_distance(x, x.sin()), [(2, 1), (3, 2)]),
    "pairwise_distance_kept": (
        lambda x: F.pairwise_distance(x, x.sin(), keepdim=True),
        [(2, 1), (3, 2)],
    ),
    "quantile": (lambda x: torch.quantile(x, 0.3, dim=2), [(2, 1), (3, 2)]),
    "quantile_beside": (lambda x: torch.quantile(x, 0.3, dim=1, keepdim=True), [(2, 1), (3, 1)]),
    "quantiles": (
        lambda x: torch.quantile(x, torch.tensor([0.3, 0.6]).to(x), dim=2).movedim(0, 1),
        [(2, 1), (3, 2)],
    ),
    "argsort": (lambda x: x * x.argsort(1), [(3, 1)]),
    "argsort_stable": (lambda x: x * x.argsort(dim=2, stable=True), [(2, 1)]),
    "nanmedian": (lambda x: x.nanmedian(2).values, [(2, 1), (3, 2)]),
    "fft": (lambda x: torch.fft.rfft(x, dim=1).abs(), [(3, 1)]),
    "fft2": (lambda x: torch.fft.fft2(x, dim=(0, 1)).abs(), [(3, 1)]),
    "fftn": (lambda x: torch.fft.fftn(x, s=(4,), dim=(1,)).abs(), [(3, 1)]),
    "ifft": (lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=2) * 1j, dim=2, n=3), [(2, 1)]),
    "fftshift": (lambda x: torch.fft.fftshift(x, dim=1), [(3, 1)]),
    "fftshift_everywhere": (lambda x: torch.fft.fftshift(x), []),
    "rot90": (lambda x: torch.rot90(x, 1, (1, 2)), []),
    "searchsorted_by_row": (
        lambda x: x + torch.searchsorted(x.sort(2).values, x.sin().contiguous()),
        [(2, 1), (3, 2)],
    ),
    "diagonal_of_gram": (lambda x: torch.diagonal(x @ x.mT, dim1=1, dim2=2), [(2, 1), (3, 1)]),
    "diagonal_of_gram_beside": (lambda x: torch.diagonal(x @ x.mT, 1, 1, 2), [(3, 1)]),
    "diagonal_by_letters": (lambda x: torch.einsum("nii->ni", x @ x.mT), [(2, 1), (3, 1)]),
    "diagonal_of_a_block": (lambda x: torch.diagonal(x, dim1=1, dim2=2), []),
    "tensordot": (lambda x: torch.tensordot(x, x[0].sin(), dims=([1], [0])), [(2, 1), (3, 1)]),
    "cross": (lambda x: torch.linalg.cross(x, x.sin(), dim=2), []),
}

PAIRS = {  # operation on (n, 3, 2)
    "view_as_complex": (lambda x: torch.view_as_complex(x.contiguous()).abs(), [(3, 1)]),
}

CASES = {
    **{f"{name} of units": (op, (6,), [(6, 1)]) for name, op in ELEMENTWISE.items()},
    **{f"{name} of units": (op, (6,), groups) for name, (op, groups) in UNITS.items()},
    **{f"{name} of blocks": (op, (2, 3), groups) for name, (op, groups) in BLOCKS.items()},
    **{f"{name} of pairs": (op, (3, 2), groups) for name, (op, groups) in PAIRS.items()},
}


class Between(nn.Module):
    def __init__(self, op, shape, X):
        super().__init__()
        self.op, self.shape = op, shape
        self.a = nn.Linear(X.shape[1], math.prod(shape))
        with torch.no_grad():
            self.b = nn.Linear(self.hidden(X).shape[1], 2)

    def hidden(self, x):
        return self.op(self.a(x).view(-1, *self.shape)).reshape(x.shape[0], -1)

    def forward(self, x):
        return self.b(self.hidden(x))


@pytest.mark.parametrize("name", list(CASES))
def test_freedom_that_is_there_is_found_and_true(name):
    op, shape, groups = CASES[name]
    torch.manual_seed(0)
    X = torch.randn(8, 3)
    net = Between(op, shape, X)
    symmetry = discover_symmetry(net, X, verify=False)
    assert max(changes_of_outputs(net, X, symmetry)) < EXACT
    assert sorted((group.size, group.copies) for group in symmetry.groups) == groups
