"""Members of an ensemble on disk: the same nets, found by what they depend on alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import SGDClassifier

from sklmc import DeepEnsemble, ModelGrid, NetClassifier
from sklmc.exceptions import SklmcWarning

NET = NetClassifier(max_epochs=2)


def make(folder, **options):
    defaults = {"estimator": NET, "n_estimators": 4, "random_state": 0, "cache_dir": folder}
    return DeepEnsemble(**{**defaults, **options})


def bits(ensemble):
    return [
        [tensor.numpy().tobytes() for tensor in net.module_.state_dict().values()]
        for net in ensemble.estimators_
    ]


def stored(folder):
    return sorted(folder.rglob("*.safetensors"))


@pytest.mark.parametrize("vectorize", [True, False])
def test_second_fit_trains_nothing_and_gives_the_same(vectorize, moons, tmp_path, monkeypatch):
    plain = make(None, vectorize=vectorize).fit(*moons)
    first = make(tmp_path, vectorize=vectorize).fit(*moons)
    assert len(stored(tmp_path)) == 4
    monkeypatch.setattr("sklmc.estimators._cell.fit_members", None)
    second = make(tmp_path, vectorize=vectorize).fit(*moons)
    assert bits(second) == bits(first) == bits(plain)
    assert second.seeds_ == plain.seeds_
    assert np.array_equal(second.predict_proba(moons[0]), plain.predict_proba(moons[0]))


@pytest.mark.parametrize("what", ["X", "seed", "width", "plan"])
def test_nets_of_anything_else_are_not_taken(what, moons, tmp_path):
    make(tmp_path).fit(*moons)
    X, options = moons[0], {}
    if what == "X":
        X = X + 1e-9
    elif what == "seed":
        options = {"random_state": 1}
    elif what == "width":
        options = {"estimator": NetClassifier(max_epochs=2, module__width=3)}
    else:
        options = {"vectorize": False}
    other = make(tmp_path, **options).fit(X, moons[1])
    assert len(stored(tmp_path)) == 8
    assert bits(other) == bits(make(None, **options).fit(X, moons[1]))


def test_a_grid_and_an_ensemble_share_a_folder(moons, tmp_path):
    """Of the same net and the same number as seed, but with other seeds of the members."""
    make(tmp_path).fit(*moons)
    with pytest.warns(SklmcWarning, match="of other cells"):
        ModelGrid(NET, {}, n_estimators=4, random_state=0, cache_dir=tmp_path).fit(*moons)
    assert len(stored(tmp_path)) == 8
    assert bits(make(tmp_path).fit(*moons)) == bits(make(None).fit(*moons))


@pytest.mark.parametrize(
    "options, match",
    [
        ({"random_state": None}, "DeepEnsemble: 'random_state' must be an int with 'cache_dir'"),
        ({"estimator": SGDClassifier()}, "DeepEnsemble: 'cache_dir' stores skorch nets only"),
        ({"cache_dir": 3}, "'cache_dir' parameter of DeepEnsemble"),
    ],
)
def test_what_cannot_be_stored_is_refused(options, match, moons, tmp_path):
    with pytest.raises(ValueError, match=match):
        make(tmp_path, **options).fit(*moons)


def test_a_damaged_member_is_trained_again(moons, tmp_path):
    first = make(tmp_path).fit(*moons)
    path = stored(tmp_path)[1]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(SklmcWarning, match=r"DeepEnsemble: .*00001.safetensors' is damaged"):
        again = make(tmp_path).fit(*moons)
    assert bits(again) == bits(first)
    assert all(torch.isfinite(p).all() for n in again.estimators_ for p in n.module_.parameters())
