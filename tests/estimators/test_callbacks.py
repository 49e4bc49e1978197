"""skorch's callbacks in our nets: those that wait for validation, schedules by name."""

from __future__ import annotations

import pytest
import torch
from skorch.callbacks import Checkpoint, EarlyStopping, EpochScoring, LRScheduler
from skorch.dataset import ValidSplit

from sklmc import DeepEnsemble, NetClassifier, NetRegressor
from tests.estimators.nets import NETS, small


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize(
    ("callback", "seen"),
    [
        (EarlyStopping(), "EarlyStopping, which monitors 'valid_loss'"),
        (EarlyStopping, "EarlyStopping, which monitors 'valid_loss'"),
        (EarlyStopping("valid_acc"), "EarlyStopping, which monitors 'valid_acc'"),
        (Checkpoint(), "Checkpoint, which monitors 'valid_loss_best'"),
        (LRScheduler("ReduceLROnPlateau", monitor="valid_loss"), "LRScheduler, which monitors"),
    ],
)
def test_callbacks_that_wait_for_validation_say_so_before_training(kind, callback, seen, moons):
    match = rf"{kind.__name__}: 'callbacks' holds {seen}.*no validation set; set train_split="
    net = small(kind, callbacks=[callback])
    with pytest.raises(ValueError, match=match):
        net.fit(*moons)
    assert not net.history
    with pytest.raises(ValueError, match=match):
        DeepEnsemble(net, n_estimators=2, vectorize="auto").fit(*moons)


@pytest.mark.parametrize("vectorize", [True, False])
def test_a_score_that_nobody_measures_is_named_with_those_that_are(vectorize, moons):
    net = NetRegressor(callbacks=[EarlyStopping("valid_lost")], train_split=ValidSplit(3))
    with pytest.raises(ValueError, match=r"monitors 'valid_lost', but the history.*'valid_loss'\?"):
        DeepEnsemble(net, n_estimators=2, vectorize=vectorize).fit(*moons)


@pytest.mark.parametrize(
    "callbacks",
    [
        [EarlyStopping("train_loss")],
        [EpochScoring("accuracy", on_train=True, name="valid_acc"), EarlyStopping("valid_acc")],
        [LRScheduler("StepLR", step_size=1, monitor="valid_loss")],
        [Checkpoint(monitor=None, f_params=None, f_optimizer=None, f_criterion=None,
                    f_history=None)],
    ],
)  # fmt: skip
def test_callbacks_that_have_what_they_need_are_left_alone(callbacks, moons):
    assert len(small(callbacks=callbacks).fit(*moons).history) == 2


def test_a_setting_that_mends_the_monitor_counts(moons):
    net = small(callbacks=[EarlyStopping()], callbacks__EarlyStopping__monitor="train_loss")
    net.fit(*moons)


def rates(net, step_every):
    if step_every == "epoch":
        return net.history[:, "event_lr"]
    return [rate for epoch in net.history[:, "batches", :, "event_lr"] for rate in epoch]


def one_cycle(total_steps):
    """Return the rates that torch's schedule takes over a training."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=total_steps)
    found = []
    for _ in range(total_steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(("step_every", "steps"), [("epoch", 4), ("batch", 4 * 2)])
@pytest.mark.parametrize("policy", ["OneCycleLR", torch.optim.lr_scheduler.OneCycleLR])
@pytest.mark.parametrize("vectorize", [True, False])
def test_one_cycle_learns_its_length(vectorize, policy, step_every, steps, moons):
    schedule = LRScheduler(policy, max_lr=0.1, step_every=step_every)
    before = vars(schedule).copy()
    net = NetClassifier(max_epochs=4, callbacks=[schedule], train_split=ValidSplit(3))
    ensemble = DeepEnsemble(net, n_estimators=2, vectorize=vectorize, random_state=0).fit(*moons)
    for member in ensemble.estimators_:
        assert rates(member, step_every) == pytest.approx(one_cycle(steps))
    assert vars(schedule) == before


def test_one_cycle_goes_on_in_partial_fit(moons):
    net = small(callbacks=[LRScheduler("OneCycleLR", max_lr=0.1, step_every="batch")])
    net.fit(*moons).partial_fit(*moons)
    assert len(net.history) == 4
    assert net.get_params()["callbacks__LRScheduler__policy"] == "OneCycleLR"


@pytest.mark.parametrize(
    ("settings", "length"), [({"total_steps": 50}, 50), ({"epochs": 5, "steps_per_epoch": 10}, 50)]
)
def test_a_length_that_is_given_wins(settings, length, moons):
    schedule = LRScheduler("OneCycleLR", max_lr=0.1, step_every="batch", **settings)
    net = small(callbacks=[schedule], max_epochs=4).fit(*moons)
    assert rates(net, "batch") == pytest.approx(one_cycle(length)[:12])


def test_a_policy_that_is_set_later_goes_by_name_too(moons):
    net = small(callbacks=[LRScheduler("ConstantLR")]).fit(*moons)
    net.set_params(callbacks__LRScheduler__policy="LinearLR")
    net.fit(*moons)
    assert (
        type(dict(net.callbacks_)["LRScheduler"].lr_scheduler_) is torch.optim.lr_scheduler.LinearLR
    )


@pytest.mark.parametrize(
    ("schedule", "error", "match"),
    [
        (LRScheduler("OneCycelLR"), ValueError, r"LRScheduler\('OneCycelLR'\).*'OneCycleLR'\?"),
        (
            LRScheduler("OneCycleLR"),
            ValueError,
            r"needs 'max_lr'; pass LRScheduler\('OneCycleLR', ",
        ),
        (LRScheduler("CyclicLR"), ValueError, "needs 'base_lr' and 'max_lr'"),
        (LRScheduler("StepLR", step_sise=1), TypeError, "__step_sise' is set.*'step_size'"),
    ],
)
def test_schedules_that_cannot_be_are_named(schedule, error, match, moons):
    with pytest.raises(error, match=match):
        small(callbacks=[schedule]).fit(*moons)


def test_steps_that_cannot_be_counted_are_asked_for(moons):
    class Endless(torch.utils.data.IterableDataset):
        def __init__(self, X, y):
            self.pairs = list(zip(X, y))

        def __iter__(self):
            return iter(self.pairs)

    net = small(
        dataset=Endless, iterator_train__shuffle=False,
        callbacks=[LRScheduler("OneCycleLR", max_lr=0.1, step_every="batch")],
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"cannot be counted .* pass LRScheduler\(\.\.\., total_s"):
        net.fit(*moons)
