"""A permuted copy of a net comes back bit for bit, whatever the net is made of."""

import pytest
import torch
from torch import nn

from sklmc import PermutationAligner
from sklmc.nets import VGG11, ResNet20
from sklmc.symmetry import discover_symmetry


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(16, 24, 3, padding=1)
        self.grouped = nn.Conv2d(24, 24, 3, padding=1, groups=4)
        self.last = nn.Conv2d(24, 16, 3)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.grouped(torch.relu(self.first(x))))
        return self.head(torch.relu(self.last(x)).mean((2, 3)))


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(16, 24, 3)
        self.norm = nn.BatchNorm2d(24)
        self.depthwise = nn.Conv2d(24, 24, 3, groups=24)
        self.pointwise = nn.Conv2d(24, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.depthwise(torch.relu(self.norm(self.first(x))))
        return self.head(torch.relu(self.pointwise(x)).mean((2, 3)))


class Concatenated(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(100, 20), nn.Linear(100, 30)
        self.both, self.head = nn.Linear(50, 40), nn.Linear(40, 10)

    def forward(self, x):
        x = torch.relu(torch.cat([self.left(x), self.right(x)], -1))
        return self.head(torch.relu(self.both(x)))


class Residual(nn.Module):
    def __init__(self, n_features):
        super().__init__()
        self.stem, self.head = nn.Linear(n_features, 30), nn.Linear(30, 3)
        self.up = nn.ModuleList(nn.Linear(30, 50) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(50, 30) for _ in range(2))

    def forward(self, x):
        x = self.stem(x)
        for up, down in zip(self.up, self.down):
            x = x + down(torch.relu(up(x)))
        return self.head(x)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(100, 16), nn.Linear(24, 5)
        self.lstm = nn.LSTM(16, 24, batch_first=True)

    def forward(self, x):
        return self.head(self.lstm(torch.relu(self.stem(x)))[0])


def attention():
    layers = (nn.TransformerEncoderLayer(32, 4, 64, batch_first=True) for _ in range(2))
    return nn.Sequential(nn.Linear(100, 32), *layers, nn.Linear(32, 10))


NETS = {
    "grouped convolution": (Grouped, (8, 16, 8, 8), 20),
    "depthwise convolution": (Depthwise, (8, 16, 8, 8), 20),
    "concatenation": (Concatenated, (8, 100), 20),
    "attention with heads": (attention, (8, 5, 100), 20),
    "recurrent": (Recurrent, (8, 5, 100), 20),
    "residual": (lambda: Residual(100), (8, 100), 20),
    # a plain descent from the identity finds 26 of 60 of these
    "narrow residual": (lambda: Residual(2), (8, 2), 60),
    "ResNet-20, batch norm": (lambda: ResNet20(norm="batch"), (8, 3, 32, 32), 5),
    "ResNet-20, layer norm": (lambda: ResNet20(norm="layer"), (8, 3, 32, 32), 5),
    "VGG-11": (lambda: VGG11(width_multiplier=0.5, norm="batch"), (8, 3, 32, 32), 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_planted_permutation_comes_back(name):
    build, shape, n_seeds = NETS[name]
    symmetry, recovered = None, 0
    for seed in range(n_seeds):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            a = build().eval()
            symmetry = symmetry or discover_symmetry(a, torch.randn(shape))
        b = symmetry.apply(a, symmetry.random_permutation(seed))
        moved = PermutationAligner(symmetry=symmetry).fit_transform(a, b)
        pairs = zip(a.state_dict().values(), moved.state_dict().values())
        recovered += all(torch.equal(p, q) for p, q in pairs)
    assert recovered == n_seeds
