"""Copies that hold exactly the tensors asked for."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from skorch.callbacks import LRScheduler
from torch import nn
from torch.nn.utils import parametrizations

from sklmc.models import SpentState, average_models, interpolate_models, named_tensors, view
from tests.models.conftest import X, Y, chain, skorch_net, snapshot


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.again = self.first

    def forward(self, x):
        return self.again(self.second(torch.relu(self.first(x))))


class Shifted(nn.Module):
    """A non-persistent buffer is part of the function, but not of the state."""

    def __init__(self, shift):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("shift", torch.full((2,), float(shift)), persistent=False)

    def forward(self, x):
        return self.linear(x) + self.shift


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.lstm(x[:, None])[0][:, -1])


def old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2))


def new_weight_norm():
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2))


def new_spectral_norm():
    return nn.Sequential(parametrizations.spectral_norm(nn.Linear(3, 4)), nn.Linear(4, 2)).eval()


KINDS = {
    "chain": lambda: chain(1),
    "tied": Tied,
    "lstm": Recurrent,
    "old weight norm": old_weight_norm,
    "new weight norm": new_weight_norm,
    "spectral norm": new_spectral_norm,
    "half": lambda: chain(1).bfloat16(),
    "double": lambda: chain(1).double(),
}


def outputs(module, x=X):
    dtype = next(module.parameters()).dtype
    with torch.no_grad():
        return module(torch.from_numpy(x).to(dtype)).clone()


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_values_are_those_of_state_dict(kind):
    module = KINDS[kind]()
    ours = dict(named_tensors(module))
    theirs = module.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert torch.equal(tensor.detach(), theirs[name])


@pytest.mark.parametrize("kind", KINDS)
def test_average_computes_with_the_mean_of_tensors(kind):
    """A fresh module that loads the mean state dict is the truth."""
    a, b = KINDS[kind](), KINDS[kind]()
    for tensor in b.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1.5)
    mean = average_models([a, b])
    truth = KINDS[kind]().eval()
    state = {
        name: ((t.double() + u.double()) / 2).to(t.dtype) if t.is_floating_point() else t
        for (name, t), u in zip(a.state_dict().items(), b.state_dict().values(), strict=True)
    }
    truth.load_state_dict(state)
    assert torch.equal(outputs(mean.eval()), outputs(truth))
    assert not torch.allclose(outputs(mean), outputs(a.eval()))


@pytest.mark.parametrize("kind", KINDS)
def test_models_handed_in_stay_as_they_were(kind):
    a, b = KINDS[kind](), KINDS[kind]()
    a.train()
    a[0].train() if isinstance(a, nn.Sequential) else None
    outputs(a).sum()
    before = snapshot(a), snapshot(b)
    mean = interpolate_models(a, b, 0.25)
    for tensor in mean.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(1.0)  # a copy that shared memory would change the original
    mean.eval()
    assert (snapshot(a), snapshot(b)) == before


def test_copy_keeps_flags_hooks_and_frozen_parameters():
    module = chain(0).train()
    module[1].eval()
    module[0].weight.requires_grad_(False)
    module[3].register_forward_hook(lambda part, args, output: output + 1.0)
    module[0].weight.grad = torch.ones(4, 3)
    copied = average_models([module])
    assert [part.training for part in copied.modules()] == [
        part.training for part in module.modules()
    ]
    assert not copied[0].weight.requires_grad
    assert copied[0].weight.grad is None
    assert copied[3].weight.requires_grad
    assert torch.equal(outputs(copied.eval()), outputs(module.eval()))


def test_tied_tensors_stay_tied():
    mean = average_models([Tied(), Tied()])
    assert mean.second.weight is mean.first.weight
    assert mean.again is mean.first


def test_non_persistent_buffers_come_from_the_first_model():
    a, b = Shifted(1), Shifted(3)
    mean = average_models([a, b])
    assert torch.equal(mean.shift, a.shift)
    assert mean.shift is not a.shift
    assert "shift" not in mean.state_dict()


def test_counters_come_from_the_first_model_with_weight():
    a, b = chain(0), chain(1)
    assert average_models([a, b])[1].num_batches_tracked == 5
    assert average_models([a, b], weights=[0, 1])[1].num_batches_tracked == 6


def test_parametrized_copy_trains_its_own_parameters():
    module = new_weight_norm()
    copied = average_models([module])
    copied(torch.from_numpy(X)).sum().backward()
    assert copied[0].parametrizations.weight.original1.grad is not None
    assert module[0].parametrizations.weight.original1.grad is None


def test_old_weight_norm_copy_follows_its_own_g_and_v():
    copied = average_models([old_weight_norm()])
    before = outputs(copied)
    with torch.no_grad():
        copied[0].weight_g.mul_(2.0)
    assert not torch.allclose(outputs(copied), before)


def test_rebuilt_net_trains_its_own_parameters():
    a, b = skorch_net(0), skorch_net(1)
    before = snapshot(a.module_), snapshot(b.module_)
    merged = average_models([a, b])
    bound = [id(p) for group in merged.optimizer_.param_groups for p in group["params"]]
    assert bound == [id(p) for p in merged.module_.parameters()]
    assert not merged.optimizer_.state
    assert a.optimizer_.state
    start = outputs(merged.module_)
    merged.partial_fit(X, Y)
    assert not torch.equal(outputs(merged.module_.eval()), start)
    assert (snapshot(a.module_), snapshot(b.module_)) == before


def test_rebuilt_net_starts_with_an_empty_history():
    net = skorch_net(0)
    merged = average_models([net, skorch_net(1)])
    assert len(merged.history) == 0
    assert len(net.history) == 2
    merged.partial_fit(X, Y)
    assert len(merged.history) == 2


def test_rebuilt_net_with_a_scheduler_trains_on():
    nets = [
        skorch_net(seed, callbacks=[LRScheduler("StepLR", step_size=1, gamma=0.5)])
        for seed in range(2)
    ]
    merged = average_models(nets)
    rate = nets[0].optimizer_.param_groups[0]["lr"]
    merged.partial_fit(X, Y)
    assert merged.optimizer_.param_groups[0]["lr"] < rate
    assert nets[0].optimizer_.param_groups[0]["lr"] == rate


def test_rebuilt_net_survives_a_pickle():
    merged = average_models([skorch_net(0), skorch_net(1)])
    again = pickle.loads(pickle.dumps(merged))
    np.testing.assert_array_equal(again.predict_proba(X), merged.predict_proba(X))
    again.partial_fit(X, Y)


def test_private_module_shares_parameters_and_owns_the_rest():
    module = chain(0).train()
    look = view(module, caller="test")
    private = look.module
    assert private[0].weight is module[0].weight
    assert not private.training
    assert module.training
    private[1].running_mean.add_(1.0)
    assert not torch.equal(private[1].running_mean, module[1].running_mean)


@pytest.mark.parametrize(
    "module, said",
    [
        (nn.LazyLinear(2), r"tensor 'weight' of 'models\[0\]' has no values yet"),
        (nn.Linear(2, 2, device="meta"), "has no values yet .* load its weights first"),
    ],
)
def test_tensors_without_values_are_refused(module, said):
    with pytest.raises(ValueError, match=said):
        average_models([module, module])


def test_weights_outside_parameters_are_refused():
    class Packed(nn.Linear):
        def _save_to_state_dict(self, destination, prefix, keep_vars):
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[prefix + "packed"] = torch.zeros(3)

    with pytest.raises(TypeError, match="keeps 'packed' outside its parameters and buffers"):
        average_models([Packed(2, 2)])


def test_extra_state_is_no_obstacle():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"anything": 1}

        def set_extra_state(self, state):
            pass

    assert isinstance(average_models([Extra(2, 2), Extra(2, 2)]), Extra)


@pytest.mark.parametrize("build", [Tied, lambda: chain(0)], ids=["tied", "chain"])
def test_model_made_of_a_spent_state_leaves_no_second_copy(build):
    look = view(build(), caller="test")
    state = SpentState({name: tensor + 1 for name, tensor in look.state.items()})
    wanted = {name: tensor.clone() for name, tensor in state.items()}
    new = dict(named_tensors(look.rebuild(state)))
    assert new.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in new.items())
    unread = {"second.weight", "again.weight", "again.bias"}  # tied: read under their first name
    assert set(state) == unread & set(wanted)
