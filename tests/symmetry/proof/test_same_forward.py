"""What was found on one net is taken for another only where both compute alike."""

from __future__ import annotations

import functools
import types

import numpy as np
import pytest
import torch
from torch import nn

from sklmc.exceptions import ArchitectureMismatchError
from sklmc.models import view
from sklmc.symmetry import discover_symmetry
from sklmc.symmetry._discovery import cached_symmetry

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


def along(h):
    return h


class Net(nn.Module):
    """Its hidden units stand alone, or are summed up along their axis, as a setting says."""

    def __init__(self, mixed=False, form="list"):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        name = "cumsum" if mixed else "softmax"
        self.how = {
            "list": [name],
            "dict": {"name": name},
            "partial": functools.partial(torch.cumsum if mixed else torch.softmax, dim=1),
            "object": types.SimpleNamespace(name=name),
            "array": np.array([name]),
        }[form]

    def forward(self, x):
        h = along(self.a(x).relu())
        if callable(self.how):
            return self.b(self.how(h))
        name = self.how.name if hasattr(self.how, "name") else next(iter_values(self.how))
        return self.b(getattr(torch, str(name))(h, 1))


def iter_values(how):
    return iter(how.values() if isinstance(how, dict) else how)


FORMS = ["list", "dict", "partial", "object", "array"]


@pytest.mark.parametrize("form", FORMS)
def test_a_setting_of_any_form_belongs_to_the_forward_pass(form):
    found = discover_symmetry(Net(form=form), X)
    found.check(Net(form=form))
    with pytest.raises(ArchitectureMismatchError, match="another forward pass"):
        found.check(Net(True, form))


@pytest.mark.parametrize("form", FORMS)
def test_the_cache_tells_settings_of_any_form_apart(form):
    plain, mixed = (
        cached_symmetry(view(Net(how, form), caller="test"), X) for how in (False, True)
    )
    assert [group.size for group in plain.groups] == [4]
    assert not mixed.groups
    assert cached_symmetry(view(Net(form=form), caller="test"), X) is plain


def test_the_cache_sees_functions_that_were_defined_anew(monkeypatch):
    """As when a cell of a notebook is run again, but not the one with the class."""
    before = cached_symmetry(view(Net(), caller="test"), X)
    monkeypatch.setattr(f"{__name__}.along", lambda h: h.cumsum(1))
    after = cached_symmetry(view(Net(), caller="test"), X)
    assert [group.size for group in before.groups] == [4]
    assert not after.groups
    monkeypatch.undo()
    assert cached_symmetry(view(Net(), caller="test"), X) is before


def test_what_cannot_be_read_is_put_to_the_test_every_time():
    class Handle:
        """Can be copied, but not read."""

        def __deepcopy__(self, memo):
            return self

        def __reduce_ex__(self, protocol):
            raise TypeError("a handle")

    found = discover_symmetry(Net(), X)
    net = Net()
    net.handle = Handle()
    for _ in range(2):
        found.check(net)
    net.how = ["cumsum"]
    with pytest.raises(ArchitectureMismatchError, match="another forward pass"):
        found.check(net)
