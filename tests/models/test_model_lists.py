"""Whatever stands for several models is taken wherever a list of them is."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.model_selection import cross_validate
from sklearn.neural_network import MLPClassifier
from torch import nn

from sklmc import (
    DeepEnsemble,
    LMCScorer,
    MultiAligner,
    NetClassifier,
    average_models,
    loss_plane,
    merge_models,
    repair,
)
from tests.models.conftest import X, Y, chain

FAST = {"max_epochs": 2, "module__width": 4, "random_state": 0}
NAMES = np.array(["no", "yes"])[Y]


def same(a, b):
    states = [getattr(model, "module_", model).state_dict() for model in (a, b)]
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def nets(n=3):
    return [chain(seed, norm=False) for seed in range(n)]


def files(folder):
    paths = []
    for k, net in enumerate(nets()):
        paths.append(folder / f"{k}.safetensors")
        save_file(net.state_dict(), paths[-1])
    return paths


@pytest.mark.parametrize("kind", ["states", "paths", "text paths", "mixed"])
def test_one_module_with_many_states(kind, tmp_path):
    states, paths = [net.state_dict() for net in nets()], files(tmp_path)
    given = {
        "states": states,
        "paths": paths,
        "text paths": [str(path) for path in paths],
        "mixed": [states[0], *paths[1:]],
    }[kind]
    module = chain(9, norm=False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert same(merge_models((module, given)), merge_models(nets()))
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())


def test_a_skorch_net_with_states_gives_skorch_nets():
    a, b = (NetClassifier(**{**FAST, "random_state": seed}).fit(X, NAMES) for seed in range(2))
    merged = average_models((a, [net.module_.state_dict() for net in (a, b)]))
    assert same(merged, average_models([a, b]))
    assert list(merged.classes_) == ["no", "yes"]


def test_every_verb_that_takes_a_list_takes_states():
    pair = nets()[0], [net.state_dict() for net in nets()]
    assert LMCScorer().pairwise(pair, X, Y).n_models == 3
    aligner = MultiAligner(random_state=0)
    assert len(aligner.fit_transform(pair)) == len(aligner.transform(pair)) == 3
    mean = average_models(pair)
    assert same(repair(mean, pair, X), repair(mean, nets(), X))
    assert loss_plane(pair, X, Y, n_points=2).loss.shape == (2, 2)


def test_a_file_holds_tied_tensors_once(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x).relu())

    net = Tied()
    state = {name: tensor for name, tensor in net.state_dict().items() if name != "b.weight"}
    save_file(state, tmp_path / "net.safetensors")
    loaded = average_models((Tied(), [tmp_path / "net.safetensors"]))
    assert same(loaded, net)
    assert loaded.a.weight is loaded.b.weight


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda s: s.pop("0.bias"), r"tensor '0.bias' of 'models\[1\]\[1\]' is missing"),
        (lambda s: s.update({"0.bias": torch.ones(3)}), r"of shape \(3,\), but .* \(4,\)"),
        (lambda s: s.update({"new": torch.ones(3)}), r"holds the tensor 'new', which the module"),
    ],
)
def test_states_of_another_architecture_are_refused(change, said):
    states = [net.state_dict() for net in nets()]
    change(states[1])
    with pytest.raises(ValueError, match=said):
        merge_models((nets()[0], states))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    torch.save(nets()[0].state_dict(), tmp_path / "net.pt")
    (tmp_path / "bad.safetensors").write_bytes(b"12")
    for name, error, said in [
        ("net.pt", ValueError, "only .safetensors files"),
        ("none.safetensors", FileNotFoundError, "there is no file"),
        ("bad.safetensors", ValueError, "cannot be read"),
    ]:
        with pytest.raises(error, match=said):
            merge_models((nets()[0], [tmp_path / name]))


def test_cross_validation_gives_a_list_of_models():
    found = cross_validate(NetClassifier(**FAST), X, NAMES, cv=3, return_estimator=True)
    assert list(merge_models(found["estimator"], X).classes_) == ["no", "yes"]


ENSEMBLES = {
    "deep": DeepEnsemble(NetClassifier(**FAST), 2, random_state=0),
    "bagged": BaggingClassifier(NetClassifier(**FAST), 2, random_state=0),
    "voting": VotingClassifier([(n, NetClassifier(**FAST)) for n in "ab"]),
    "bagged perceptrons": BaggingClassifier(MLPClassifier(4, tol=10), 2, random_state=0),
}


@pytest.mark.parametrize("ensemble", ENSEMBLES.values(), ids=ENSEMBLES)
def test_an_ensemble_stands_for_its_members(ensemble):
    ensemble.fit(X, NAMES)
    assert list(merge_models(ensemble, X, NAMES).classes_) == ["no", "yes"]
    score = LMCScorer().pairwise(ensemble, X, NAMES)
    errors = (
        [np.mean(ensemble.classes_[m.predict(X)] != NAMES) for m in ensemble.estimators_]
        if (not isinstance(ensemble, DeepEnsemble))
        else [np.mean(m.predict(X) != NAMES) for m in ensemble.estimators_]
    )
    assert score.error[0, [0, -1]].tolist() == pytest.approx(errors)
    assert LMCScorer(output="accuracy")(ensemble, X, NAMES) == pytest.approx(1 - np.mean(errors))


def test_members_that_see_other_features_are_refused():
    bag = BaggingClassifier(NetClassifier(**FAST), 2, max_features=2, random_state=0).fit(X, Y)
    with pytest.raises(ValueError, match="BaggingClassifier whose members see different features"):
        merge_models(bag)
