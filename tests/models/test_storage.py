"""States on disk."""

import pytest
import torch

from sklmc.models import raw_bytes, read_state, state_fingerprint, write_state
from tests.disks import full_disk

STATE = {
    "weight": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "counter": torch.tensor(7),
    "empty": torch.zeros(0, 3),
}


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "net.safetensors"
    write_state(path, STATE, {"width": 3, "names": ["a", "ä"]})
    state, metadata = read_state(path)
    assert state.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor)
    assert metadata == {"width": 3, "names": ["a", "ä"]}
    assert [one.name for one in tmp_path.iterdir()] == ["net.safetensors"]


def test_tied_and_strided_tensors_are_written(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    write_state(tmp_path / "x", {"a": shared, "b": shared, "c": shared.T})
    state, metadata = read_state(str(tmp_path / "x"))
    assert torch.equal(state["b"], shared)
    assert torch.equal(state["c"], shared.T)
    assert metadata == {}


def test_failed_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    write_state(path, STATE)
    with pytest.raises(TypeError):
        write_state(path, STATE, {"module": object()})
    assert read_state(path)[0].keys() == STATE.keys()
    assert len(list(tmp_path.iterdir())) == 1


def test_full_disk_is_an_os_error_that_says_what_to_do(tmp_path):
    path = tmp_path / "x"
    write_state(path, STATE)
    match = r"write_state: '.*x' cannot be written .* free some space"
    with full_disk(), pytest.raises(OSError, match=match):
        write_state(path, {"large": torch.ones(100_000)})
    assert read_state(path)[0].keys() == STATE.keys()


def test_folder_that_is_gone_is_an_os_error_that_names_the_file(tmp_path):
    with pytest.raises(OSError, match=r"'.*gone/x' cannot be written"):
        write_state(tmp_path / "gone" / "x", STATE)


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x10" * 64])
def test_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"read_state: '.*broken' is damaged or was not written"):
        read_state(path)


def test_truncated_file_is_named(tmp_path):
    path = tmp_path / "short"
    write_state(path, STATE)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="is damaged"):
        read_state(path)


def test_foreign_file_is_named(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="was not written by sklmc"):
        read_state(tmp_path / "foreign")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file '.*gone'"):
        read_state(tmp_path / "gone")


def test_single_number_has_bytes_whatever_its_stride():
    column = torch.arange(10.0)[None, :][:, 3]
    assert column.is_contiguous()
    assert column.stride() == (10,)
    assert bytes(raw_bytes(column)) == torch.tensor([3.0]).numpy().tobytes()
    assert state_fingerprint({"b": column}) == state_fingerprint({"b": column.clone()})
