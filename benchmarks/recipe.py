"""The nets of the merging and alignment studies: one recipe, trained once, kept in a folder.

Multilayer perceptrons, Adam at 1e-3 decayed linearly to 0, batches of 256, 10 epochs, no weight
decay, pixels in [0, 1]; 55,000 images train, 5,000 are held out (for inverse temperatures and for
what an aligner may see), 10,000 test.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from skorch.callbacks import LRScheduler

from sklmc import NetClassifier
from sklmc.datasets import load_images
from sklmc.models import (
    fit_inverse_temperature,
    per_sample_error,
    per_sample_loss,
    predict_outputs,
    read_state,
    view,
    write_state,
)
from sklmc.nets import MLP

EPOCHS, BATCH_SIZE, RATE = 10, 256, 1e-3
N_TRAIN = 55_000


class Images(NamedTuple):
    """Flat float32 images and labels: to train on, held out, to test on."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_held: np.ndarray
    y_held: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def images(name: str) -> Images:
    """Return a data set in the recipe's three parts."""
    data = load_images(name)
    X, X_test = (part.reshape(len(part), -1) for part in (data.X_train, data.X_test))
    y = data.y_train
    return Images(X[:N_TRAIN], y[:N_TRAIN], X[N_TRAIN:], y[N_TRAIN:], X_test, data.y_test)


def module(shape: str) -> MLP:
    """Return an untrained net: "512x3" is 784-512-512-512-10, "LN512x3" the same with LayerNorm."""
    width, depth = (int(part) for part in shape.removeprefix("LN").split("x"))
    norm = "layer" if shape.startswith("LN") else None
    return MLP(n_features=784, n_outputs=10, width=width, depth=depth, norm=norm)


def trained(folder: Path, name: str, shape: str, seed: int) -> MLP:
    """Return a net of the recipe, from the folder if it is there."""
    path = Path(folder) / f"{name}-{shape}-{seed}.safetensors"
    net = module(shape)
    if not path.exists():
        data = images(name)
        n_steps = EPOCHS * -(-len(data.X_train) // BATCH_SIZE)
        decay = LRScheduler(
            torch.optim.lr_scheduler.LambdaLR,
            lr_lambda=lambda step: max(0.0, 1.0 - step / n_steps),
            step_every="batch",
        )
        fitted = NetClassifier(
            module__width=net.width, module__depth=net.depth, module__norm=net.norm, lr=RATE,
            batch_size=BATCH_SIZE, max_epochs=EPOCHS, callbacks=[("decay", decay)],
            random_state=seed,
        ).fit(data.X_train, data.y_train)  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        write_state(path, fitted.module_.state_dict())
    state, _ = read_state(path)
    net.load_state_dict(state)
    return net.eval()


def quality(model, data: Images) -> tuple[float, float]:
    """Return test accuracy in percent, and test loss after one held-out inverse temperature."""
    seen = view(model, caller="quality")
    held, test = (predict_outputs(seen, seen.to_input(X)) for X in (data.X_held, data.X_test))
    targets = [seen.to_target(y) for y in (data.y_held, data.y_test)]
    beta = fit_inverse_temperature(held, targets[0], held_out=True)
    error = per_sample_error(test, targets[1], "quality").mean()
    loss = per_sample_loss(test * beta, targets[1], "quality").mean()
    return 100 * (1 - float(error)), float(loss)
