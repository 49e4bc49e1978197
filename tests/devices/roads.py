"""Every public road on nets of a device: what it returns, and how much may cross to get there.

What crosses for a reason: samples come from CPU memory in blocks; outputs go back to be scored;
assignment problems are solved on the CPU (a matrix out, a permutation in); what names a net by its
values (the digests of aligners and scorers, the population that scorers share with their workers)
reads each weight once; refit solves its regressions on the CPU ("auto" for each target, and the one
that it chose again on all samples); a net is run once on a few samples
to see whether it keeps something from one call to the next. A read is one number that decides
what happens next (a loss for the history, an objective, a change of an output).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import make_blobs
from skorch.dataset import ValidSplit
from torch import nn

import sklmc
from sklmc import features
from sklmc.merging import SiteCoordinator, site_moments
from sklmc.nets import MLP

N_SAMPLES = 200


@dataclasses.dataclass(frozen=True)
class Road:
    """`run(world)` returns models and numbers; so many tensors and reads may cross at most."""

    run: Callable
    to_device: int
    to_cpu: int
    reads: int


class World:
    """Data in CPU memory, and nets that lie on one device."""

    def __init__(self, device: str):
        self.device = device
        X, self.y = make_blobs(N_SAMPLES, n_features=3, centers=3, random_state=0)
        self.X = X.astype(np.float32)
        self.images = np.random.default_rng(0).normal(size=(N_SAMPLES, 1, 6, 6)).astype(np.float32)
        self.mlps = [placed(MLP(3, 3, width=8), seed, device) for seed in range(3)]
        self.flat = placed(MLP(2, 2, width=4), 0, device)
        self.convs = [placed(conv_net(), seed, device) for seed in range(2)]
        self.pair, self.data = self.mlps[:2], (self.X, self.y)

    def net(self, kind=sklmc.NetClassifier):
        """Return an untrained net for this device."""
        settings = {"max_epochs": 2, "batch_size": 50, "random_state": 0}
        return kind(module__width=8, device=self.device, **settings)

    def fitted(self) -> sklmc.NetClassifier:
        """Return a trained classifier on this device."""
        return self.net().fit(*self.data)


def conv_net() -> nn.Module:
    """A convolution with batch norm, and what follows it."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )


def placed(module: nn.Module, seed: int, device: str) -> nn.Module:
    """Return a copy on a device, with weights that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return copy.deepcopy(module).eval().to(device)


def _symmetry(model, X=None):
    found = sklmc.discover_symmetry(model, X)
    return [f"{group.name} {group.size}" for group in found.groups]


def _aligned(world, method: str, **settings):
    aligner = sklmc.PermutationAligner(method, random_state=0, **settings)
    return aligner.fit(*world.pair, *world.data).transform(world.pair[1])


def _multi(world, method: str, aligner="weight"):
    aligner = sklmc.MultiAligner(method, aligner=aligner, random_state=0)
    return aligner.fit(world.mlps, world.X).transform(world.mlps)


def _ensemble(world, kind=sklmc.NetClassifier, y=None, **settings):
    ensemble = sklmc.DeepEnsemble(world.net(kind), 2, random_state=0, **settings)
    return ensemble.fit(world.X, world.y if y is None else y).estimators_


def _merge_convs(world, repair: str, target: str = "auto"):
    return sklmc.merge_models(world.convs, world.images, world.y, repair=repair, target=target)


def _sites(world):
    coordinator = SiteCoordinator(world.convs, world.images)
    while (request := coordinator.next_request()) is not None:
        for site, net in zip(coordinator.sites, coordinator.models_):
            coordinator.add(site_moments(request, net, world.images, site=site))
    return coordinator.merge()


def _curves(score) -> list:
    return [score.loss, score.error]


def _reduced(world):
    return features.RedundancyReducer().fit(world.mlps[0], world.X).transform(world.mlps[0])


def _grid(world):
    grid = sklmc.ModelGrid(world.net(), {"lr": [0.01, 0.02]}, n_estimators=2, random_state=0)
    return [cell.estimators for cell in grid.fit(*world.data).cells_]


def _soup(world):
    soup = sklmc.GreedySoup(world.net(), {"lr": [0.01, 0.02]}, random_state=0)
    return soup.fit(*world.data).estimator_


def _search(world):
    population = sklmc.DeepEnsemble(world.net(), 2, random_state=0)
    return sklmc.WidthSearchCV(population, start=4, max_width=4, cv=2).fit(*world.data).best_score_


def _averaged(world, **settings):
    averager = sklmc.WeightAverager(world.net(), 2, random_state=0, **settings)
    return averager.fit(*world.data).estimator_


def _swa(world):
    return sklmc.SWAEnsembler(world.net(), n_snapshots=2, random_state=0).fit(*world.data)


def _moving_average(world):
    net = world.net().set_params(
        module__norm="batch",
        train_split=ValidSplit(5),
        callbacks=[("ema", sklmc.merging.ExponentialMovingAverage(0.9))],
    )
    halves = copy.deepcopy(net.fit(*world.data)).partial_fit(*world.data)
    return [halves, np.array(halves.history[:, "valid_loss_avg"])]


ROADS = {
    # training
    "fit": Road(lambda w: w.fitted(), 20, 1, 8),
    "fit a regressor": Road(lambda w: w.net(sklmc.NetRegressor).fit(w.X, w.X[:, 0]), 20, 1, 8),
    "predict_proba": Road(lambda w: w.fitted().predict_proba(w.X), 24, 5, 8),
    "ensemble, one by one": Road(lambda w: _ensemble(w, vectorize=False), 40, 4, 16),
    "ensemble, vectorized": Road(lambda w: _ensemble(w, vectorize=True), 31, 12, 0),
    "regressors, vectorized": Road(
        lambda w: _ensemble(w, sklmc.NetRegressor, w.X[:, 0], vectorize=True), 31, 12, 0
    ),
    "grid": Road(lambda w: _grid(w), 70, 32, 0),
    "width search": Road(lambda w: _search(w), 125, 116, 18),
    # symmetry
    "symmetry of an MLP": Road(lambda w: _symmetry(w.mlps[0]), 24, 8, 84),
    "symmetry of a convolution": Road(lambda w: _symmetry(w.convs[0], w.images), 44, 18, 84),
    # alignment
    "align by weight": Road(lambda w: _aligned(w, "weight"), 5, 13, 9),
    "align by activation": Road(lambda w: _aligned(w, "activation"), 9, 12, 3),
    "align straight through": Road(
        lambda w: _aligned(w, "straight_through", max_iter=2), 39, 30, 35
    ),
    "align by auto": Road(lambda w: _aligned(w, "auto", max_iter=2), 127, 81, 150),
    "align many, merge_many": Road(lambda w: _multi(w, "merge_many"), 58, 53, 253),
    "align many, reference": Road(lambda w: _multi(w, "reference", "activation"), 62, 27, 178),
    # merging
    "average": Road(lambda w: sklmc.average_models(w.mlps), 0, 4, 0),
    "interpolate": Road(lambda w: sklmc.interpolate_models(*w.pair, 0.5), 0, 3, 0),
    "merge, auto": Road(lambda w: sklmc.merge_models(w.mlps, *w.data), 173, 217, 18),
    "merge, batch_norm": Road(lambda w: _merge_convs(w, "batch_norm"), 12, 30, 15),
    "merge, renormalize": Road(lambda w: _merge_convs(w, "renormalize"), 42, 30, 15),
    "merge, refit": Road(lambda w: _merge_convs(w, "refit", "logit"), 51, 99, 15),
    "merge, auto of convolutions": Road(lambda w: _merge_convs(w, "auto"), 158, 165, 15),
    "sites": Road(lambda w: _sites(w), 152, 148, 99),
    "averager": Road(lambda w: _averaged(w), 184, 180, 9),
    "averager, calibrated": Road(lambda w: _averaged(w, calibrate=True), 187, 182, 9),
    "moving average": Road(lambda w: _moving_average(w), 147, 48, 120),
    "SWA": Road(lambda w: _swa(w).estimator_, 37, 6, 17),
    "soup": Road(lambda w: _soup(w), 48, 20, 16),
    # scoring
    "path": Road(lambda w: _curves(sklmc.LMCScorer().path(*w.pair, *w.data)), 10, 23, 0),
    "path, aligned and repaired": Road(
        lambda w: _curves(
            sklmc.LMCScorer(aligner="weight", repair="batch_norm").path(*w.convs, w.images, w.y)
        ),
        27,
        81,
        15,
    ),
    "pairwise": Road(
        lambda w: _curves(sklmc.LMCScorer(aligner="weight").pairwise(w.mlps, *w.data)), 34, 80, 27
    ),
    "plane": Road(lambda w: _curves(sklmc.loss_plane(w.mlps, *w.data, n_points=4)), 20, 43, 0),
    # features
    "explain_barrier": Road(lambda w: sklmc.explain_barrier(*w.pair, *w.data).barrier, 24, 30, 0),
    "commutativity": Road(lambda w: features.commutativity(*w.pair, w.X), 5, 2, 18),
    "error_bound": Road(lambda w: features.error_bound(*w.pair, *w.data), 8, 11, 0),
    "feature_similarity by activation": Road(
        lambda w: features.feature_similarity(*w.pair, w.X, on="activation"), 5, 4, 0
    ),
    "feature_similarity by weight": Road(lambda w: features.feature_similarity(*w.pair), 0, 6, 0),
    "inverse_temperatures": Road(
        lambda w: features.inverse_temperatures(*w.pair, *w.data), 6, 7, 0
    ),
    "layerwise_exponential_connectivity": Road(
        lambda w: features.layerwise_exponential_connectivity(*w.pair, w.X), 6, 3, 6
    ),
    "layerwise_linear_connectivity": Road(
        lambda w: features.layerwise_linear_connectivity(*w.pair, w.X), 8, 8, 0
    ),
    "linear_regions": Road(
        lambda w: len(features.linear_regions(w.flat, ((-1, 1), (-1, 1))).polygons), 0, 5, 0
    ),
    "preactivation_scale": Road(lambda w: features.preactivation_scale(w.mlps[0], w.X), 3, 2, 0),
    "reciprocal_orthogonality": Road(
        lambda w: features.reciprocal_orthogonality(*w.pair, w.X), 5, 2, 8
    ),
    "stable_rank": Road(lambda w: features.stable_rank(w.mlps[0]), 0, 3, 0),
    "stitch_models": Road(lambda w: features.stitch_models(*w.pair, "layers.0", w.X), 3, 2, 0),
    "variance_ratio": Road(lambda w: features.variance_ratio(*w.pair, w.X), 6, 9, 0),
    "weak_additivity": Road(lambda w: features.weak_additivity(*w.pair, w.X), 5, 2, 1),
    "RedundancyReducer": Road(lambda w: _reduced(w), 27, 11, 4),
}
