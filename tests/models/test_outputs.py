"""Forward passes in blocks."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.classifier import NeuralNetBinaryClassifier
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


# What modules return besides a tensor


class Answer(dict):
    """A dict whose entries are attributes too, as models of texts return it."""

    __getattr__ = dict.get


class Slots:
    """An object with logits among other things."""

    def __init__(self, logits):
        self.loss, self.logits = None, logits


class Returning(nn.Module):
    """Returns what `form` makes of the logits."""

    def __init__(self, form):
        super().__init__()
        self.net, self.form = chain(0), form

    def forward(self, x):
        return self.form(self.net(x))


FORMS = {
    "tuple": lambda z: (z, z.sum()),
    "list": lambda z: [z, z.sum()],
    "dict": lambda z: {"loss": z.sum(), "logits": z},
    "dict with attributes": lambda z: Answer(loss=None, logits=z),
    "object": Slots,
}


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_found_in_what_a_module_returns(form):
    look, plain = view(Returning(FORMS[form]), caller="f"), view(chain(0), caller="f")
    expected = predict_outputs(plain, plain.to_input(X))
    assert torch.equal(predict_outputs(look, look.to_input(X)), expected)


@pytest.mark.parametrize(
    "form, said",
    [
        (lambda z: {"scores": z, "loss": z.sum()}, "net returns dict with 'scores', 'loss'; wrap"),
        (lambda z: (), "net returns tuple; wrap the module"),
        (lambda z: "text", "net returns str; wrap the module"),
    ],
)
def test_other_outputs_are_refused(form, said):
    look = view(Returning(form), caller="f", name="net")
    with pytest.raises(TypeError, match=f"f: {said}"):
        predict_outputs(look, look.to_input(X))


class Probabilities(nn.Module):
    """Returns what skorch's default criteria take: probabilities."""

    def __init__(self, binary=False):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.binary = nn.Linear(3, 1 if binary else 2), binary

    def forward(self, x):
        z = self.net(x)
        return torch.sigmoid(z)[:, 0] if self.binary else torch.softmax(z, dim=1)


def test_probabilities_for_nll_loss_count_as_logits():
    net = NeuralNetClassifier(Probabilities).initialize()  # skorch's default is NLLLoss
    look = view(net, caller="f")
    outputs = predict_outputs(look, look.to_input(X))
    logits = net.module_.net(torch.from_numpy(X)).detach()
    torch.testing.assert_close(outputs, torch.log_softmax(logits, dim=1))


def test_probabilities_for_binary_cross_entropy_count_as_logits():
    net = NeuralNetBinaryClassifier(
        Probabilities, criterion=nn.BCELoss, module__binary=True
    ).initialize()
    look = view(net, caller="f")
    outputs = predict_outputs(look, look.to_input(X))
    logits = net.module_.net(torch.from_numpy(X)).detach()[:, 0]
    torch.testing.assert_close(outputs, logits, atol=1e-5, rtol=1e-5)


def test_a_certain_net_has_finite_logits():
    net = NeuralNetClassifier(Probabilities).initialize()
    with torch.no_grad():
        net.module_.net.weight.mul_(1e6)
    look = view(net, caller="f")
    assert torch.isfinite(predict_outputs(look, look.to_input(X))).all()


class InPlace(nn.Module):
    """Writes into its input."""

    def __init__(self):
        super().__init__()
        self.net = chain(0)

    def forward(self, x):
        return self.net(x.mul_(2.0))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, lambda x: (torch.from_numpy(x),)])
def test_a_net_that_writes_into_its_input_reads_it_unchanged_each_time(kind):
    rows = X.copy()
    given = kind(rows)
    look = view(InPlace(), caller="f")
    inputs = look.to_input(given)
    first = predict_outputs(look, inputs)
    assert torch.equal(predict_outputs(look, inputs), first)
    assert (rows == X).all()
