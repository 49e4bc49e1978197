"""What forward makes in float32 is proved in float64, or the evidence says that it was not."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from sklmc import discover_symmetry
from sklmc.symmetry._proof._runners import NARROW_TOLERANCE, TOLERANCE


class Casting(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step = step
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.c(self.b(self.step(self.a(x))).relu())


CASTS = {
    "float": lambda h: h.float().tanh(),
    "to": lambda h: h.to(torch.float32).tanh(),
    "type": lambda h: h.type(torch.FloatTensor).tanh(),
    "zeros": lambda h: h + torch.zeros(8, dtype=torch.float32),
    "eye": lambda h: h @ torch.eye(8, dtype=torch.float32),
    "softmax": lambda h: functional.softmax(h, -1, dtype=torch.float32),
    "norm": lambda h: (h.float() * h.float().pow(2).mean(-1, keepdim=True).rsqrt()).type_as(h),
    "half": lambda h: h.bfloat16().float().tanh(),
}


@pytest.mark.parametrize("step", CASTS.values(), ids=CASTS)
def test_casts_are_proved_in_float64(step):
    symmetry = discover_symmetry(Casting(step), torch.randn(6, 4))
    assert [group.size for group in symmetry.groups] == [8, 8]
    evidence = symmetry.evidence
    assert (evidence["dtype"], evidence["tolerance"]) == ("float64", TOLERANCE)
    assert evidence["error"] < 1e-14


@pytest.fixture(scope="module")
def only_single():
    @torch.library.custom_op("sklmc_tests::only_single", mutates_args=())
    def only_single(x: torch.Tensor) -> torch.Tensor:
        if x.dtype is not torch.float32:
            raise RuntimeError("only float32")
        return x.tanh()

    only_single.register_fake(torch.empty_like)
    return only_single


def test_an_operation_that_runs_in_float32_alone_is_proved_there(only_single):
    symmetry = discover_symmetry(Casting(lambda h: only_single(h)), torch.randn(6, 4))
    assert [group.name for group in symmetry.groups] == ["b"]
    evidence = symmetry.evidence
    assert (evidence["dtype"], evidence["tolerance"]) == ("float32", NARROW_TOLERANCE)
    assert "(float32); with the net" in symmetry._repr_html_()
