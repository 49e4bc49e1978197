"""Random numbers and threads of a net: what a seed decides, and what it leaves alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from skorch.dataset import ValidSplit

from sklmc import NetClassifier
from sklmc._torch import seeded
from sklmc.estimators._seeds import epoch_seed
from sklmc.nets import MLP
from tests.estimators.modules import Noisy
from tests.estimators.nets import NETS, Recorder, small, weights


def global_generators():
    numpy_state = np.random.get_state()  # noqa: NPY002
    return (
        torch.get_rng_state().tolist(),
        numpy_state[1].tolist(),
        numpy_state[2:],
        random.getstate(),
    )


@pytest.mark.parametrize("kind", NETS)
def test_same_seed_same_bits_whatever_ran_before(kind, moons):
    first = small(kind).fit(*moons)
    torch.rand(3)
    np.random.standard_normal(3)  # noqa: NPY002
    assert torch.equal(weights(first), weights(small(kind).fit(*moons)))
    assert not torch.equal(weights(first), weights(small(kind, random_state=1).fit(*moons)))


def test_none_draws_afresh_each_time(moons):
    net = small(random_state=None)
    first = weights(net.fit(*moons))
    assert not torch.equal(first, weights(net.fit(*moons)))
    repeated = small(random_state=net.seed_).fit(*moons)
    assert torch.equal(weights(net), weights(repeated))


@pytest.mark.parametrize("random_state", [0, None])
def test_global_generators_stay_as_they_were(random_state, moons):
    before = global_generators()
    net = small(random_state=random_state, train_split=ValidSplit(0.3, stratified=True)).fit(*moons)
    net.partial_fit(*moons)
    net.predict(moons[0])
    assert global_generators() == before


def test_module_is_built_on_the_seed():
    net = small(max_epochs=0, random_state=5).fit(np.eye(3), [0, 1, 2])
    with seeded(5):
        module = MLP(3, 3, width=8)
    assert torch.equal(weights(net), torch.cat([p.detach().ravel() for p in module.parameters()]))


def test_each_epoch_takes_its_order_from_its_own_seed(moons):
    X, y = moons
    recorder = Recorder()
    small(callbacks=[recorder], random_state=3, max_epochs=3).fit(X, y)
    for epoch, batches in enumerate(recorder.epochs):
        with seeded(epoch_seed(3, epoch)):
            order = torch.randperm(len(X)).numpy()
        assert np.array_equal(torch.cat(batches).numpy(), X[order].astype(np.float32))


@pytest.mark.parametrize("module", [MLP, Noisy])
def test_partial_fit_goes_on_where_fit_ended(module, moons):
    whole = NetClassifier(module, max_epochs=4, random_state=0).fit(*moons)
    half = NetClassifier(module, max_epochs=2, random_state=0).fit(*moons)
    assert torch.equal(weights(half.partial_fit(*moons)), weights(whole))
    warm = NetClassifier(module, max_epochs=2, random_state=0, warm_start=True)
    assert torch.equal(weights(warm.fit(*moons).fit(*moons)), weights(whole))
    restarted = NetClassifier(module, max_epochs=2, random_state=0).fit(*moons).fit(*moons)
    assert not torch.equal(weights(restarted), weights(whole))


def test_bits_do_not_depend_on_the_number_of_threads(moons):
    X = np.random.default_rng(0).random((300, 200))
    y = np.arange(300) % 3
    before = torch.get_num_threads()
    fitted = []
    try:
        for n_threads in (1, 4):
            torch.set_num_threads(n_threads)
            net = small(module__width=300, batch_size=-1).fit(X, y)
            fitted.append((weights(net), net.predict_proba(X)))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(fitted[0][0], fitted[1][0])
    assert np.array_equal(fitted[0][1], fitted[1][1])


class Counting(MLP):
    """Notes how many threads each pass may use."""

    seen: list[int] = []

    def forward(self, x):
        self.seen.append(torch.get_num_threads())
        return super().forward(x)


def test_training_and_prediction_run_on_one_thread(moons):
    Counting.seen.clear()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        net = small(module=Counting).fit(*moons)
        net.predict(moons[0])
        net.forward(moons[0])
    finally:
        torch.set_num_threads(before)
    assert set(Counting.seen) == {1}
