"""Small valid things that base calls are made of: nets, samples, fitted estimators, tables."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

import sklmc
from sklmc.connectivity import loss_plane
from sklmc.features import linear_regions
from sklmc.nets import MLP
from sklmc.symmetry import discover_symmetry

ROWS, FEATURES, CLASSES = 40, 2, 3


def net(**changes):
    """Return an untrained NetClassifier that a test can afford to fit."""
    return sklmc.NetClassifier(
        **{"module__width": 3, "max_epochs": 1, "batch_size": 20, "random_state": 0} | changes
    )


def module(seed=0, **changes):
    """Return a net as torch has it, with weights of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MLP(**{"n_features": FEATURES, "n_outputs": CLASSES, "width": 4} | changes)


class World:
    """Things that are made when they are first asked for."""

    @functools.cached_property
    def X(self):
        return np.random.default_rng(0).normal(size=(ROWS, FEATURES))

    @functools.cached_property
    def y(self):
        return np.arange(ROWS) % CLASSES

    @functools.cached_property
    def nets(self):
        return [module(seed) for seed in range(3)]

    @functools.cached_property
    def a(self):
        return self.nets[0]

    @functools.cached_property
    def b(self):
        return self.nets[1]

    @functools.cached_property
    def fitted(self):
        return net().fit(self.X, self.y)

    @functools.cached_property
    def ensemble(self):
        return sklmc.DeepEnsemble(net(), 2, random_state=0).fit(self.X, self.y)

    @functools.cached_property
    def grid(self):
        grid = sklmc.ModelGrid(net(), {"lr": [0.01, 0.02]}, n_estimators=2, random_state=0)
        return grid.fit(self.X, self.y)

    @functools.cached_property
    def symmetry(self):
        return discover_symmetry(self.a)

    @functools.cached_property
    def permutation(self):
        return self.symmetry.random_permutation(0)

    @functools.cached_property
    def group(self):
        return self.symmetry.groups[0]

    @functools.cached_property
    def path(self):
        return sklmc.LMCScorer(n_alphas=3).path(self.a, self.b, self.X, self.y)

    @functools.cached_property
    def pairs(self):
        return sklmc.LMCScorer(n_alphas=3).pairwise(self.nets, self.X, self.y)

    @functools.cached_property
    def clusters(self):
        return self.pairs.cluster()

    @functools.cached_property
    def plane(self):
        return loss_plane(self.nets, self.X, self.y, n_points=3)

    @functools.cached_property
    def regions(self):
        return linear_regions(self.a, ((-1.0, 1.0), (-1.0, 1.0)))

    @functools.cached_property
    def folder(self):
        self._folder = tempfile.TemporaryDirectory(prefix="sklmc-hostile-")
        return Path(self._folder.name)

    @functools.cached_property
    def saved(self):
        path = self.folder / "permutation.safetensors"
        self.permutation.save(path)
        return path

    @functools.cached_property
    def saved_model(self):
        path = self.folder / "model.safetensors"
        sklmc.save_model(self.a, path)
        return path

    @functools.cached_property
    def images(self):
        path = self.folder / "mnist.npz"
        pixels = np.zeros((4, 28, 28), dtype=np.uint8)
        labels = np.arange(4)
        np.savez(path, X_train=pixels, y_train=labels, X_test=pixels, y_test=labels)
        return self.folder

    # -- what is wrong with a model -------------------------------------------------------

    @functools.cached_property
    def other(self):
        return module(width=5)

    @functools.cached_property
    def diverged(self):
        one = module(5)
        with torch.no_grad():
            one.layers[0].weight[0, 0] = float("nan")
        return one

    @functools.cached_property
    def on_meta(self):
        return module(6).to("meta")

    @functools.cached_property
    def lazy(self):
        return torch.nn.Sequential(torch.nn.LazyLinear(4), torch.nn.ReLU(), torch.nn.Linear(4, 3))

    @functools.cached_property
    def pipeline(self):
        return make_pipeline(PCA(2), net()).fit(self.X, self.y)
