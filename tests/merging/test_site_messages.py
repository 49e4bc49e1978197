"""What travels between sites and a coordinator: sums and nothing else, whole or refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from sklmc.exceptions import NonFiniteError
from sklmc.merging import MomentsRequest, SiteCoordinator, SiteMoments, site_moments
from sklmc.merging._repairs._layer_moments import LayerMoments
from sklmc.merging._sites import _wire
from tests.merging.site_nets import SITES, answer, make, mlp, start

ROUNDING = 1e-12  # of sums of a few hundred float64 numbers of size one


# -- what is in a message -----------------------------------------------------------------------


def test_answer_holds_count_means_and_products_and_nothing_else():
    """Every number of it is made again from X and the site's net, and there is no other."""
    coordinator, X = start()
    found = answer(coordinator, "Graz", X["Graz"])
    h, net = X["Graz"], coordinator.models_[1]
    t = net.layers[0](torch.from_numpy(h)).detach().numpy()
    gram, cross = np.cov(h.T, bias=True) * len(h), (t - t.mean(axis=0)).T @ (h - h.mean(axis=0))
    wanted = {
        "count": np.array(320.0),
        "input_means": h.mean(axis=0)[None],
        "output_means": t.mean(axis=0)[None],
        "input_products": gram[np.triu_indices(3)][None],
        "output_products": cross[None],
    }
    data = found.to_bytes()
    tensors = load(data)
    assert set(tensors) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(tensors[name].numpy(), values, rtol=ROUNDING, atol=1e-9)
    length = int.from_bytes(data[:8], "little")
    notes = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["sklmc"])
    assert set(notes) == {"task", "site", "round", "n_samples", "kind", "format", "digest"}
    assert len(data) == 8 + length + sum(one.numel() * 8 for one in tensors.values())


def test_answer_of_a_lone_batch_norm_holds_count_means_and_squares():
    coordinator, X = start("conv")
    seen = []
    while coordinator.next_request() is not None:
        found = {site: answer(coordinator, site, X[site]) for site in SITES}
        seen.append(set(found["Bern"].tensors))
        for one in found.values():
            coordinator.add(one)
    assert {"count", "means", "squares"} in seen


def test_size_of_an_answer_does_not_depend_on_the_number_of_samples():
    sizes = set()
    for n in (100, 900):
        coordinator, X = start(sizes=(n, n))
        found = answer(coordinator, "Bern", X["Bern"])
        sizes.add(sum(one.numel() for one in found.tensors.values()))
        assert found.n_samples == n
        assert found.n_bytes == len(found.to_bytes())
        assert coordinator.next_request().n_bytes == len(coordinator.next_request().to_bytes())
    assert len(sizes) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_request_brings_the_state_to_the_bit(dtype):
    nets = [mlp(seed, "layer").to(dtype) for seed in range(2)]
    request = SiteCoordinator(nets).next_request()
    again = MomentsRequest.from_bytes(request.to_bytes())
    assert set(again.state) == set(request.state) != set()
    for name, tensor in request.state.items():
        assert torch.equal(again.state[name], tensor)
        assert again.state[name].dtype == dtype
    plain = {f.name for f in dataclasses.fields(request)} - {"state"}
    assert all(getattr(request, name) == getattr(again, name) for name in plain)


def test_request_leaves_out_what_is_solved_by_this_round_or_later():
    coordinator, X = start("layer norm")
    seen = []
    while (request := coordinator.next_request()) is not None:
        seen.append(MomentsRequest.from_bytes(request.to_bytes()).state)
        for site in SITES:
            coordinator.add(answer(coordinator, site, X[site]))
    norms = {name for name in coordinator.merge().state_dict() if "layers.1." in name}
    norms |= {name for name in coordinator.merge().state_dict() if "layers.4." in name}
    first, second = ({f"layers.{k}.weight", f"layers.{k}.bias"} for k in (0, 3))
    assert [set(one) for one in seen] == [norms, norms | first, norms | first | second]


@pytest.mark.parametrize("n_groups", [1, 3])
def test_moments_of_a_layer_come_back_from_tensors(n_groups):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(50, n_groups, 4, generator=rng, dtype=torch.float64) + 5
    t = torch.randn(50, n_groups, 2, generator=rng, dtype=torch.float64)
    before = LayerMoments()
    before.add(x, t)
    after = LayerMoments.from_tensors(before.to_tensors())
    assert after.count == 50
    for what in ("gram", "cross"):
        for centred in (False, True):
            left, right = (getattr(one, what)(centred) for one in (before, after))
            torch.testing.assert_close(left, right, rtol=ROUNDING, atol=1e-9)
    torch.testing.assert_close(before.outputs, after.outputs, rtol=0, atol=0)


# -- bytes that are no message ------------------------------------------------------------------


@pytest.fixture(scope="module")
def messages():
    """Return bytes of both kinds, by their class."""
    coordinator, X = start("layer norm")
    found = answer(coordinator, "Bern", X["Bern"])
    request = coordinator.next_request()
    return {MomentsRequest: request.to_bytes(), SiteMoments: found.to_bytes()}


BOTH = pytest.mark.parametrize("cls", [MomentsRequest, SiteMoments])


@BOTH
@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.9, 0.999])
def test_cut_off_bytes_are_refused(cls, share, messages):
    data = messages[cls]
    with pytest.raises(ValueError, match=rf"{cls.__name__}\.from_bytes: 'data' is .*cut off"):
        cls.from_bytes(data[: int(share * len(data))])


@BOTH
def test_one_changed_byte_is_noticed(cls, messages):
    for place in (-1, -100):
        data = bytearray(messages[cls])
        data[place] ^= 1
        with pytest.raises(ValueError, match="do not fit their digest"):
            cls.from_bytes(data)


@BOTH
@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x95pickle",
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(1000),
        b"\xff" * 100,
        save({"w": torch.ones(2)}),
        save({"w": torch.ones(2)}, metadata={"sklmc": "3"}),
        (20_000).to_bytes(8, "little") + b"[" * 20_000,
    ],
    ids=["pickle", "http", "zeros", "ones", "tensors", "number", "deep"],
)
def test_foreign_bytes_are_refused(cls, data):
    with pytest.raises(ValueError, match="is no message of sklmc"):
        cls.from_bytes(data)


def test_one_kind_is_not_taken_for_the_other(messages):
    with pytest.raises(ValueError, match="holds 'site_moments', and 'moments_request' is wanted"):
        MomentsRequest.from_bytes(messages[SiteMoments])
    with pytest.raises(ValueError, match="holds 'moments_request', and 'site_moments' is wanted"):
        SiteMoments.from_bytes(messages[MomentsRequest])


@BOTH
def test_newer_version_is_refused(cls, messages, monkeypatch):
    message = cls.from_bytes(messages[cls])
    with monkeypatch.context() as patch:
        patch.setattr(_wire, "FORMAT", 2)
        data = message.to_bytes()
    with pytest.raises(ValueError, match=r"version 2 .* newer sklmc; this one reads version 1"):
        cls.from_bytes(data)


@BOTH
def test_wrong_fields_are_refused(cls, messages):
    message = cls.from_bytes(messages[cls])
    with pytest.raises(ValueError, match="holds 'first' as its 'round'"):
        cls.from_bytes(dataclasses.replace(message, round="first").to_bytes())
    with pytest.raises(TypeError, match="'data' must be bytes, got str"):
        cls.from_bytes("text")


# -- what a site refuses ------------------------------------------------------------------------


def test_few_samples_do_not_answer_whoever_asks():
    coordinator, X = start(min_samples=100)
    with pytest.raises(ValueError, match="holds 60 samples, fewer than 100"):
        answer(coordinator, "Bern", X["Bern"][:60])
    assert answer(coordinator, "Bern", X["Bern"][:100]).n_samples == 100
    with pytest.raises(ValueError, match="holds 260 samples, fewer than 300"):
        answer(coordinator, "Bern", X["Bern"], min_samples=300)


def test_images_count_as_samples_and_not_by_their_positions():
    coordinator, X = start("conv")
    with pytest.raises(ValueError, match="holds 49 samples, fewer than 50"):
        answer(coordinator, "Bern", X["Bern"][:49])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused_at_the_site(value):
    coordinator, X = start()
    X["Bern"][100, 1] = value
    with pytest.raises(NonFiniteError, match="'X' contains NaN or infinity"):
        answer(coordinator, "Bern", X["Bern"])
    rows = torch.utils.data.TensorDataset(torch.from_numpy(X["Bern"]))
    with pytest.raises(NonFiniteError, match="site_moments: 'X'"):
        answer(coordinator, "Bern", rows)


def test_net_that_overflows_on_the_samples_is_refused_at_the_site():
    coordinator, X = start("layer norm")
    with pytest.raises(NonFiniteError, match="is NaN or infinite in round 0"):
        answer(coordinator, "Bern", X["Bern"] * 1e200)


def test_site_must_be_asked_and_bring_its_own_aligned_net():
    coordinator, X = start()
    request, nets = coordinator.next_request(), coordinator.models_
    with pytest.raises(ValueError, match=r"'site' must be one of .*'Bern'.*, got 'Oslo'"):
        site_moments(request, nets[0], X["Bern"], site="Oslo")
    for foreign in (nets[1], make("mlp")[0][1], mlp(7).double()):
        with pytest.raises(ValueError, match="'net' is not the aligned net of site 'Bern'"):
            site_moments(request, foreign, X["Bern"], site="Bern")
    coordinator.leave_out("Bern")
    with pytest.raises(ValueError, match="got 'Bern'"):
        site_moments(coordinator.next_request(), nets[0], X["Bern"], site="Bern")


def test_net_with_other_code_is_refused():
    class Other(type(mlp(0))):
        def forward(self, x):
            return super().forward(x)[:, [1, 0]]  # nothing but the last layer's reader differs

    coordinator, X = start()
    net = coordinator.models_[0]
    net.__class__ = Other
    with pytest.raises(ValueError, match="runs other layers than the coordinator's"):
        answer(coordinator, "Bern", X["Bern"])


def test_labels_must_come_where_they_are_asked_for():
    coordinator, X = start(target="labels")
    with pytest.raises(ValueError, match="request is for labels; pass 'y'"):
        answer(coordinator, "Bern", X["Bern"])
    with pytest.raises(ValueError, match="'y'"):
        answer(coordinator, "Bern", X["Bern"], np.zeros(7, dtype=int))


def test_request_must_be_one():
    coordinator, X = start()
    with pytest.raises(TypeError, match=r"'request' must be a MomentsRequest.*from_bytes"):
        site_moments(
            coordinator.next_request().to_bytes(), coordinator.models_[0], X["Bern"], site="Bern"
        )
