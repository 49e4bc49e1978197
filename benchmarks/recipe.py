"""The nets of the merging and alignment studies: few recipes, trained once, kept in a folder.

"512x3" is the multilayer perceptron 784-512-512-512-10, "LN512x3" the same with LayerNorm: Adam at
1e-3 decayed linearly to 0, batches of 256, 10 epochs, no weight decay, pixels in [0, 1]; 55,000
images train, 5,000 are held out (for inverse temperatures and for what an aligner may see), 10,000
test. "S5" and "S4" are the multilayer perceptrons of REPAIR's authors on MNIST, "conv" and
"resnet8" small nets with batch norm that see 10,000 images of CIFAR-10.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from conv_nets import ConvNet, ResNet8
from skorch.callbacks import LRScheduler
from torch import nn

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

NETS = Path(".cache/nets")  # where benchmarks keep trained nets unless told otherwise
N_HELD = 5000
N_CIFAR = 10_000  # how many of CIFAR-10's images train


class Images(NamedTuple):
    """Float32 images and labels: to train on, held out, to test on. Digits are flat."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_held: np.ndarray
    y_held: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


class Recipe(NamedTuple):
    """A module with its arguments, and how it is trained."""

    module: type[nn.Module]
    arguments: dict
    optimizer: type[torch.optim.Optimizer] = torch.optim.Adam
    rate: float = 1e-3
    settings: dict = {}  # of the optimizer
    epochs: int = 10
    batch_size: int = 256
    warm_up: int = 0  # epochs of a rate that rises linearly, before it falls linearly to 0


REPAIR_SETTINGS = {
    "optimizer": torch.optim.SGD, "rate": 0.05, "settings": {"momentum": 0.9}, "epochs": 50,
    "warm_up": 5,
}  # fmt: skip
RECIPES = {
    "S5": Recipe(MLP, {"width": 128, "depth": 7}, batch_size=1000, **REPAIR_SETTINGS),
    "S4": Recipe(
        MLP, {"width": 128, "depth": 11, "norm": "batch"}, batch_size=2000, **REPAIR_SETTINGS
    ),
    "conv": Recipe(ConvNet, {}, rate=3e-3, epochs=20, batch_size=128, warm_up=2),
    "resnet8": Recipe(ResNet8, {}, rate=3e-3, epochs=20, batch_size=128, warm_up=2),
}


def recipe(shape: str) -> Recipe:
    """Return a recipe by name; names such as "64x3" are width and depth."""
    if shape in RECIPES:
        return RECIPES[shape]
    width, depth = (int(part) for part in shape.removeprefix("LN").split("x"))
    norm = "layer" if shape.startswith("LN") else None
    return Recipe(MLP, {"width": width, "depth": depth, "norm": norm})


def module(shape: str) -> nn.Module:
    """Return an untrained net."""
    found = recipe(shape)
    sizes = {"n_features": 784, "n_outputs": 10} if found.module is MLP else {}
    return found.module(**found.arguments, **sizes)


@cache
def images(name: str) -> Images:
    """Return a data set in the recipes' three parts; colour images standardized by channel."""
    data = load_images(name)
    X, y, X_test = data.X_train, data.y_train, data.X_test
    n_train = len(X) - N_HELD
    if name == "cifar10":
        mean, std = (f(X[:n_train], axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.std))
        X, X_test = (X - mean) / std, (X_test - mean) / std
        rows = slice(N_CIFAR)
    else:
        X, X_test = X.reshape(len(X), -1), X_test.reshape(len(X_test), -1)
        rows = slice(n_train)
    return Images(X[rows], y[rows], X[n_train:], y[n_train:], X_test, data.y_test)


def trained(
    folder: Path,
    name: str,
    shape: str,
    seed: int,
    rows=slice(None),
    part: str = "",
    epochs: int | None = None,
) -> nn.Module:
    """Return a net trained on some rows, named by `part`; from the folder if it is there."""
    path = Path(folder) / f"{name}-{shape}-{seed}{part}.safetensors"
    net = module(shape)
    if not path.exists():
        found, data = recipe(shape), images(name)
        found = found._replace(epochs=epochs or found.epochs)
        X, y = data.X_train[rows], data.y_train[rows]
        n_warm, n_steps = (
            epochs * -(-len(X) // found.batch_size) for epochs in (found.warm_up, found.epochs)
        )

        def share(step: int) -> float:
            if step < n_warm:
                return (step + 1) / n_warm
            return max(0.0, (n_steps - step) / (n_steps - n_warm))

        decay = LRScheduler(torch.optim.lr_scheduler.LambdaLR, lr_lambda=share, step_every="batch")
        fitted = NetClassifier(
            found.module, **{f"module__{key}": value for key, value in found.arguments.items()},
            optimizer=found.optimizer, lr=found.rate,
            **{f"optimizer__{key}": value for key, value in found.settings.items()},
            batch_size=found.batch_size, max_epochs=found.epochs, callbacks=[("decay", decay)],
            random_state=seed, classes=np.unique(data.y_train),
        ).fit(X, y)  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        write_state(path, fitted.module_.state_dict())
    state, _ = read_state(path)
    net.load_state_dict(state)
    return net.eval()


def quality(model, data: Images) -> tuple[float, float]:
    """Return test accuracy in percent, and test loss after one held-out inverse temperature."""
    return score(*_outputs(model, data), data)


def ensemble_quality(models, data: Images) -> tuple[float, float]:
    """Return the same of the mean of the models' probabilities."""
    return score(
        *(_mean_log(outputs) for outputs in zip(*(_outputs(m, data) for m in models))), data
    )


def fidelity(model, models, data: Images) -> tuple[float, float]:
    """Return how a model follows the mean of some: same predictions in percent, KL divergence."""
    _, own = _outputs(model, data)
    mean = _mean_log([_outputs(one, data)[1] for one in models])
    own = torch.log_softmax(own.double(), dim=1)
    same = (own.argmax(dim=1) == mean.argmax(dim=1)).double().mean()
    divergence = (mean.exp() * (mean - own)).sum(dim=1).mean()
    return 100 * float(same), float(divergence)


def score(held: torch.Tensor, test: torch.Tensor, data: Images) -> tuple[float, float]:
    """Return test accuracy in percent, and test loss after one inverse temperature, of logits."""
    targets = [torch.as_tensor(y, dtype=torch.int64) for y in (data.y_held, data.y_test)]
    beta = fit_inverse_temperature(held, targets[0], held_out=True)
    error = per_sample_error(test, targets[1], "score").mean()
    loss = per_sample_loss(test * beta, targets[1], "score").mean()
    return 100 * (1 - float(error)), float(loss)


def _outputs(model, data: Images) -> list[torch.Tensor]:
    """Return logits of held-out and test images."""
    seen = view(model, caller="quality")
    return [predict_outputs(seen, seen.to_input(X)) for X in (data.X_held, data.X_test)]


def _mean_log(outputs) -> torch.Tensor:
    """Return the log of the mean probability of several logits."""
    logs = torch.stack([torch.log_softmax(one.double(), dim=1) for one in outputs])
    return torch.logsumexp(logs, dim=0) - math.log(len(logs))
