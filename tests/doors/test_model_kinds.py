"""Each kind of model through each verb: what comes out is what plain modules give."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sklmc import (
    EnsembleMerger,
    LMCScorer,
    NetClassifier,
    PermutationAligner,
    discover_symmetry,
    explain_barrier,
    merge_models,
    repair,
    select_output,
)
from sklmc.features import layerwise_linear_connectivity, variance_ratio
from sklmc.models import view
from tests.doors.kinds import OneInput, X, Y
from tests.doors.test_doors import numbers, trained

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Fields(nn.Module):
    """Returns its logits under a name of its own."""

    def __init__(self, seed=0):
        super().__init__()
        self.inner = trained(OneInput, seed)

    def forward(self, x):
        return {"scores": self.inner(x), "loss": x.sum()}


class Outcome:
    """What a model of a library returns."""

    def __init__(self, logits):
        self.loss, self.logits = None, logits


class Pretrained(nn.Module):
    """Stands for a model of texts: a configuration, a way to be saved, an object as output."""

    def __init__(self, seed=0):
        super().__init__()
        self.config = {"seed": seed}
        self.inner = trained(OneInput, seed)

    def save_pretrained(self, folder):
        torch.save(self.state_dict(), folder / "model.bin")

    def forward(self, x, labels=None):
        return Outcome(self.inner(x))


def skorch_net(seed: int) -> NeuralNetClassifier:
    """Return a skorch net with the weights of a plain module."""
    net = NeuralNetClassifier(OneInput, criterion=nn.CrossEntropyLoss, train_split=None)
    net.initialize().module_.load_state_dict(trained(OneInput, seed).state_dict())
    return net


def our_net(seed: int) -> NetClassifier:
    """Return a net of ours with the weights of a plain module."""
    net = NetClassifier(OneInput, max_epochs=1, batch_size=48, random_state=0).fit(X, Y)
    net.module_.load_state_dict(trained(OneInput, seed).state_dict())
    return net


def scaled(seed: int):
    """Return a Pipeline that scales by one and shifts by nothing before the net."""
    scaler = StandardScaler().fit(X)
    scaler.mean_, scaler.var_, scaler.scale_ = (np.full(3, v) for v in (0.0, 1.0, 1.0))
    pipeline = make_pipeline(scaler, skorch_net(seed))
    return pipeline


KINDS = {
    "module": functools.partial(trained, OneInput),
    "skorch": skorch_net,
    "NetClassifier": our_net,
    "frozen": lambda seed: FrozenEstimator(our_net(seed)),
    "Pipeline": scaled,
    "selected output": lambda seed: select_output(Fields(seed), "scores"),
    "pretrained": Pretrained,
}


def tensors(model) -> list[np.ndarray]:
    """Return the tensors of any kind of model."""
    return [t.double().numpy() for t in view(model, caller="test").state.values()]


VERBS = {
    "discover_symmetry": lambda a, b: [
        np.array([group.size for group in discover_symmetry(a, X).groups])
    ],
    "align: weight": lambda a, b: tensors(PermutationAligner("weight").fit_transform(a, b, X)),
    "align: activation": lambda a, b: tensors(
        PermutationAligner("activation").fit_transform(a, b, X)
    ),
    "align: straight_through": lambda a, b: tensors(
        PermutationAligner("straight_through", max_iter=2, random_state=0).fit_transform(a, b, X, Y)
    ),
    "merge": lambda a, b: tensors(merge_models([a, b], repair=None, aligner=None)),
    "merge: aligned, refit": lambda a, b: tensors(
        merge_models([a, b], X, aligner="weight", repair="refit")
    ),
    "EnsembleMerger": lambda a, b: tensors(
        EnsembleMerger([a, b], aligner="weight", repair="refit", target="mean", random_state=0)
        .fit(X, Y)
        .estimator_
    ),
    "repair: batch_norm": lambda a, b: tensors(repair(a, [a, b], X, method="batch_norm")),
    "path": lambda a, b: numbers(LMCScorer(n_alphas=4).path(a, b, X, Y)),
    "path: aligned, calibrated": lambda a, b: numbers(
        LMCScorer(n_alphas=4, aligner="weight", calibration="crossfit").path(a, b, X, Y)
    ),
    "pairwise": lambda a, b: numbers(LMCScorer(n_alphas=4).pairwise([a, b], X, Y)),
    "LLFC": lambda a, b: numbers(layerwise_linear_connectivity(a, b, X)),
    "variance_ratio": lambda a, b: numbers(variance_ratio(a, b, X)),
    "explain_barrier": lambda a, b: numbers(explain_barrier(a, b, X, Y).rises),
}


@functools.cache
def outcome(verb: str, kind: str) -> list[np.ndarray]:
    """Run a verb on two models of a kind."""
    return VERBS[verb](KINDS[kind](0), KINDS[kind](1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", VERBS)
def test_every_kind_of_model_goes_through_every_verb(verb, kind):
    found, expected = outcome(verb, kind), outcome(verb, "module")
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_is_of_the_kind_that_went_in(kind, tmp_path):
    a, b = KINDS[kind](0), KINDS[kind](1)
    merged = merge_models([a, b], X, aligner="weight", repair="renormalize")
    assert type(merged) is type(a)
    if kind == "pretrained":
        assert merged.config == a.config
        merged.save_pretrained(tmp_path)
        assert (tmp_path / "model.bin").exists()
