"""Permutations that are kept: saved with what they were found for, checked when they come back."""

import json

import numpy as np
import pytest
import torch

from sklmc import PermutationAligner
from sklmc.exceptions import PermutationError, SymmetryError
from sklmc.models import read_state, write_state
from sklmc.nets import MLP
from sklmc.symmetry import Permutation, discover_symmetry


def nets(n=2, **arguments):
    options = {"n_features": 4, "n_outputs": 2, "width": 6, "depth": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [MLP(**options | arguments) for _ in range(n)]


@pytest.fixture
def kept(tmp_path):
    a, b = nets()
    aligner = PermutationAligner().fit(a, b)
    aligner.permutation_.save(tmp_path / "p.safetensors")
    return a, b, aligner, tmp_path / "p.safetensors"


def test_permutation_comes_back_with_its_record(kept):
    a, b, aligner, path = kept
    loaded = Permutation.load(path, model_a=a, model_b=b)
    assert loaded == aligner.permutation_
    assert loaded.record == aligner.permutation_.record
    assert loaded.record["objective"] == aligner.objective_
    assert loaded.record["method"] == "weight"
    assert loaded.record["equivalence_error"] < 1e-10
    assert loaded.groups == aligner.permutation_.groups
    moved = aligner.symmetry_.apply(b, loaded)
    for p, q in zip(moved.parameters(), aligner.transform(b).parameters()):
        assert torch.equal(p, q)


def test_record_is_plain_json(kept):
    record = kept[2].permutation_.record
    assert json.loads(json.dumps(record)) == record


def test_loaded_permutation_starts_a_fit(kept):
    a, b, aligner, path = kept
    again = PermutationAligner(init=Permutation.load(path)).fit(a, b)
    assert again.permutation_ == aligner.permutation_
    assert again.n_iter_ == 0


def test_other_weights_are_refused(kept):
    _, b, _, path = kept
    with pytest.raises(PermutationError, match="weights of 'model_a' are not those"):
        Permutation.load(path, model_a=b)
    with torch.no_grad():
        b.layers[0].bias[0] += 1e-6
    with pytest.raises(PermutationError, match="weights of 'model_b' are not those"):
        Permutation.load(path, model_b=b)


@pytest.mark.parametrize("other", [{"width": 7}, {"depth": 1}, {"norm": "layer"}])
def test_permutation_of_another_architecture_is_refused(kept, other):
    (net,) = nets(1, **other)
    symmetry = discover_symmetry(net)
    with pytest.raises((SymmetryError, PermutationError), match=r"group|another net"):
        symmetry.apply(net, Permutation.load(kept[3]))


def test_array_that_is_no_permutation_is_refused(kept):
    path = kept[3]
    state, metadata = read_state(path)
    state["layers.0"] = torch.zeros(6, dtype=torch.int64)
    write_state(path, state, metadata)
    with pytest.raises(PermutationError, match=r"layers\.0"):
        Permutation.load(path)


def test_damaged_foreign_and_missing_files_are_named(kept, tmp_path):
    path = kept[3]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"p\.safetensors.* is damaged"):
        Permutation.load(path)
    write_state(tmp_path / "net.safetensors", {"w": torch.zeros(2)}, {"format": "net"})
    with pytest.raises(ValueError, match="holds no permutation of sklmc"):
        Permutation.load(tmp_path / "net.safetensors")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Permutation.load(tmp_path / "nowhere.safetensors")


def test_file_that_could_not_be_written_leaves_the_old_one(kept, monkeypatch):
    _, _, aligner, path = kept
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("sklmc.models._storage.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        aligner.permutation_.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_arrays_cannot_be_written_into(kept):
    perm = kept[2].permutation_["layers.0"]
    with pytest.raises(ValueError, match="read-only"):
        perm[0] = 1
    assert perm.dtype == np.int64
