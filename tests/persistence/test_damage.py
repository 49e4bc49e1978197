"""Files that are not what was written are refused, every one."""

import json
import struct

import numpy as np
import pytest
import torch

import sklmc
from sklmc import load_model, save_model
from tests.disks import full_disk
from tests.persistence.models import X, net, y

REFUSED = r"load_model: 'path' names no model that can be loaded, '.*m': "


@pytest.fixture
def path(tmp_path):
    save_model(net().fit(X, np.where(y == "no", "näin", y)), tmp_path / "m")
    return tmp_path / "m"


def rewrite_notes(path, change):
    """Change the JSON of a file's header and leave the rest of the file alone."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    notes = json.loads(header["__metadata__"]["sklmc"])
    change(notes)
    header["__metadata__"]["sklmc"] = json.dumps(notes)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


@pytest.mark.slow
def test_three_hundred_single_flips_are_all_refused(path):
    good = path.read_bytes()
    random = np.random.default_rng(0)
    (length,) = struct.unpack("<Q", good[:8])
    places = [*range(8), *random.integers(8, 8 + length, 146), *random.integers(0, len(good), 146)]
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << random.integers(8)
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=REFUSED):
            load_model(path)
    path.write_bytes(good)
    load_model(path)


def test_truncated_and_lengthened_files_are_refused(path):
    good = path.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(good) // 2, len(good) - 1]:
        path.write_bytes(good[:length])
        with pytest.raises(ValueError, match=REFUSED):
            load_model(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(ValueError, match=REFUSED):
        load_model(path)


def test_newer_format_is_refused_with_the_remedy(path):
    rewrite_notes(path, lambda notes: notes.update(version=2))
    with pytest.raises(ValueError, match=r"its format is newer, version 2.*update sklmc"):
        load_model(path)


def test_changed_notes_are_refused(path):
    rewrite_notes(path, lambda notes: notes["classes"].reverse())
    with pytest.raises(ValueError, match="its content does not fit its digest"):
        load_model(path)


def test_other_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, tmp_path / "m")
    with pytest.raises(ValueError, match=REFUSED):
        load_model(tmp_path / "m")
    sklmc.models.write_state(tmp_path / "m", {"weight": torch.ones(2)}, {"format": "another"})
    with pytest.raises(ValueError, match=REFUSED + "it holds no model of sklmc"):
        load_model(tmp_path / "m")
    torch.save({"weight": torch.ones(2)}, tmp_path / "m")  # a pickle
    with pytest.raises(ValueError, match=REFUSED):
        load_model(tmp_path / "m")


def test_missing_file_and_folder_are_named(tmp_path):
    for bad in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match="load_model: 'path' must name a file that exi"):
            load_model(bad)
    for bad in (tmp_path / "no" / "folder", tmp_path):
        with pytest.raises(FileNotFoundError, match="save_model: 'path' must name a file in a fol"):
            save_model(torch.nn.Linear(2, 2), bad)


def test_full_disk_leaves_the_old_file_and_nothing_half(path):
    good = path.read_bytes()
    match = r"save_model: '.*m' cannot be written .* free some space"
    with full_disk(), pytest.raises(OSError, match=match):
        save_model(torch.nn.Linear(200, 200), path)
    assert path.read_bytes() == good
    assert [one.name for one in path.parent.iterdir()] == ["m"]
    load_model(path)
