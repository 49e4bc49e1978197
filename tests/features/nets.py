"""Pairs of nets whose features obey a law exactly, and nets of many kinds."""

import copy

import torch
from torch import nn

from sklmc.nets import MLP


def samples(n=40, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mlp(seed, d=3, n_outputs=4, width=8, depth=2, bias=True, norm=None):
    """A random float64 perceptron."""
    generator = torch.Generator().manual_seed(seed)
    net = MLP(d, n_outputs, width=width, depth=depth, bias=bias, norm=norm).double().eval()
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.copy_(values.abs() + 0.5 if "running_var" in name else values)
    return net


def linears(net):
    return [part for part in net.modules() if isinstance(part, nn.Linear)]


def disjoint_pair(depth=3, width=8):
    """Two bias-free nets that use different hidden units: A the first half, B the second."""
    nets = [mlp(seed, width=width, depth=depth, bias=False) for seed in (0, 1)]
    halves = slice(width // 2, None), slice(0, width // 2)
    for net, unused in zip(nets, halves):
        with torch.no_grad():
            for layer in linears(net)[:-1]:
                layer.weight[unused] = 0
            for layer in linears(net)[1:]:
                layer.weight[:, unused] = 0
    return nets


def differing_in_last_layer():
    a = mlp(0)
    b = copy.deepcopy(a)
    with torch.no_grad():
        last = linears(b)[-1]
        last.weight.copy_(torch.linspace(-1, 1, last.weight.numel()).reshape(last.weight.shape))
        last.bias.add_(1.0)
    return a, b


def scaled_pair(factor=2.0):
    """A is `factor` times B, without biases."""
    b = mlp(0, bias=False)
    a = copy.deepcopy(b)
    with torch.no_grad():
        for parameter in a.parameters():
            parameter.mul_(factor)
    return a, b


class Functional(nn.Module):
    """Convolutions with functional activations, in-place operations and a shortcut."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = nn.functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = torch.relu_(self.conv2(x)) + x
        return self.fc(x.clamp(min=0).mean(dim=(2, 3)))


def functional(seed):
    generator = torch.Generator().manual_seed(seed)
    net = Functional().double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return net


def images(n=12, seed=0):
    return torch.randn(
        n, 1, 5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
