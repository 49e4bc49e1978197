"""The only place that seeds torch, counts its threads, sets its defaults or touches devices."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

_lock = threading.RLock()


def _renew_lock() -> None:
    """Give a forked child a lock of its own: the parent's may be held by a thread that is gone."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextlib.contextmanager
def _set(read: Callable, write: Callable, value) -> Iterator[None]:
    """Set what belongs to the whole process for a block, and put it back.

    A reentrant lock keeps concurrent blocks from restoring it under each other.
    """
    with _lock:
        before = read()
        if before != value:
            write(value)
        try:
            yield
        finally:
            if read() != before:
                write(before)


def single_thread() -> contextlib.AbstractContextManager[None]:
    """Run a block with one intra-op thread, so that bits depend on neither n_jobs nor backend."""
    return _set(torch.get_num_threads, torch.set_num_threads, 1)


def plain_attention() -> contextlib.AbstractContextManager[None]:
    """Keep torch's transformer layers from a fused path that goes round their sub-modules."""
    mha = torch.backends.mha
    return _set(mha.get_fastpath_enabled, mha.set_fastpath_enabled, False)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch, numpy and random for a block and put every generator back afterwards."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with _lock, torch.random.fork_rng(devices):
        numpy_state = np.random.get_state()
        python_state = random.getstate()
        try:
            # torch.manual_seed also formats a stack trace for devices that are not there
            torch.default_generator.manual_seed(seed)
            if torch.cuda.is_available():
                torch.cuda.manual_seed_all(seed)
            if torch.backends.mps.is_available():
                torch.mps.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


@contextlib.contextmanager
def torch_defaults(dtype: torch.dtype | None = torch.float32) -> Iterator[None]:
    """Run a block under torch's own settings, whatever the caller has set around it.

    Gradients are on, inference mode and autocast are off, tensors are made on the CPU and, where
    nothing else is said, in `dtype` (None: the caller's default). Nets are built, trained and run
    in here, so that the same seed gives the same bits everywhere, and tensors that can be trained
    further.
    """
    with contextlib.ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if dtype is not None:
            stack.enter_context(_set(torch.get_default_dtype, torch.set_default_dtype, dtype))
        yield


def module_device(module: nn.Module) -> torch.device:
    """Return the device of the first parameter or buffer; the CPU where there is none."""
    first = next(itertools.chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def usable_device(name) -> torch.device:
    """Return the device of this name, or the CPU where this machine has none such."""
    device = torch.device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        return torch.device("cpu")
    return device


def to_device(value, device):
    """Move a tensor, or the tensors in a tuple, to a device."""
    if isinstance(value, tuple):
        return tuple(to_device(part, device) for part in value)
    return value.to(device) if isinstance(value, torch.Tensor) else value


def read_together(truths: Sequence[bool | torch.Tensor]) -> list[bool]:
    """Read many truths at once: each read from an accelerator waits until that has caught up."""
    read = list(truths)
    places: dict[torch.device, list[int]] = {}
    for place, truth in enumerate(truths):
        if isinstance(truth, torch.Tensor):
            places.setdefault(truth.device, []).append(place)
    for found in places.values():
        values = torch.stack([truths[place] for place in found]).tolist()
        for place, value in zip(found, values):
            read[place] = value
    return read


def all_finite(values: Iterable) -> bool:
    """Say whether the tensors among some values hold no NaN and no infinity."""
    tensors = (value for value in values if isinstance(value, torch.Tensor))
    return all(read_together([torch.isfinite(tensor).all() for tensor in tensors]))


def are_equal(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> list[bool]:
    """Say of each pair of tensors of one shape whether they hold the same values."""
    return read_together(
        [torch.equal(a, b) if a.device.type == "cpu" else (a == b).all() for a, b in pairs]
    )


def fixed_normal(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Draw standard normal numbers that are the same in every process, globals untouched."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    return normal.to(dtype)
