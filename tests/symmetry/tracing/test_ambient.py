"""What the caller has set around a call changes neither what is found nor how it is proved."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from sklmc.exceptions import SymmetryError
from sklmc.symmetry import PermutationSymmetry, discover_symmetry
from tests.symmetry.zoo import ZOO


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SETTINGS = {
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu"),
    "meta device": lambda: torch.device("meta"),
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
}


def comparable(symmetry):
    """All of a symmetry but the rounding of the net in its own precision, and what covers it."""
    found = symmetry.to_dict()
    evidence = {**found["evidence"], "own_error": None}
    return {**found, "evidence": evidence, "checksum": None}


@pytest.fixture(scope="module", params=["two_encoder_layers", "conv_batch_norm", "lstm"])
def case(request):
    net, (X,) = ZOO[request.param].make()
    net, X = net.float(), X.float()
    return net, X, discover_symmetry(net, X)


@pytest.mark.parametrize("setting", list(SETTINGS))
def test_the_same_is_found_and_measured(setting, case):
    net, X, expected = case
    with SETTINGS[setting]():
        symmetry = discover_symmetry(net, X)
        error = symmetry.verify(net, X)
    assert error == expected.verify(net, X)
    # under a default device torch's encoder layers leave their fused path, and round otherwise
    assert symmetry.evidence["own_error"] < 1e-5
    assert comparable(symmetry) == comparable(expected)


@pytest.mark.parametrize("setting", list(SETTINGS))
def test_specs_and_checks_work_under_any_setting(setting):
    net, (X,) = ZOO["mlp"].make()
    net, X = net.float(), X.float()
    spec = discover_symmetry(net, X, verify=False).to_axes_to_perm()

    class Renamed(nn.Sequential):
        pass

    with SETTINGS[setting]():
        symmetry = PermutationSymmetry.from_axes_to_perm(spec, net, X)
        symmetry.check(Renamed(*net))
    assert symmetry.evidence["failed"] == {}


def test_nets_made_under_inference_mode_are_refused_in_words():
    with torch.inference_mode():
        net, X = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), torch.randn(8, 3)
    with pytest.raises(SymmetryError, match=r"'0\.weight' was made under torch\.inference_mode"):
        discover_symmetry(net, X)


def test_samples_made_under_inference_mode_are_taken():
    with torch.inference_mode():
        X = torch.randn(8, 3)
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    assert [group.size for group in discover_symmetry(net, X).groups] == [5]
    assert [group.size for group in discover_symmetry(net, (X,)).groups] == [5]
