"""What a symmetry claims, put to the test on a net's own weights in float64.

Uniform random elements find a wrong claim; one transposition in one copy, and a permutation of
some of the copies, show claims that hold only where all copies move alike.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch

from sklmc.symmetry import PermutationGroup

EXACT = 1e-10  # rounding in float64, over nets a few layers deep
N_DRAWS = 4  # of each kind


def elements(groups, random: np.random.RandomState) -> Iterator[dict[str, np.ndarray]]:
    """Yield elements that move all groups at once: uniformly, by one exchange, in some copies."""
    for kind in (_uniform, _exchange, _some_copies):
        for _ in range(N_DRAWS):
            yield {group.name: kind(group, random) for group in groups}


def _uniform(group: PermutationGroup, random) -> np.ndarray:
    return group.draw(random)


def _exchange(group: PermutationGroup, random) -> np.ndarray:
    """Two units of one copy change places."""
    array = group.identity()
    one = tuple(random.randint(size) for size in group.outer_sizes)
    i, j = random.choice(group.size, 2, replace=False)
    array[one][[i, j]] = array[one][[j, i]]
    return array


def _some_copies(group: PermutationGroup, random) -> np.ndarray:
    """About half of the copies move."""
    some = np.asarray(random.random_sample(group.outer_sizes) < 0.5)
    return np.where(some[..., None], group.draw(random), group.identity())


def changes_of_outputs(net, X, symmetry, seed: int = 0) -> list[float]:
    """Return the largest change of every output in eval mode, relative to its largest entry."""
    net = copy.deepcopy(net).double().eval()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in _tuple(X))
    before = _outputs(net, inputs)
    changes = [0.0] * len(before)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for arrays in elements(symmetry.groups, np.random.RandomState(seed)):
        net.load_state_dict(symmetry.apply_state(state, symmetry.permutation(arrays)))
        for i, (old, new) in enumerate(zip(before, _outputs(net, inputs), strict=True)):
            change = float((new - old).abs().max() / old.abs().max())
            changes[i] = max(changes[i], change) if change == change else np.inf
    return changes


def _outputs(net, inputs) -> list[torch.Tensor]:
    with torch.no_grad():
        found = net(*inputs)
    return [value.clone() for value in _tuple(found)]


def _tuple(value) -> tuple:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)
