"""Federated averaging, the baseline of sites that may talk in rounds.

Every round, each site trains the shared net on its own images for some epochs (Adam at 1e-3 with a
fresh state, batches of 256), and the nets are averaged by the sites' sizes, running statistics
included. The rate was not tuned.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from recipe import images, module
from torch.nn import functional

from sklmc import average_models
from sklmc.models import read_state, write_state

LOCAL_EPOCHS = 2
RATE = 1e-3
BATCH = 256


def averaged_rounds(
    folder: Path, name: str, shape: str, sites: list[np.ndarray], part: str, n_rounds: int
) -> list[torch.nn.Module]:
    """Return the shared net after each round, from a fresh one; from the folder if it is there."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shared = module(shape).eval()
    rounds = []
    for turn in range(1, n_rounds + 1):
        path = Path(folder) / f"{name}-{shape}-federated{part}-round{turn}.safetensors"
        if not path.exists():
            nets = [_train(shared, name, shape, rows, (turn, i)) for i, rows in enumerate(sites)]
            mean = average_models(nets, weights=[len(rows) for rows in sites])
            write_state(path, mean.state_dict())
        shared = module(shape).eval()
        shared.load_state_dict(read_state(path)[0])
        rounds.append(shared)
    return rounds


def _train(shared, name: str, shape: str, rows: np.ndarray, seeds: tuple[int, int]):
    """Return the shared net after a site's epochs on its own images."""
    data = images(name)
    X, y = torch.from_numpy(data.X_train[rows]), torch.as_tensor(data.y_train[rows]).long()
    net = module(shape)
    net.load_state_dict(shared.state_dict())
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(1000 * seeds[0] + seeds[1])
    for _ in range(LOCAL_EPOCHS):
        for batch in torch.randperm(len(X), generator=generator).split(BATCH):
            if len(batch) > 1:  # batch norm needs two
                optimizer.zero_grad()
                functional.cross_entropy(net(X[batch]), y[batch]).backward()
                optimizer.step()
    return net.eval()
