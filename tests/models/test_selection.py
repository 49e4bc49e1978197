"""Models that return objects with fields come back as what they are; another output may count."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPClassifier
from skorch import NeuralNetClassifier
from torch import nn

from sklmc import (
    LMCScorer,
    MultiAligner,
    PermutationAligner,
    discover_symmetry,
    explain_barrier,
    merge_models,
    select_output,
)
from sklmc.features import feature_similarity
from sklmc.models import run_module, view

TOKENS = torch.from_numpy(np.random.default_rng(0).integers(11, size=(60, 5)))
MASK = (torch.arange(5) < torch.arange(60)[:, None] % 4 + 2).long()
X = {"input_ids": TOKENS, "attention_mask": MASK}
Y = np.arange(60) % 3
CLOSE = 1e-5


class PreTrained(nn.Module):
    """What users meet of a model of transformers."""

    def __init__(self, width=6, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.config = SimpleNamespace(width=width)
        self.embed = nn.Embedding(11, width)
        self.hidden = nn.Linear(width, 8)
        self.classifier, self.end = nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask=None, labels=None):
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mask = mask[..., None].to(self.embed.weight.dtype)
        pooled = (self.embed(input_ids) * mask).sum(1) / mask.sum(1)
        hidden = self.hidden(pooled).relu()
        loss = None if labels is None else nn.functional.cross_entropy(hidden, labels)
        logits = self.classifier(hidden)
        return SimpleNamespace(
            loss=loss, logits=logits, end_logits=self.end(hidden), cache=object()
        )

    def save_pretrained(self, folder):
        (folder / "config.json").write_text(json.dumps(vars(self.config)))
        torch.save(self.state_dict(), folder / "model.pt")


@pytest.fixture
def pair():
    return PreTrained(seed=0), PreTrained(seed=1)


def test_merged_model_is_one_of_the_same_class(pair, tmp_path):
    merged = merge_models(pair, X, Y)
    assert type(merged) is PreTrained
    merged.save_pretrained(tmp_path)
    again = PreTrained(**json.loads((tmp_path / "config.json").read_text()))
    again.load_state_dict(torch.load(tmp_path / "model.pt"))
    assert torch.equal(again(**X).logits, merged(**X).logits)
    assert again(TOKENS, labels=torch.from_numpy(Y)).loss > 0


def test_units_are_found_aligned_and_scored(pair):
    a, b = pair
    symmetry = discover_symmetry(a, X)
    assert sorted(group.size for group in symmetry.groups) == [6, 8]
    moved = symmetry.apply(a, symmetry.random_permutation(random_state=0))
    for name in ("logits", "end_logits"):
        assert torch.allclose(getattr(moved(**X), name), getattr(a(**X), name), atol=CLOSE)
    back = PermutationAligner("activation").fit_transform(a, moved, X)
    assert torch.equal(back.hidden.weight, a.hidden.weight)
    loss = nn.functional.cross_entropy(b(**X).logits, torch.from_numpy(Y))
    score = LMCScorer(aligner="weight").path(a, b, X, Y)
    assert score.loss[-1] == pytest.approx(loss.item(), rel=CLOSE)


def test_another_output_counts_in_every_verb(pair):
    chosen = [select_output(model, "end_logits") for model in pair]
    y = Y % 2
    wanted = nn.functional.cross_entropy(pair[1](**X).end_logits, torch.from_numpy(y))
    for scorer in (LMCScorer(aligner="weight"), LMCScorer(aligner="merge_many")):
        score = scorer.pairwise(chosen, X, y)
        assert score.loss[0, -1] == pytest.approx(wanted.item(), rel=CLOSE)
    merged = merge_models(
        MultiAligner(random_state=0).fit_transform(chosen, X), X, y, repair="auto"
    )
    assert type(merged) is PreTrained
    assert torch.equal(
        run_module(view(merged, caller="f"), tuple(X.values())), merged(**X).end_logits
    )
    assert len(feature_similarity(*chosen, X, on="activation"))
    assert explain_barrier(*chosen, X, y).measures.loc[1, "loss"] > 0


def test_choice_shares_the_weights_and_leaves_the_model_alone(pair):
    model = pair[0]
    before = dict(vars(model))
    chosen = select_output(model, "end_logits")
    assert chosen.hidden.weight is model.hidden.weight
    assert vars(model) == before
    assert run_module(view(model, caller="f"), (TOKENS,)).shape == (60, 3)


def test_place_in_a_tuple_of_a_skorch_net():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 3)

        def forward(self, x):
            return self.a(x), self.b(x)

    data = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    net = NeuralNetClassifier(Two, criterion=nn.CrossEntropyLoss, verbose=0).initialize()
    chosen = select_output(net, 1)
    score = LMCScorer().path(chosen, chosen, data, Y[:30])
    loss = nn.functional.cross_entropy(
        net.module_(torch.from_numpy(data))[1], torch.from_numpy(Y[:30])
    )
    assert score.loss[0] == pytest.approx(loss.item(), rel=CLOSE)
    assert type(merge_models([chosen, chosen])) is NeuralNetClassifier


def test_messages(pair):
    with pytest.raises(TypeError, match=r"'end_logits', and no tensor 'end'"):
        run_module(view(select_output(pair[0], "end"), caller="f"), (TOKENS,))
    with pytest.raises(TypeError, match="'field' must be a name or a place in a tuple, got None"):
        select_output(pair[0], None)
    net = MLPClassifier(3, tol=10).fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(TypeError, match="MLPClassifier, which has one output"):
        select_output(net, "logits")
