"""Forward passes in blocks."""

import numpy as np
import pytest
import torch
from torch import nn

from sklmc._torch import single_thread
from sklmc.models import (
    as_logits,
    capture_activations,
    input_blocks,
    interpolate_states,
    predict_outputs,
    view,
)
from tests.models.conftest import X, chain, snapshot


class Twice(nn.Module):
    """Two arguments, one layer that is called twice, two outputs."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x, shift):
        return self.linear(self.linear(x) + shift), x


def test_blocks_cover_all_samples_in_order():
    x, index = torch.randn(10, 2), torch.arange(10)
    blocks = list(input_blocks((x, index), batch_size=4))
    assert [len(block[1]) for block in blocks] == [4, 4, 2]
    assert torch.equal(torch.cat([block[1] for block in blocks]), index)
    assert [len(part) for (part,) in input_blocks(torch.zeros(2500, 1))] == [1024, 1024, 452]


@pytest.mark.parametrize("batch_size", [None, 1, 7, 30])
def test_outputs_are_those_of_eval_mode(batch_size):
    module = chain(0).train()
    before = snapshot(module)
    look = view(module, caller="f")
    outputs = predict_outputs(look, look.to_input(X), batch_size=batch_size)
    assert snapshot(module) == before
    torch.testing.assert_close(outputs, module.eval()(torch.from_numpy(X)).detach())
    assert not outputs.requires_grad


def test_outputs_with_another_state_leave_the_module_alone():
    a, b = view(chain(0), caller="f"), view(chain(1), caller="f")
    inputs = a.to_input(X)
    before = predict_outputs(a, inputs)
    middle = interpolate_states(a.state, b.state, 1.0)
    torch.testing.assert_close(predict_outputs(a, inputs, middle), predict_outputs(b, inputs))
    assert torch.equal(predict_outputs(a, inputs), before)


def test_one_thread_while_it_runs_and_all_of_them_afterwards():
    seen = []
    module = chain(0)
    module.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    look = view(module, caller="f")
    predict_outputs(look, look.to_input(X))
    assert seen == [1]
    assert torch.get_num_threads() == before
    with single_thread(), single_thread():
        assert torch.get_num_threads() == 1


def test_several_arguments_and_the_first_of_several_outputs():
    look = view(Twice(), caller="f")
    outputs = predict_outputs(look, look.to_input((torch.ones(5, 3), torch.zeros(5, 3))), None, 2)
    assert outputs.shape == (5, 3)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_single_logit_becomes_two(shape):
    z = torch.tensor([-1.0, 0.0, 2.0, 3.0])
    logits = as_logits(z.reshape(shape))
    assert logits.shape == (4, 2)
    torch.testing.assert_close(torch.softmax(logits, dim=1)[:, 1], torch.sigmoid(z))
    assert torch.equal(as_logits(torch.ones(2, 3)), torch.ones(2, 3))


@pytest.mark.parametrize(
    "x, said",
    [
        (np.ones((2, 5)), r"cannot run on 'X' of shape \(2, 5\). Its first linear layer takes 3"),
        (np.ones(3), r"cannot run on 'X' of shape \(3,\)"),
    ],
)
def test_input_that_does_not_fit_is_explained(x, said):
    look = view(chain(0), caller="f", name="net")
    with pytest.raises(ValueError, match=f"f: net {said}"):
        predict_outputs(look, look.to_input(x))


def test_output_that_is_no_tensor_is_refused():
    class Mapping(nn.Linear):
        def forward(self, x):
            return {"logits": super().forward(x)}

    look = view(Mapping(3, 2), caller="f")
    with pytest.raises(TypeError, match="returns dict; wrap the module so that it returns one"):
        predict_outputs(look, look.to_input(X))


def test_captured_activations_are_those_of_the_layers():
    module = chain(0)
    look = view(module, caller="f")
    layers = [("0", "output"), ("3", "input"), ("3", "output")]
    blocks = list(capture_activations(look, look.to_input(X), layers, batch_size=8))
    assert [len(block["0", "output", 0]) for block in blocks] == [8, 8, 8, 6]

    def whole(path, side):
        return torch.cat([block[path, side, 0] for block in blocks])

    torch.testing.assert_close(whole("0", "output"), module[0](torch.from_numpy(X)).detach())
    torch.testing.assert_close(whole("3", "output"), module(torch.from_numpy(X)).detach())
    torch.testing.assert_close(module[3](whole("3", "input")).detach(), whole("3", "output"))
    assert not look.module[0]._forward_hooks
    assert not look.module[3]._forward_pre_hooks


def test_each_call_of_a_layer_has_an_entry_of_its_own():
    look = view(Twice(), caller="f")
    inputs = (torch.ones(5, 3), torch.zeros(5, 3))
    (block,) = capture_activations(look, inputs, [("linear", "output")])
    first, second = block["linear", "output", 0], block["linear", "output", 1]
    assert len(block) == 2
    torch.testing.assert_close(second, look.module.linear(first).detach())


def test_captured_values_are_those_before_an_operation_in_place():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    look = view(module, caller="f")
    (block,) = capture_activations(look, look.to_input(X), [("0", "output"), ("1", "output")])
    assert (block["0", "output", 0] < 0).any()
    assert (block["1", "output", 0] >= 0).all()


def test_transformer_layers_show_their_modules():
    """In eval mode torch takes a fused path that calls none of them."""
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True).eval()
    look = view(layer, caller="f")
    (block,) = capture_activations(look, torch.randn(3, 4, 8), [("linear2", "input")])
    assert block["linear2", "input", 0].shape == (3, 4, 12)
    assert torch.backends.mha.get_fastpath_enabled()


def test_hooks_go_when_the_reader_stops_early():
    look = view(chain(0), caller="f")
    reader = capture_activations(look, look.to_input(X), [("0", "input")], batch_size=8)
    next(reader)
    reader.close()
    assert not look.module[0]._forward_pre_hooks


def test_unknown_layer_is_named_beside_those_there_are():
    look = view(chain(0), caller="f", name="net")
    with pytest.raises(ValueError, match=r"f: net has no layer 'fc'; its layers are \['0', '1'"):
        list(capture_activations(look, look.to_input(X), [("fc", "output")]))
