"""What a coordinator refuses, by name, and that nothing has changed then."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from sklmc.exceptions import ArchitectureMismatchError
from sklmc.merging import SiteCoordinator
from sklmc.models import write_state
from tests.merging.site_nets import SITES, answer, finish, make, mlp, start


@pytest.fixture
def started():
    """A coordinator, samples, and an answer of Bern in round 0."""
    coordinator, X = start()
    return coordinator, X, answer(coordinator, "Bern", X["Bern"])


def refused(coordinator, moments, match, error=ValueError):
    before = coordinator.round_, coordinator.waiting_for_
    with pytest.raises(error, match=match):
        coordinator.add(moments)
    assert (coordinator.round_, coordinator.waiting_for_) == before


def test_second_answer_is_refused(started):
    coordinator, _, moments = started
    coordinator.add(moments)
    refused(coordinator, moments, "'moments' of site 'Bern' came before in round 0; the first")


def test_late_and_early_answers_are_refused(started):
    coordinator, X, moments = started
    refused(coordinator, dataclasses.replace(moments, round=1), "answer round 1, but round 0 is")
    coordinator.add(moments)
    for site in SITES[1:]:
        coordinator.add(answer(coordinator, site, X[site]))
    refused(coordinator, moments, "site 'Bern' answer round 0, but round 1 is open")
    finish(coordinator, X)
    refused(coordinator, moments, "answer round 0, but all rounds are closed")


def test_site_that_is_unknown_or_gone_is_refused(started):
    coordinator, _, moments = started
    refused(coordinator, dataclasses.replace(moments, site="Oslo"), "one of .* got 'Oslo'")
    coordinator.leave_out("Bern", "moved away")
    refused(coordinator, moments, "'Bern' was left out: moved away")


@pytest.mark.parametrize(
    "options",
    [{"target": "labels"}, {"weights": [1, 2, 3]}, {"min_samples": 20}, {"aligner": None}],
    ids=lambda options: next(iter(options)),
)
def test_answer_of_another_merge_is_refused(started, options):
    other, _ = start(**options)
    refused(other, started[2], "'moments' of site 'Bern' belong to another merge")


def test_answer_on_few_samples_is_refused(started):
    coordinator, _, moments = started
    refused(coordinator, dataclasses.replace(moments, n_samples=49), "rest on 49 samples, fewer")


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("input_means", torch.zeros(1, 2, dtype=torch.float64), "hold tensors of shapes"),
        ("rows", torch.zeros(9, 3, dtype=torch.float64), "hold tensors of shapes"),
        ("output_means", torch.full((1, 6), torch.nan, dtype=torch.float64), "no sums over rows"),
        ("output_means", torch.zeros(1, 6), "no sums over rows"),
        ("count", torch.tensor(0.0, dtype=torch.float64), "no sums over rows"),
    ],
    ids=["shape", "foreign", "nan", "float32", "count"],
)
def test_what_are_no_sums_of_the_round_is_refused(started, name, value, match):
    coordinator, _, moments = started
    forged = dataclasses.replace(moments, tensors={**moments.tensors, name: value})
    refused(coordinator, forged, match)


def test_bytes_are_refused_with_the_way_to_read_them(started):
    coordinator, _, moments = started
    refused(coordinator, moments.to_bytes(), r"SiteMoments\.from_bytes", TypeError)


# -- rounds -------------------------------------------------------------------------------------


def test_round_without_an_answer_cannot_be_closed(started):
    coordinator, X, _ = started
    with pytest.raises(ValueError, match="close_round: no site has answered"):
        coordinator.close_round()
    finish(coordinator, X)
    with pytest.raises(ValueError, match="close_round: no site has answered"):
        coordinator.close_round()


def test_open_merge_gives_no_net(started):
    coordinator, _, moments = started
    coordinator.add(moments)
    with pytest.raises(ValueError, match=r"round 0 of 3 is open .* waits for \['Graz', 'Lyon'\]"):
        coordinator.merge()


def test_last_site_and_late_wishes_are_refused(started):
    coordinator, X, _ = started
    finish(coordinator, X)
    with pytest.raises(ValueError, match="'Graz' comes too late"):
        coordinator.leave_out("Graz")
    other, _ = start()
    for site in SITES[1:]:
        other.leave_out(site)
    with pytest.raises(ValueError, match="'site' 'Bern' is the last one"):
        other.leave_out("Bern")
    with pytest.raises(ValueError, match="'Graz' was left out"):
        other.leave_out("Graz")


# -- what it is made of -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sites": ["a", "b"]}, "'sites' must be 3 different names"),
        ({"sites": ["a", "b", "a"]}, "'sites' must be 3 different names"),
        ({"weights": [1, 0, 1]}, "'weights' must be positive"),
        ({"target": "mean"}, "'target' must be one of 'own', 'labels', got 'mean'"),
        ({"min_samples": 0}, "'min_samples' must be at least 1"),
        ({"aligner": "activation"}, "'X'"),
        ({"y": np.zeros(4)}, "'y' was given without 'X'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        SiteCoordinator(make("mlp")[0], **options)


def test_nets_that_do_not_fit_are_refused():
    with pytest.raises(ArchitectureMismatchError, match="different architecture"):
        SiteCoordinator([mlp(0), mlp(1).double()])
    with pytest.raises(ValueError, match="pass 'X'"):  # the size of the images is not known
        SiteCoordinator(make("conv")[0])


def test_labels_need_a_linear_layer_at_the_end():
    nets = [nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Tanh()) for _ in "ab"]
    with pytest.raises(ValueError, match="target='labels' needs a linear layer that gives"):
        SiteCoordinator(nets, target="labels")


# -- files --------------------------------------------------------------------------------------


def test_file_of_another_merge_or_none_is_refused(started, tmp_path):
    coordinator, _, _ = started
    path = tmp_path / "progress.safetensors"
    coordinator.save(path)
    other, _ = start(weights=[1, 2, 3])
    with pytest.raises(ValueError, match="'path' holds another merge"):
        other.resume(path)
    with pytest.raises(FileNotFoundError, match="'path' must name a file that exists"):
        coordinator.resume(tmp_path / "none")


def test_damaged_or_foreign_file_is_refused(started, tmp_path):
    coordinator, _, _ = started
    path = tmp_path / "progress.safetensors"
    coordinator.save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is damaged"):
        coordinator.resume(path)
    path.write_bytes(data[:100])
    with pytest.raises(ValueError, match="is damaged or was not written by sklmc"):
        coordinator.resume(path)
    for notes, seen in (({"kind": "model"}, "'model'"), ({}, "None")):
        write_state(path, {}, notes)
        with pytest.raises(ValueError, match=f"holds {seen}, and 'sites_progress' is wanted"):
            coordinator.resume(path)
    with pytest.raises(FileNotFoundError, match="'path' must name a file in a folder that exists"):
        coordinator.save(tmp_path / "no" / "folder")
