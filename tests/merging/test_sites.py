"""A merge in rounds is the pooled one; sites may drop out, and a coordinator may be killed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import sklmc
from sklmc import NetClassifier, merge_models
from sklmc.exceptions import SklmcWarning
from sklmc.merging import SiteCoordinator, site_moments
from tests.merging.site_nets import (
    FAMILIES,
    SITES,
    answer,
    finish,
    largest_gap,
    make,
    mlp,
    same_bits,
    start,
)

# Sums in another order of the same float64 numbers, and the solutions of systems of their size.
ROUNDING = 1e-10
WEIGHTS = (2.0, 1.0, 3.0)


def pooled(nets, X, y=None, **options):
    options = {"target": "own", "repair": "refit", "weights": WEIGHTS} | options
    return merge_models(nets, X, y, **options)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_rounds_give_the_pooled_merge(family):
    nets, X = make(family)
    coordinator, by_site = start(family, weights=WEIGHTS)
    merged = finish(coordinator, by_site)
    assert largest_gap(merged, pooled(nets, X)) < ROUNDING
    assert largest_gap(merged, pooled(nets, X, repair=None)) > 1e-3  # a merge without rounds


@pytest.mark.parametrize("family", ["mlp", "conv"])
def test_rounds_with_labels_give_the_pooled_merge(family):
    nets, X = make(family)
    y = [np.arange(len(one)) % 2 for one in X]
    coordinator, by_site = start(family, target="labels", weights=WEIGHTS)
    merged = finish(coordinator, by_site, dict(zip(SITES, y)))
    assert largest_gap(merged, pooled(nets, X, y, target="labels")) < ROUNDING


@pytest.mark.slow
def test_large_sites_answer_for_the_samples_that_the_pooled_merge_takes():
    """Of more than 10,000 samples both take the same."""
    sizes = (150, 10_450, 200)
    nets, X = make("mlp", sizes)
    coordinator, by_site = start("mlp", sizes, weights=WEIGHTS)
    assert largest_gap(finish(coordinator, by_site), pooled(nets, X)) < ROUNDING


def test_public_samples_align_where_an_aligner_needs_them():
    nets, X = make("mlp")
    public = np.random.default_rng(5).normal(size=(200, 3))
    coordinator = SiteCoordinator(nets, public, sites=SITES, aligner="activation")
    aligned = [nets[0], *(sklmc.PermutationAligner("activation", random_state=0)
                          .fit_transform(nets[0], one, public) for one in nets[1:])]  # fmt: skip
    merged = finish(coordinator, dict(zip(SITES, X)))
    assert largest_gap(merged, pooled(aligned, X, aligner=None, weights=None)) < ROUNDING


@pytest.mark.slow
def test_fitted_nets_of_different_classes_are_merged_into_one_that_knows_all():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(600, 3)), rng.integers(0, 3, 600)
    X[:, 0] += 3.0 * y
    names = np.array(["low", "mid", "top"])
    parts = {"Bern": np.flatnonzero(y < 2), "Graz": np.flatnonzero(y > 0)}
    nets = [
        NetClassifier(module__width=16, max_epochs=20, random_state=0).fit(X[at], names[y[at]])
        for at in parts.values()
    ]
    by_site = {site: X[at].astype(np.float32) for site, at in parts.items()}
    merged = finish(SiteCoordinator(nets, sites=list(parts)), by_site)
    assert merged.classes_.tolist() == ["low", "mid", "top"]
    assert merged.score(X, names[y]) > 0.8
    assert max(np.mean(one.predict(X) == names[y]) for one in nets) < 0.75


@pytest.mark.parametrize("n_sites", [1, 3])
def test_equal_nets_need_no_round(n_sites):
    net = mlp(0)
    coordinator = SiteCoordinator([copy.deepcopy(net) for _ in range(n_sites)])
    assert coordinator.n_rounds_ == 0
    assert coordinator.next_request() is None
    assert coordinator.waiting_for_ == []
    assert same_bits(coordinator.merge(), net)


@pytest.mark.slow
def test_answers_may_come_in_any_order_and_be_made_again():
    results = []
    for order in (SITES, SITES[::-1]):
        coordinator, X = start()
        while (request := coordinator.next_request()) is not None:
            for site in order:
                first = answer(coordinator, site, X[site], request=request)
                again = answer(coordinator, site, X[site], request=request)
                assert first.to_bytes() == again.to_bytes()
                coordinator.add(again)
        results.append(coordinator.merge())
    assert same_bits(*results)


def test_nothing_handed_in_is_changed():
    nets, X = make("batch norm")
    before = copy.deepcopy(nets), copy.deepcopy(X)
    for net in nets:
        net.train()
    finish(SiteCoordinator(nets, sites=SITES), dict(zip(SITES, X)))
    assert all(same_bits(one, two) and one.training for one, two in zip(nets, before[0]))
    assert all(np.array_equal(one, two) for one, two in zip(X, before[1]))


def test_merged_net_says_where_it_came_from():
    coordinator, X = start(weights=WEIGHTS)
    coordinator.leave_out("Graz", "no contract")
    record = finish(coordinator, X).provenance_
    assert record["made_by"] == "SiteCoordinator"
    assert (record["target"], record["left_out"]) == ("own", {"Graz": "no contract"})
    assert record["weights"] == pytest.approx([0.4, 0.0, 0.6])


# -- sites that drop out ------------------------------------------------------------------------


def test_site_left_out_before_the_first_request_has_no_part():
    _, X = make("conv")
    coordinator, by_site = start("conv", weights=WEIGHTS)
    others = [coordinator.models_[0], coordinator.models_[2]]
    coordinator.leave_out("Graz")
    merged = finish(coordinator, by_site)
    wanted = pooled(others, [X[0], X[2]], aligner=None, weights=WEIGHTS[::2])
    assert largest_gap(merged, wanted) < ROUNDING


def test_last_site_left_is_the_result():
    coordinator, _ = start()
    coordinator.leave_out("Lyon")
    coordinator.leave_out("Graz")
    assert coordinator.n_rounds_ == 0
    assert same_bits(coordinator.merge(), coordinator.models_[0])


def test_round_closed_without_a_site_goes_on_with_the_others():
    """From that round on it is the merge of the others: their weights sum to one."""
    _, X = make("mlp")
    coordinator, by_site = start("mlp", weights=WEIGHTS)
    for site in ("Lyon", "Bern"):
        coordinator.add(answer(coordinator, site, by_site[site]))
    assert coordinator.waiting_for_ == ["Graz"]
    coordinator.close_round()
    assert coordinator.left_out_ == {"Graz": "sent nothing in round 0"}
    assert list(coordinator.next_request().nets) == ["Bern", "Lyon"]
    merged = finish(coordinator, by_site)
    others = [coordinator.models_[0], coordinator.models_[2]]
    wanted = pooled(others, [X[0], X[2]], aligner=None, weights=WEIGHTS[::2])
    assert largest_gap(merged, wanted) < ROUNDING  # nothing but layers is in these nets


@pytest.mark.parametrize("answered", [False, True])
def test_site_left_out_in_a_later_round_keeps_what_was_solved_with_it(answered):
    coordinator, X = start()
    for site in SITES:
        coordinator.add(answer(coordinator, site, X[site]))
    solved = coordinator.next_request().state["layers.0.weight"]
    if answered:
        coordinator.add(answer(coordinator, "Graz", X["Graz"]))
    coordinator.leave_out("Graz", "went home")
    merged = finish(coordinator, X)
    assert coordinator.left_out_ == {"Graz": "went home"}
    assert torch.equal(merged.layers[0].weight, solved)


def test_leaving_out_the_only_site_that_is_waited_for_closes_the_round():
    coordinator, X = start()
    for site in SITES[:2]:
        coordinator.add(answer(coordinator, site, X[site]))
    coordinator.leave_out("Lyon")
    assert coordinator.round_ == 1


# -- killed and resumed -------------------------------------------------------------------------


def test_killed_merge_goes_on_with_the_same_bits(tmp_path):
    whole, X = start("conv", weights=WEIGHTS)
    killed, _ = start("conv", weights=WEIGHTS)
    for coordinator in (whole, killed):
        for site in ("Bern", "Graz"):
            coordinator.add(answer(coordinator, site, X[site]))
        coordinator.close_round()
    merged = finish(whole, X)
    in_flight = answer(killed, "Bern", X["Bern"])
    killed.save(tmp_path / "progress.safetensors")
    resumed, _ = start("conv", weights=WEIGHTS)
    assert resumed.resume(tmp_path / "progress.safetensors") is resumed
    assert resumed.left_out_ == whole.left_out_
    resumed.add(in_flight)
    assert resumed.waiting_for_ == ["Graz"]
    assert same_bits(finish(resumed, X), merged)


@pytest.mark.parametrize("n_answers", [0, 1])
def test_merge_of_one_net_that_is_left_resumes(n_answers, tmp_path):
    """Before the first request one net needs no round; later the rounds go on."""
    killed, X = start()
    for site in SITES[:n_answers]:
        killed.add(answer(killed, site, X[site]))
    for site in SITES[1:]:
        killed.leave_out(site)
    killed.save(tmp_path / "progress.safetensors")
    resumed = start()[0].resume(tmp_path / "progress.safetensors")
    assert (resumed.round_, resumed.n_rounds_) == (n_answers, 3 * n_answers)


def test_answers_of_the_open_round_are_kept(tmp_path):
    killed, X = start()
    for site in SITES[:2]:
        killed.add(answer(killed, site, X[site]))
    killed.save(tmp_path / "progress.safetensors")
    resumed, _ = start()
    resumed.resume(tmp_path / "progress.safetensors")
    assert resumed.waiting_for_ == ["Lyon"]
    whole, _ = start()
    assert same_bits(finish(resumed, X), finish(whole, X))


# -- warnings -----------------------------------------------------------------------------------


def test_few_samples_in_all_are_warned_of():
    coordinator, X = start(sizes=(60, 70, 80))
    with pytest.warns(SklmcWarning, match="together have 210 samples"):
        finish(coordinator, X)


def test_weights_that_no_round_solves_for_are_named():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix, self.last = nn.Parameter(torch.randn(3, 4)), nn.Linear(4, 2)

        def forward(self, x):
            return self.last((x @ self.matrix).relu())

    with pytest.warns(SklmcWarning, match="1 weights stay averaged, see averaged_: matrix"):
        coordinator = SiteCoordinator([Bare(), Bare()], np.ones((4, 3)), aligner=None)
    assert coordinator.averaged_ == ["matrix"]
    request = coordinator.next_request()
    assert set(request.state) == {"matrix"}
    X = np.random.default_rng(0).normal(size=(60, 3))
    found = site_moments(request, coordinator.models_[0], X, site="site_0")
    assert found.tensors["output_means"].shape == (1, 2)
