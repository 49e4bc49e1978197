"""Symmetries and permutations that are kept: intact, or refused; and compared with the model."""

from __future__ import annotations

import copy
import json
import random

import pytest
import torch
from torch import nn

from sklmc import NetClassifier, PermutationAligner
from sklmc.exceptions import ArchitectureMismatchError, PermutationError, SymmetryError
from sklmc.models import read_state, write_state
from sklmc.nets import MLP
from sklmc.symmetry import Permutation, PermutationSymmetry, discover_symmetry
from sklmc.symmetry._groups._group import checksum
from tests.symmetry.zoo import ZOO

N_FLIPS = 300
ODD = [None, True, -1, 0, 1, 7, 10**12, 1.5, "", "0.weight", [], [0], {}, {"a": 1}]


@pytest.fixture(scope="module")
def spec():
    """A net with heads: groups within groups, several blocks to a tensor."""
    net, X = ZOO["encoder_layer"].make()
    return discover_symmetry(net, X[0], verify=False).to_dict()


def paths(value, here=()):
    """Yield the path of every part of nested dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        yield (*here, key)
        if isinstance(part, (dict, list)):
            yield from paths(part, (*here, key))


def mutate(spec, rng, where=None):
    """Return a copy of a spec with one part lost, doubled, or replaced by something odd."""
    spec = copy.deepcopy(spec)
    *way, key = rng.choice(where or list(paths(spec)))
    holder = spec
    for step in way:
        holder = holder[step]
    deed = rng.choice(["lose", "double", "replace", "replace"])
    if deed == "lose":
        del holder[key]
    elif deed == "double" and isinstance(holder, list):
        holder.insert(key, holder[key])
    else:
        holder[key] = rng.choice(ODD)
    return spec


# -- symmetries ----------------------------------------------------------------------------------


def test_flipped_bytes_of_a_symmetry_change_nothing_or_are_refused(spec):
    rng = random.Random(0)
    text = json.dumps(spec).encode()
    n_read, refusals = 0, []
    while n_read < N_FLIPS:
        flipped = bytearray(text)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(7)
        try:
            read = json.loads(flipped)
        except ValueError:  # no JSON any more
            continue
        n_read += 1
        try:
            again = PermutationSymmetry.from_dict(read)
        except ValueError as error:
            refusals.append(str(error))
        else:
            assert again.to_dict() == spec
    assert len(refusals) > 0.9 * N_FLIPS
    assert all(text.startswith("PermutationSymmetry.from_dict: ") for text in refusals)


def test_changed_parts_of_a_symmetry_are_refused(spec):
    rng = random.Random(1)
    where = list(paths(spec))
    for _ in range(N_FLIPS):
        changed = mutate(spec, rng, where)
        if json.dumps(changed) == json.dumps(spec):
            continue
        with pytest.raises(ValueError, match=r"PermutationSymmetry\.from_dict: "):
            PermutationSymmetry.from_dict(changed)


@pytest.mark.slow
def test_contradictions_under_a_right_checksum_are_refused(spec):
    """What a program writes that makes specs of its own: an error of ours, or a symmetry."""
    rng = random.Random(2)
    net = ZOO["encoder_layer"].make()[0]
    where = [path for path in paths(spec) if path[0] not in ("evidence", "checksum")]
    n_refused = 0
    for _ in range(N_FLIPS):
        forged = mutate(spec, rng, where)
        forged["checksum"] = checksum({k: v for k, v in forged.items() if k != "checksum"})
        try:
            symmetry = PermutationSymmetry.from_dict(forged)
        except SymmetryError:
            n_refused += 1
            continue
        p = symmetry.random_permutation(0)
        if symmetry.shapes == {n: tuple(t.shape) for n, t in net.state_dict().items()}:
            symmetry.apply_state(net.state_dict(), p)
    assert n_refused > 0.5 * N_FLIPS


def test_every_net_of_the_zoo_fits_the_checks_of_its_own_spec():
    for name in ["mlp", "grouped_conv", "experts", "dense_net", "lstm", "gpt", "resnet_padded"]:
        net, inputs = ZOO[name].make()
        symmetry = discover_symmetry(net, inputs if len(inputs) > 1 else inputs[0], verify=False)
        again = PermutationSymmetry.from_dict(json.loads(json.dumps(symmetry.to_dict())))
        assert again.to_dict() == symmetry.to_dict()


@pytest.mark.parametrize(
    "change, said",
    [
        ({"version": 1}, r"version 1 of the format .* had no checksum\); discover"),
        ({"version": "2"}, "version '2' of the format"),
        ({"graph_hash": "0" * 64}, "damaged or was changed .*checksum"),
        ({"evidence": {1j: object()}}, "holds more than plain values"),
        ({"format": "else"}, "no symmetry written by to_dict"),
    ],
)
def test_spec_is_refused_for_its_reason(spec, change, said):
    with pytest.raises(SymmetryError, match=f"PermutationSymmetry.from_dict: .*{said}"):
        PermutationSymmetry.from_dict({**spec, **change})
    with pytest.raises(SymmetryError, match="no symmetry written by to_dict"):
        PermutationSymmetry.from_dict([spec])


# -- the forward pass that a symmetry was found on -----------------------------------------------


class Chain(nn.Module):
    """Three layers; the second of the same shape either way."""

    def __init__(self, joined=False):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.joined = joined

    def forward(self, x):
        x = self.a(x).relu()
        y = self.b(x).relu()
        return self.c(x + y if self.joined else y)


class Image(Chain):
    """The same behind something that hides the shape of the input."""

    def __init__(self, joined=False):
        super().__init__(joined)
        self.first = nn.Conv1d(1, 1, 1)

    def forward(self, x):
        return super().forward(self.first(x)[:, 0])


def kept(net, X=None):
    return PermutationSymmetry.from_dict(
        json.loads(json.dumps(discover_symmetry(net, X).to_dict()))
    )


def test_symmetry_from_a_file_is_refused_for_another_forward_pass():
    symmetry = kept(Chain())
    symmetry.check(Chain())
    with pytest.raises(ArchitectureMismatchError, match="another forward pass: its function"):
        symmetry.apply(Chain(joined=True), symmetry.random_permutation(0))
    with pytest.raises(ArchitectureMismatchError, match="another forward pass"):
        PermutationAligner(symmetry=symmetry).fit(Chain(True), Chain(True))


def test_symmetry_from_a_file_serves_another_forward_pass_that_has_it():
    """Another digest alone is no reason: it changes with the shape of X, and with torch."""
    symmetry = kept(Chain(joined=True))
    symmetry.check(Chain())  # a and b may move together there too
    double = kept(Chain())
    double.check(Chain().double())


def test_samples_tell_the_forward_pass_where_the_shape_is_not_known():
    X = torch.randn(8, 1, 4)
    symmetry = kept(Image(), X)
    symmetry.check(Image(joined=True))  # nothing to run it on
    symmetry.check(Image(), X)
    with pytest.raises(ArchitectureMismatchError, match="another forward pass"):
        symmetry.check(Image(joined=True), X)
    with pytest.raises(ValueError, match=r"cannot run|does not take"):
        symmetry.check(Image(joined=True), X[:, :, :3])


def test_guess_that_the_net_does_not_take_is_no_reason():
    """The first layer's width is known, the shape around it is not."""
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Flatten(1), nn.Linear(18, 2))
    X = torch.randn(8, 3, 4)
    symmetry = kept(net, X)
    moved = symmetry.apply(net, symmetry.random_permutation(0))
    assert not torch.equal(moved[0].weight, net[0].weight)
    torch.testing.assert_close(moved(X), net(X))


def test_graph_is_compared_once(monkeypatch):
    symmetry = kept(Chain())
    symmetry.check(Chain())
    monkeypatch.setattr("sklmc.symmetry._proof._origin.export_graph", None)
    symmetry.check(Chain())


def test_fitted_nets_tell_their_shape():
    X = torch.randn(20, 4).numpy()
    y = (X[:, 0] > 0).astype(int)
    net = NetClassifier(Image, max_epochs=1, random_state=0).fit(X[:, None], y)
    other = NetClassifier(Image, module__joined=True, max_epochs=1).fit(X[:, None], y)
    symmetry = kept(net)
    symmetry.check(net)
    with pytest.raises(ArchitectureMismatchError, match="another forward pass"):
        symmetry.check(other)


# -- permutations --------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    nets = [MLP(4, 2, width=6, depth=2) for _ in range(2)]
    aligner = PermutationAligner().fit(*nets)
    aligner.permutation_.save(tmp_path / "p.safetensors")
    return aligner.permutation_, tmp_path / "p.safetensors"


@pytest.mark.slow
def test_flipped_bits_of_a_file_change_nothing_or_are_refused(saved):
    permutation, path = saved
    rng = random.Random(0)
    whole = path.read_bytes()
    refusals = []
    for _ in range(N_FLIPS):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            again = Permutation.load(path)
        except ValueError as error:
            refusals.append(str(error))
        else:
            assert again == permutation
            assert again.record == permutation.record
            assert again.groups == permutation.groups
    assert len(refusals) > 0.9 * N_FLIPS
    assert all(text.startswith("Permutation") for text in refusals)


def test_changed_metadata_of_a_file_are_refused(saved):
    path = saved[1]
    state, metadata = read_state(path)
    rng = random.Random(3)
    where = list(paths(metadata))
    for _ in range(N_FLIPS):
        changed = mutate(metadata, rng, where)
        write_state(path, state, changed)
        if json.dumps(changed) == json.dumps(metadata):
            continue
        with pytest.raises(ValueError, match=r"^Permutation"):
            Permutation.load(path)


@pytest.mark.parametrize("metadata", [None, [], {}, {"format": "sklmc.Permutation"}])
def test_metadata_without_a_permutation_are_refused(saved, metadata):
    path = saved[1]
    write_state(path, {"w": torch.zeros(2)}, metadata)
    with pytest.raises(ValueError, match=r"^Permutation.load: "):
        Permutation.load(path)


def test_two_exchanged_units_are_refused(saved):
    """Still a permutation: only the checksum can tell."""
    path = saved[1]
    state, metadata = read_state(path)
    state["layers.0"][[0, 1]] = state["layers.0"][[1, 0]]
    write_state(path, state, metadata)
    with pytest.raises(PermutationError, match=r"damaged or was changed .*checksum"):
        Permutation.load(path)


def test_file_of_version_1_is_refused(saved):
    path = saved[1]
    state, metadata = read_state(path)
    write_state(path, state, {**metadata, "version": 1})
    with pytest.raises(ValueError, match=r"version 1 of the format .* fit the aligner again"):
        Permutation.load(path)


def test_a_written_symmetry_shares_nothing_with_the_object():
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    symmetry = discover_symmetry(net)
    before = symmetry.to_dict()
    before["evidence"]["errors"].clear()
    assert symmetry.evidence["errors"]
