"""Forward passes in blocks."""

import numpy as np
import pytest
import torch
from torch import nn

from sklmc._torch import single_thread
from sklmc.models import (
    as_logits,
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
