"""Small nets of every kind, each with arguments for forward and the groups that it must have.

Groups are written as (size, copies); the order does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
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
