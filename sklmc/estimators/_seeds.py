"""Which seed a net, its epochs, and the members of an ensemble or of a cell get."""

from __future__ import annotations

import secrets

import numpy as np

from sklmc._sklearn import check_random_state
from sklmc.models import name_fingerprint

_LARGEST = np.iinfo(np.int32).max


def resolve_seed(random_state) -> int:
    """Return an int as it is, a draw from a RandomState, and for None a fresh number.

    None asks the operating system, so that numpy's global generator stays as it was.
    """
    if random_state is None:
        return secrets.randbelow(_LARGEST)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(_LARGEST))
    return int(random_state)


def draw_seeds(random_state, n: int) -> list[int]:
    """Return n seeds; the first m of them do not depend on n."""
    if random_state is None:
        random_state = secrets.randbelow(_LARGEST)
    generator = check_random_state(random_state)
    return [int(generator.randint(_LARGEST)) for _ in range(n)]


def cell_seeds(root: int, params: dict, n_members: int) -> list[int]:
    """Return the seeds of a cell's members: of the root, the parameters and the index alone."""
    return [int(name_fingerprint(root, params, index), 16) % _LARGEST for index in range(n_members)]


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of one training epoch (counted from 0) of a net with this seed."""
    words = np.random.SeedSequence(seed, spawn_key=(epoch,)).generate_state(2)
    return int(words[0]) << 31 | int(words[1]) >> 1
