"""Every public road on an accelerator: the CPU's result, and nothing leaves without need.

The simulated device is always there; where torch sees a CUDA device, the same roads run on it.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from sklmc import merge_models
from sklmc.exceptions import ArchitectureMismatchError
from tests.devices import accelerator
from tests.devices.roads import ROADS, World

# Largest difference from the CPU's numbers, relative and absolute: the device adds in another
# order (the simulated one takes other kernels of the CPU for convolutions and optimizers).
RELATIVE, ABSOLUTE = {"sim": 1e-4, "cuda": 1e-2}, {"sim": 1e-5, "cuda": 1e-3}

DEVICES = [
    *(["sim"] if accelerator.can_install() else []),
    *([pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else []),
]


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    if request.param == accelerator.NAME:
        accelerator.install()
    return request.param


def leaves(result, device: str) -> list:
    """Return the arrays and texts of a result; the weights of its models must lie on `device`."""
    if isinstance(result, (list, tuple)):
        return [leaf for part in result for leaf in leaves(part, device)]
    module = getattr(result, "module_", result)
    if isinstance(module, nn.Module):
        tensors = [*module.parameters(), *module.buffers()]
        assert {tensor.device.type for tensor in tensors} == {device}
        return [tensor.detach().cpu().numpy() for tensor in tensors]
    if isinstance(result, pd.DataFrame):
        return [column.to_numpy() for _, column in result.items()]
    return [result if isinstance(result, str) else np.asarray(result)]


def is_number(leaf) -> bool:
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub"


@pytest.mark.slow
@pytest.mark.parametrize("name", ROADS)
def test_road_on_a_device_gives_what_the_cpu_gives(name, device):
    road = ROADS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two epochs train no good nets
        wanted = leaves(road.run(World("cpu")), "cpu")
        world = World(device)
        with accelerator.count_transfers() as crossed:
            result = road.run(world)
    found = leaves(result, device)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        if is_number(a):
            np.testing.assert_allclose(a, b, rtol=RELATIVE[device], atol=ABSOLUTE[device])
        else:
            assert np.array_equal(a, b)
    assert crossed.to_device <= road.to_device
    assert crossed.to_cpu <= road.to_cpu
    assert crossed.reads <= road.reads


def test_nets_of_two_devices_are_refused(device):
    with pytest.raises(ArchitectureMismatchError, match="the device of tensor"):
        merge_models([World("cpu").mlps[0], World(device).mlps[1]])


def test_samples_that_lie_on_the_device_are_taken(device):
    world = World(device)
    X, y = torch.from_numpy(world.X).to(device), torch.from_numpy(world.y).to(device)
    on_device = merge_models(world.pair, X, y)
    from_cpu = merge_models(world.pair, world.X, world.y)
    for a, b in zip(on_device.parameters(), from_cpu.parameters()):
        assert torch.equal(a, b)
