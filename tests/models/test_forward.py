"""Forward passes watched: calls, what goes in, what comes out."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from sklmc.models import Reader, Watcher, end_pass, find_chain, read_once, view
from tests.models.conftest import X, chain, snapshot


class Twice(nn.Module):
    """Two arguments, one layer that is called twice, two outputs."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x, shift):
        return self.linear(self.linear(x) + shift), x


class Functional(nn.Module):
    """A function inside a module, keyword arguments, a module inside a module."""

    def __init__(self):
        super().__init__()
        self.body = chain(0)

    def forward(self, x):
        return functional.relu(input=self.body(input=x)).tanh()


def look_at(module):
    return view(module, caller="f", name="net")


def watched(module, *args, **options):
    seen = []
    with Watcher(look_at(module), lambda call: seen.append(call), **options) as watcher:
        watcher.run(args)
    return seen


# -- calls -----------------------------------------------------------------------------------


def test_calls_have_names_and_numbers_in_the_order_of_the_pass():
    calls = watched(Twice(), torch.ones(2, 3), torch.ones(2, 3))
    assert [(call.name, call.index) for call in calls] == [("", 0), ("linear", 1), ("linear:1", 2)]
    assert calls[1].inside is calls[0]
    assert torch.equal(calls[1].input, torch.ones(2, 3))


def test_functions_are_calls_where_they_are_asked_for():
    module = Functional()
    calls = watched(module, torch.ones(2, 3), functions=lambda func: func is functional.relu)
    assert [call.name for call in calls if call.function] == ["body.2.relu()", "relu()"]
    (last,) = [call for call in calls if call.name == "relu()"]
    torch.testing.assert_close(last.input, module.body(torch.ones(2, 3)))
    assert not [call for call in watched(module, torch.ones(2, 3)) if call.function]


def test_what_a_watcher_computes_is_no_call_of_the_net():
    seen = []

    def before(call):
        seen.append(call.name)
        functional.relu(torch.ones(2))

    with Watcher(look_at(chain(0)), before, functions=lambda func: True, modules=()) as watcher:
        watcher.run((torch.ones(2, 3),))
    assert seen.count("relu()") == 1


def test_output_can_be_replaced():
    module = chain(0)

    def after(call, output):
        return torch.zeros_like(output)

    with Watcher(look_at(module), after=after, modules=["1"]) as watcher:
        output = watcher.run((torch.ones(2, 3),))
    torch.testing.assert_close(output, module[3](module[2](torch.zeros(2, module[0].out_features))))


def test_a_pass_that_is_ended_leaves_the_next_one_whole():
    look, module = look_at(chain(0)), chain(0)
    names = []

    def before(call):
        names.append(call.name)
        if call.name == "1" and len(names) < 4:
            end_pass()

    with Watcher(look, before) as watcher:
        assert watcher.run((torch.ones(2, 3),)) is None
        torch.testing.assert_close(watcher.run((torch.ones(2, 3),)), module(torch.ones(2, 3)))
    assert names[:3] == ["", "0", "1"]
    assert names[3:6] == ["", "0", "1"]


def test_a_net_that_catches_every_exception_is_ended_all_the_same():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = chain(0)

        def forward(self, x):
            try:
                return self.inner(x)
            except Exception:
                return self.inner(2 * x)

    calls = []

    def before(call):
        calls.append(call.name)
        end_pass()

    with Watcher(look_at(Stubborn()), before, modules=["inner.1"]) as watcher:
        assert watcher.run((torch.ones(2, 3),)) is None
    assert calls == ["inner.1"]


def test_transformer_layers_show_their_modules():
    """In eval mode torch takes a fused path that calls none of them."""
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True).eval()
    into, _ = read_once(look_at(layer), "linear2", (torch.randn(3, 4, 8),))
    assert into.shape == (3, 4, 12)
    assert torch.backends.mha.get_fastpath_enabled()


def test_hooks_go_with_the_block_whatever_ends_it():
    look = look_at(chain(0))
    with pytest.raises(KeyboardInterrupt), Watcher(look, lambda call: None):
        raise KeyboardInterrupt
    assert not any(part._forward_pre_hooks for part in look.module.modules())


# -- readings --------------------------------------------------------------------------------


def test_readings_are_what_the_layers_saw():
    module = chain(0)
    look, before = look_at(module), snapshot(module)
    with Reader(look, inputs=["3"], outputs=["0", "3"]) as reader:
        found = [reader.run(args) for args in look.to_input(X).blocks(8)]
    assert [len(one.outputs["0"]) for one in found] == [8, 8, 8, 6]
    first = torch.cat([one.outputs["0"] for one in found])
    into, last = (torch.cat([getattr(one, s)["3"] for one in found]) for s in ("inputs", "outputs"))
    torch.testing.assert_close(first, module[0](torch.from_numpy(X)).detach())
    torch.testing.assert_close(module[3](into).detach(), last)
    assert snapshot(module) == before
    assert not any(part._forward_hooks for part in look.module.modules())


def test_each_call_of_a_layer_has_an_entry_of_its_own():
    look = look_at(Twice())
    with Reader(look, outputs=["linear"]) as reader:
        found = reader.run((torch.ones(5, 3), torch.zeros(5, 3))).outputs
    assert list(found) == ["linear", "linear:1"]
    torch.testing.assert_close(found["linear:1"], look.module.linear(found["linear"]).detach())


def test_values_are_those_before_an_operation_in_place():
    look = look_at(nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True)))
    with Reader(look, inputs=["1"], outputs=["0", "1"]) as reader:
        for _ in range(2):
            found = reader.run((torch.from_numpy(X),))
            assert (found.outputs["0"] < 0).any()
            assert (found.outputs["1"] >= 0).all()
            assert found.inputs["1"] is found.outputs["0"]  # one tensor in the pass, one here


# -- rows of layers --------------------------------------------------------------------------


def names_of_chain(module, width=3, **options):
    row = find_chain(look_at(module), (torch.ones(2, width),), **options)
    return [call.path for call, _ in row]


def test_chain_is_the_row_of_layers_that_ends_with_the_output():
    assert names_of_chain(chain(0)) == ["0", "1", "2", "3"]
    assert names_of_chain(Functional()) == []  # a function comes last

    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.body = nn.Linear(3, 3), chain(0)

        def forward(self, x):
            return self.body(2 * self.first(x))

    assert names_of_chain(Doubled()) == [f"body.{i}" for i in range(4)]


def test_a_change_in_place_between_two_layers_breaks_the_chain():
    class Changed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            h = self.first(x)
            h += 1.0
            return self.last(h)

    assert names_of_chain(Changed()) == ["last"]
    in_place = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    assert names_of_chain(in_place) == ["0", "1", "2"]  # the layer's own business


def test_a_decision_on_values_between_two_layers_breaks_the_chain():
    class Decides(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.body = nn.Linear(3, 3), chain(0)

        def forward(self, x):
            h = self.first(x)
            return self.body(h if h.sum() < 100 else 2 * h)

    assert names_of_chain(Decides()) == [f"body.{i}" for i in range(4)]


def test_numbers_say_what_comes_before_a_chain():
    class Asks(nn.Module):
        def __init__(self, shifts):
            super().__init__()
            self.shifts, self.body = shifts, chain(0)

        def forward(self, x):
            assert x.ndim == x.dim() == 2
            assert x.dtype is torch.float32
            return self.body(x + 1 if self.shifts else x)

    for shifts in (False, True):
        (first, _), *_ = find_chain(look_at(Asks(shifts)), (torch.ones(2, 3),))
        assert first.index - first.inside.index == 1 + shifts


def test_a_chain_may_be_one_in_evaluation_only():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))

        def forward(self, x):
            return self.body(x + torch.randn_like(x)) + 1 if self.training else self.body(x)

    module = Noisy().train()
    before = snapshot(module)
    assert names_of_chain(module) == ["body.0", "body.1"]
    assert names_of_chain(module, training=True) == []
    assert names_of_chain(module.body, training=True) == ["0", "1"]
    assert snapshot(module) == before
    look = look_at(module)
    find_chain(look, (torch.ones(2, 3),), training=True)
    assert not any(part.training for part in look.module.modules())
