"""Nets behind different scalers are brought to one input, exactly, or refused by name."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import cross_validate
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from torch import nn

from sklmc import (
    LMCScorer,
    MultiAligner,
    NetClassifier,
    PermutationAligner,
    average_models,
    discover_symmetry,
    merge_models,
)
from sklmc.features import linear_regions
from sklmc.models import view_together

EXACT = 1e-6  # of the largest logit, in float32
FAST = {"max_epochs": 3, "module__width": 6, "random_state": 0}
X, Y = make_classification(150, 6, n_informative=4, random_state=0)
X = X * np.array([1, 10, 0.1, 3, 1, 50]) + np.array([0, 5, 1, -2, 0, 100])

CHAINS = {
    "standard": lambda: [StandardScaler()],
    "standard without mean": lambda: [StandardScaler(with_mean=False)],
    "standard without scale": lambda: [StandardScaler(with_std=False)],
    "min-max": lambda: [MinMaxScaler((-1, 2))],
    "max-abs": lambda: [MaxAbsScaler()],
    "robust": lambda: [RobustScaler()],
    "chain": lambda: [MinMaxScaler(), make_pipeline(StandardScaler(), RobustScaler())],
    "none": list,
}


def halves(make, net=None):
    """Two Pipelines whose scalers saw different data."""
    net = NetClassifier(**FAST) if net is None else net
    return [
        make_pipeline(*make(), clone_with(net, k)).fit(X[k::2] * (1 + k), Y[k::2]) for k in range(2)
    ]


def clone_with(net, seed):
    return type(net)(**{**net.get_params(deep=False), "random_state": seed})


def logits(look):
    return look.module(next(look.to_input(X).blocks())[0]).detach()


@pytest.mark.parametrize("first", ["standard", "none"])
@pytest.mark.parametrize("second", CHAINS)
def test_folded_net_gives_the_same_on_raw_samples(first, second):
    a, b = halves(CHAINS[first])[0], halves(CHAINS[second])[1]
    looks = view_together([a, b], "test", ["a", "b"])
    wanted = logits(view_together([b], "test", ["b"])[0])
    assert (logits(looks[1]) - wanted).abs().max() <= 10 * EXACT * wanted.abs().max()
    folded = looks[1].model
    assert np.abs(folded.predict_proba(X) - b.predict_proba(X)).max() < 1e-5
    if first == "standard":
        assert folded[0] is a[0]
    else:
        assert len(folded.steps) == 1


def test_perceptrons_are_folded_in_float64():
    a, b = halves(CHAINS["standard"], MLPClassifier(5, tol=10))
    folded = view_together([a, b], "test", ["a", "b"])[1].model
    assert np.abs(folded.predict_proba(X) - b.predict_proba(X)).max() < EXACT


@pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning")
def test_nets_of_cross_validation_are_merged_aligned_and_scored():
    pipe = make_pipeline(StandardScaler(), NetClassifier(**FAST))
    nets = cross_validate(pipe, X, Y, cv=3, return_estimator=True)["estimator"]
    before = [net[-1].module_.state_dict()["layers.0.weight"].clone() for net in nets]
    merged = merge_models(nets, X, Y)
    assert isinstance(merged, Pipeline)
    assert merged[0] is nets[0][0]
    score = LMCScorer(aligner="weight").pairwise(nets, X, Y)
    errors = [np.mean(net.predict(X) != Y) for net in nets]
    assert [score.error[0, 0], *score.error[:2, -1]] == pytest.approx(errors)
    assert LMCScorer(aligner="merge_many").pairwise(nets, X, Y).n_models == 3
    for net, weight in zip(nets, before):
        assert torch.equal(net[-1].module_.state_dict()["layers.0.weight"], weight)


def test_alignment_finds_units_behind_another_scaler():
    a, _ = halves(CHAINS["standard"])
    symmetry = discover_symmetry(a)
    moved = symmetry.apply(a, symmetry.random_permutation(random_state=0))
    scaler = StandardScaler().fit(3 * X + 1)
    b = view_together([scaler_only(scaler, a), moved], "test", ["a", "b"])[1].model
    assert b[0] is scaler
    aligned = PermutationAligner().fit_transform(a, b)
    assert aligned[0] is scaler
    assert np.abs(aligned.predict_proba(X) - a.predict_proba(X)).max() < 1e-4
    state = average_models([a, aligned])[-1].module_.state_dict()
    for name, tensor in a[-1].module_.state_dict().items():
        assert torch.allclose(state[name], tensor, atol=1e-5)
    many = MultiAligner(random_state=0).fit_transform([a, b])
    assert np.abs(many[1].predict_proba(X) - a.predict_proba(X)).max() < 1e-4


def scaler_only(scaler, model):
    return Pipeline([("scaler", scaler), ("net", model[-1])])


def test_equal_earlier_steps_are_shared_whatever_they_are():
    a, b = halves(lambda: [PCA(4, random_state=0)])
    other = make_pipeline(PCA(4, random_state=0).fit(X[::2], Y[::2]), b[-1])
    assert merge_models([a, other], X)[0] is a[0]
    chains = [
        make_pipeline(a[0], scaler.fit(a[0].transform(X)), net[-1])
        for scaler, net in ((StandardScaler(), a), (MinMaxScaler(), b))
    ]
    assert merge_models(chains, X)[1] is chains[0][1]


@pytest.mark.parametrize(
    "steps, said",
    [
        (lambda: [PCA(4)], r"'pca' \(PCA\) cannot be folded"),
        (lambda: [SelectKBest(k=4)], r"'selectkbest' \(SelectKBest\) cannot be folded"),
        (lambda: [MinMaxScaler(clip=True)], r"MinMaxScaler\(clip=True\)\) cannot be folded"),
        (lambda: [StandardScaler(), PCA(4)], r"'pca' \(PCA\) cannot be folded"),
    ],
)
def test_other_unequal_steps_are_refused_by_name(steps, said):
    with pytest.raises(ValueError, match=said):
        merge_models(halves(steps))


class FirstLayer(nn.Module):
    """A net whose input does not go into a linear layer with a bias, or not only."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.norm = nn.BatchNorm1d(6)
        self.conv = nn.Conv1d(1, 2, 3, padding=1)
        self.linear = nn.Linear(6, 6, bias=kind != "no bias")
        self.out = nn.Linear(12 if kind == "conv" else 6, 2)

    def forward(self, x):
        if self.kind == "conv":
            return self.out(self.conv(x[:, None]).flatten(1))
        if self.kind == "norm":
            x = self.norm(x)
        if self.kind == "function":
            x = x.tanh()
        hidden = self.linear(x)
        return self.out(hidden + x if self.kind == "residual" else hidden)


@pytest.mark.parametrize(
    "kind, said",
    [
        ("conv", "first layer 'conv' is a Conv1d"),
        ("norm", "first layer 'norm' is a BatchNorm1d"),
        ("function", "no linear layer takes its input as it is"),
        ("residual", "uses its input beyond its first layer 'linear'"),
        ("no bias", "first layer 'linear' has no bias"),
    ],
)
def test_first_layers_that_cannot_take_a_scaler_are_refused_by_name(kind, said):
    net = NetClassifier(FirstLayer, module__kind=kind, max_epochs=1, random_state=0)
    with pytest.raises(ValueError, match=f"'models\\[1\\]'.*{said}"):
        merge_models(halves(CHAINS["standard"], net))


def test_two_linear_layers_on_the_input_are_both_folded():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.value, self.gate = nn.Linear(6, 4), nn.Linear(6, 4)
            self.out = nn.Linear(4, 2)

        def forward(self, x):
            return self.out(self.value(x) * self.gate(x).sigmoid())

    net = NetClassifier(Gated, max_epochs=1, random_state=0)
    a, b = halves(CHAINS["standard"], net)
    folded = view_together([a, b], "test", ["a", "b"])[1].model
    assert np.abs(folded.predict_proba(X) - b.predict_proba(X)).max() < 1e-5


def test_regions_are_those_of_a_net_and_not_of_its_scaler():
    a, _ = halves(CHAINS["standard"])
    with pytest.raises(TypeError, match=r"'model' is a Pipeline.*last step"):
        linear_regions(a, ((0, 1), (0, 1)))
