"""Settings of nets that are refused before anything is fitted."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from sklmc import DeepEnsemble, NetClassifier
from sklmc._validation import check_jobs, check_path
from sklmc.nets import MLP

X = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


@pytest.mark.parametrize(
    "settings, error, said",
    [
        ({"callbacks": [3]}, TypeError, "'callbacks' must hold skorch callbacks"),
        ({"callbacks": [("name", 3)]}, TypeError, "'callbacks' must hold skorch callbacks"),
        ({"device": "abacus"}, ValueError, "'device' must name a device of torch"),
    ],
)
def test_setting_is_refused_by_its_name(settings, error, said):
    with pytest.raises(error, match=f"NetClassifier.*{said}"):
        NetClassifier(MLP, max_epochs=1, **settings).fit(X, Y)


@pytest.mark.parametrize("n_jobs", [True, 1.0, "2"])
def test_jobs_are_an_integer(n_jobs):
    with pytest.raises(TypeError, match="Caller: 'n_jobs' must be an integer or None"):
        check_jobs(n_jobs, "Caller")


def test_no_job_at_all_is_refused_and_none_stays_none():
    with pytest.raises(ValueError, match="Caller: 'n_jobs' must not be 0"):
        check_jobs(0, "Caller")
    assert check_jobs(None, "Caller") is None
    assert check_jobs(-1, "Caller") == -1


def test_path_with_a_zero_byte_is_refused():
    with pytest.raises(ValueError, match="Caller: 'path' holds a zero byte"):
        check_path("a\0b", "Caller")


class Noted(nn.Linear):
    """Keeps more than tensors in its state."""

    def get_extra_state(self):
        return {"note": "kept"}

    def set_extra_state(self, state):
        assert state == {"note": "kept"}


def test_members_may_keep_more_than_tensors():
    X = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    net = NetClassifier(
        Noted, module__in_features=2, module__out_features=2, max_epochs=1, random_state=0
    )
    ensemble = DeepEnsemble(net, 2, vectorize=False, random_state=0).fit(X, X[:, 0] > 0)
    assert len(ensemble.diverged_) == 0
    assert np.isfinite(ensemble.predict_proba(X)).all()
