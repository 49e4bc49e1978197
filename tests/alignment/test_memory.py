"""What a search holds beside the nets, and that it finds the same whatever it may hold."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from sklmc.alignment._descent import CoordinateDescent
from sklmc.alignment._tensor_pairs import block_pairs
from sklmc.nets import MLP
from sklmc.symmetry import discover_symmetry


def encoder():
    return nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True).eval()


KINDS = {
    "perceptron": (lambda: MLP(n_features=5, n_outputs=3, width=12, depth=3), None),
    "attention": (encoder, torch.randn(2, 3, 8)),
}


@pytest.fixture(params=KINDS)
def pair(request):
    build, X = KINDS[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        a, b = build(), build()
    return a.state_dict(), b.state_dict(), discover_symmetry(a, X)


def descend(a, b, symmetry, room=None):
    descent = CoordinateDescent(block_pairs(a, b, symmetry), symmetry.groups)
    if room is not None:
        descent._room = room
    result = descent.run(dict(symmetry.identity()), 100)
    return result, sum(gram.nbytes for gram in descent._grams.values())


@pytest.mark.parametrize("room", [0, 1200])
def test_search_finds_the_same_whatever_room_it_has(pair, room):
    free, held_free = descend(*pair)
    tight, held = descend(*pair, room=room)
    assert held <= room < held_free
    assert free.objective_path == tight.objective_path
    for name, perm in free.perms.items():
        np.testing.assert_array_equal(perm, tight.perms[name])


# Peak of an alignment, in units of the memory of both nets: A and B are 1, what the search and the
# copies for `similarity_` hold comes on top. The nets are small enough for a test, so that what
# would be kept for speed whatever their size is bounded by their size here as well; the first
# alignment loads what any loads. MALLOC_MMAP_THRESHOLD_ lets freed memory leave the process.
PEAK = 3.0
SCRIPT = """
import resource, sys, torch
from torch import nn
from sklmc import PermutationAligner, discover_symmetry
from sklmc.alignment import _descent

def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

class Net(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.embedding = nn.Embedding(1000, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 8, 4 * width, dropout=0.0, batch_first=True)
            for _ in range(depth)
        )
        self.head = nn.Linear(width, 2)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(dim=1))

_descent.ROOM = 0
torch.set_num_threads(1)
X = torch.arange(8).reshape(2, 4)

def pair(width, depth):
    torch.manual_seed(0)
    a = Net(width, depth).eval()
    symmetry = discover_symmetry(a, X, verify=False)
    return a, symmetry.apply(a, symmetry.random_permutation(0)), symmetry

a, b, symmetry = pair(16, 1)
PermutationAligner(symmetry=symmetry).fit(a, b).transform(b)
before = held()
a, b, symmetry = pair(384, 8)
models = 2 * sum(p.nbytes for p in a.parameters())
moved = PermutationAligner(symmetry=symmetry).fit(a, b).transform(b)
found = all(torch.equal(p, q) for p, q in zip(a.parameters(), moved.parameters()))
print(found, (peak() - before) / models)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_alignment_takes_less_than_three_times_both_nets():
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=env
    )
    found, share = done.stdout.split()
    assert found == "True"
    assert 1.0 < float(share) < PEAK
