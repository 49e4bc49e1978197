"""Nets in which nothing moves."""

from __future__ import annotations

import torch
from torch import nn

from tests.symmetry.zoo._entries import Net, entry


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
