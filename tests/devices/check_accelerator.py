"""The simulated device itself: what it refuses, what it counts, and that it computes as the CPU."""

from __future__ import annotations

import copy
import io
import tracemalloc

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from tests.devices import accelerator
from tests.devices.roads import conv_net

pytestmark = pytest.mark.skipif(
    not accelerator.can_install(), reason="this torch takes no devices that are written in Python"
)


@pytest.fixture(autouse=True)
def _installed():
    accelerator.install()


def on_device(*shape) -> torch.Tensor:
    return torch.randn(*shape).to("sim")


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.ones(3) * x,
        lambda x: x @ torch.ones(3),
        lambda x: torch.cat([x, torch.ones(3)]),
        lambda x: torch.ones(3)[x > 0],
        lambda x: x.index_select(0, torch.tensor([0])),
        lambda x: nn.functional.linear(x, torch.ones(2, 3)),
        lambda x: torch.ones(3).add_(x),
        lambda x: torch.where(torch.ones(3) > 0, x, x),
    ],
)
def test_operands_of_two_devices_are_refused(mix):
    with pytest.raises(RuntimeError, match="device"):
        mix(on_device(3))


def test_numpy_cannot_read_it():
    with pytest.raises(TypeError, match="numpy"):
        on_device(3).numpy()


def test_numbers_and_cpu_indices_are_taken_as_cuda_takes_them():
    x = on_device(3)
    assert torch.equal((x * torch.tensor(2.0)).cpu(), 2 * x.cpu())
    assert torch.equal(x[torch.tensor([2, 0])].cpu(), x.cpu()[[2, 0]])


def test_what_crosses_is_counted():
    x = torch.ones(3)
    with accelerator.count_transfers() as crossed:
        there = x.to("sim")
        there += 1  # stays there
        float(there.sum())
        there.cpu()
        there[torch.tensor([0])]
    assert (crossed.to_device, crossed.to_cpu, crossed.reads) == (2, 1, 1)


def test_views_share_memory_and_operations_in_place_reach_it():
    x = torch.zeros(4, 3, device="sim")
    row = x.view(3, 4).t()[1]
    row.fill_(1.0)
    assert row.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert x.sum().item() == 3.0


def test_results_grow_from_nothing():
    out = torch.empty(0, device="sim")
    torch.add(on_device(3), 1, out=out)
    assert out.shape == (3,)
    assert torch.isfinite(on_device(3)).all()


def test_training_gives_the_cpu_net():
    torch.manual_seed(0)
    net, X = conv_net(), torch.randn(8, 1, 6, 6)
    y = torch.arange(8) % 3
    there = copy.deepcopy(net).to("sim")
    for module, inputs, target in ((net, X, y), (there, X.to("sim"), y.to("sim"))):
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs), target).backward()
            optimizer.step()
    for a, b in zip(net.state_dict().values(), there.state_dict().values()):
        torch.testing.assert_close(a, b.cpu())


def test_vmap_of_gradients_runs_there():
    nets = [nn.Linear(3, 2).to("sim") for _ in range(2)]
    parameters, _ = stack_module_state(nets)

    def loss(parameters, x):
        return functional_call(nets[0], parameters, (x,)).square().mean()

    found = vmap(grad(loss), (0, None))(parameters, on_device(5, 3))
    assert found["weight"].shape == (2, 2, 3)
    assert found["weight"].device.type == "sim"


def test_modules_are_exported_copied_and_stored_there():
    net, x = conv_net().eval().to("sim"), on_device(2, 1, 6, 6)
    exported = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(exported(x).cpu(), net(x).cpu())
    twin = copy.deepcopy(net)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    loaded = torch.load(file)
    for name, tensor in net.state_dict().items():
        for other in (twin.state_dict()[name], loaded[name]):
            assert other.device == tensor.device
            assert other.data_ptr() != tensor.data_ptr()
            assert torch.equal(other, tensor)


def test_other_code_forks_and_seeds_generators_as_before():
    state = torch.get_rng_state()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.rand(1, device="sim")
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_is_given_back():
    x = torch.zeros(1_000_000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        row = x.to("sim")[10:]
        held = tracemalloc.get_traced_memory()[0] - before
        del row
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held > 4 * len(x)
    assert left < 100_000  # bytes: objects of Python's
