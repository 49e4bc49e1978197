"""Trainings whose every step is written down, for averages along them."""

import copy

import numpy as np
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit

from sklmc import NetClassifier
from sklmc.models import view

X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(np.int64)

PAGES = {"step": [], "epoch": []}  # a clone of the net keeps a diary in the same place


class Diary(Callback):
    """Writes down the module after each step and each epoch."""

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            PAGES["step"].append(copy.deepcopy(net.module_))

    def on_epoch_end(self, net, **kwargs):
        PAGES["epoch"].append(copy.deepcopy(net.module_).eval())


def net(*callbacks, **parameters):
    """Return a small net: 48 samples to train on in 3 steps an epoch, 12 to validate on."""
    parameters = {
        "module__width": 6,
        "max_epochs": 6,
        "batch_size": 16,
        "train_split": ValidSplit(5),
        "random_state": 0,
        **parameters,
    }
    return NetClassifier(callbacks=list(callbacks), **parameters)


def run(average, *behind, **parameters):
    """Train with a diary before the average; return the net, the callback and the pages."""
    for pages in PAGES.values():
        pages.clear()
    fitted = net(("diary", Diary()), ("average", average), *behind, **parameters).fit(X, Y)
    return fitted, average_of(fitted), {unit: list(pages) for unit, pages in PAGES.items()}


def average_of(fitted):
    """Return the averaging callback of a net."""
    return dict(fitted.callbacks_)["average"]


def bits(model):
    """Return the tensors of a model, byte for byte."""
    return [tensor.numpy().tobytes() for tensor in view(model, caller="test").state.values()]
