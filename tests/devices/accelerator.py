"""An accelerator that is none: torch's spare device ("PrivateUse1"), named "sim", in CPU memory.

`install` registers the device, for the rest of the process. Its tensors have a device, a storage
and a dispatch key of their own, so autograd, vmap, export, optimizers and deepcopy take them as
they take CUDA's; each operation runs as the CPU's on the same memory. As on CUDA, operands must lie
on one device (a pointwise operation may have a CPU operand without dimensions, an index may lie on
the CPU), and numpy cannot read the memory. What crosses between the devices is counted.

Fused recurrent cells are not there: an LSTM or GRU runs on it only where it is written out.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
from collections.abc import Iterator

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

NAME = "sim"
aten = torch.ops.aten


@dataclasses.dataclass
class Transfers:
    """How many tensors went to the device and to the CPU, and how many single numbers were read."""

    to_device: int = 0
    to_cpu: int = 0
    reads: int = 0


transfers = Transfers()


@contextlib.contextmanager
def count_transfers() -> Iterator[Transfers]:
    """Count what crosses between the devices during a block."""
    before, counted = dataclasses.replace(transfers), Transfers()
    try:
        yield counted
    finally:
        for field in dataclasses.fields(Transfers):
            crossed = getattr(transfers, field.name) - getattr(before, field.name)
            setattr(counted, field.name, crossed)


def can_install() -> bool:
    """Say whether this torch takes devices that are written in Python."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


def install() -> None:
    """Register the device with torch, once in a process."""
    if hasattr(torch, NAME):
        return
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    library = torch.library.Library("_", "IMPL")
    library.fallback(_run, "PrivateUse1")
    _kept.append(library)
    kernels = torch.library.Library("aten", "IMPL")
    _kept.append(kernels)
    for op in _EXPLICIT:
        kernels.impl(op, lambda *args, op=op, **kwargs: _run(op, *args, **kwargs), "PrivateUse1")
    kernels.impl("convolution_overrideable", _convolution, "PrivateUse1")
    kernels.impl("convolution_backward_overrideable", _convolution_backward, "PrivateUse1")
    _teach_storages()


def _teach_storages() -> None:
    """Copy bare storages (deepcopy, torch.load) without the allocator that torch would ask.

    A device of C++ registers one; from Python nothing can.
    """
    clone, to = torch.UntypedStorage.clone, torch.UntypedStorage.to

    def clone_ours(storage):
        return _moved(storage) if storage.device.type == NAME else clone(storage)

    def to_ours(storage, *, device, non_blocking=False):
        if torch.device(device).type == NAME and storage.device.type == "cpu":
            transfers.to_device += 1
            return _moved(storage)
        return to(storage, device=device, non_blocking=non_blocking)

    torch.UntypedStorage.clone, torch.UntypedStorage.to = clone_ours, to_ours


def _moved(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    """Return a copy of a storage on the device."""
    values = torch.empty(0, dtype=torch.uint8, device="cpu").set_(_plain_storage(storage))
    return _to_device(values.clone()).untyped_storage()


_kept: list = []  # a library that is collected takes its kernels with it


class _Backend:
    """What torch asks the module of a device, `torch.sim`."""

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    # It has no generator: random operations draw from the CPU's.
    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_rng_state(self, device=None) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8, device="cpu")

    def set_rng_state(self, state, device=None) -> None:
        pass


# Views, whose kernels read shapes only: the CPU's take tensors of any device.
_METADATA = {
    aten.as_strided.default,
    aten.view.default,
    aten.view.dtype,
    aten._reshape_alias.default,
    aten.unfold.default,
    aten.view_as_real.default,
    aten.view_as_complex.default,
    aten.set_.source_Storage,
    aten.set_.source_Storage_storage_offset,
    aten.set_.source_Tensor,
}
# Torch's own kernels for any device ask the device's C++ parts: these are taken before them.
_EXPLICIT = [aten.copy_.default]
_TAKE_CPU_INDICES = {"aten::index", "aten::_index_put_impl_"}
_CPU_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


def _run(op, *args, **kwargs):
    """Run an operation of which an operand or the result lies on the device."""
    with torch._C.DisableTorchFunction(), torch._C._AutoDispatchBelowAutograd():
        if op in _METADATA:
            return op.redispatch(_CPU_KEYS, *args, **kwargs)
        if op is aten.copy_.default:
            return _copy(*args, **kwargs)
        return _compute(op, args, kwargs)


def _compute(op, args, kwargs):
    """Run an operation on CPU tensors that share the operands' memory."""
    given, structure = tree_flatten((args, kwargs))
    _check_devices(op, [value for value in given if isinstance(value, torch.Tensor)])
    results = {
        id(value): torch.empty(0, dtype=value.dtype, device="cpu")
        for value in kwargs.values()
        if _is_ours(value) and value.shape == (0,)
    }  # torch's kernels for any device hand an empty `out` on, and have it grow
    plain = [results.get(id(value), _plain(value)) for value in given]
    cpu_args, cpu_kwargs = tree_unflatten(plain, structure)
    value = op(*_numbers_as_tensors(op, cpu_args), **cpu_kwargs)
    transfers.reads += isinstance(value, (bool, int, float))
    ours = [(twin, tensor) for twin, tensor in zip(plain, given) if _is_ours(tensor)]
    for twin, tensor in ours:
        if twin.shape != tensor.shape:
            grown = _wrap(twin, [(None, tensor)])
            aten.set_.source_Tensor.redispatch(_CPU_KEYS, tensor, grown)
    return tree_map_only(torch.Tensor, lambda tensor: _wrap(tensor, ours), value)


def _numbers_as_tensors(op, args) -> list:
    """Make tensors again of the numbers that torch hands over in place of a tensor operand."""
    floating = (arg.dtype for arg in args if isinstance(arg, torch.Tensor))
    dtype = next((dtype for dtype in floating if dtype.is_floating_point), None)
    return [
        torch.tensor(arg, dtype=dtype if isinstance(arg, float) else None, device="cpu")
        if isinstance(arg, (bool, int, float)) and str(declared.type) == "Tensor"
        else arg
        for arg, declared in zip(args, op._schema.arguments)
    ]


def _plain(value):
    """Return what the CPU's operation gets in place of a value."""
    if _is_ours(value):
        return _twin(value)
    is_device = isinstance(value, torch.device) and value.type == NAME
    return torch.device("cpu") if is_device else value


def _wrap(result: torch.Tensor, ours) -> torch.Tensor:
    """Return the device's tensor for a result: an operand, a view of one, or a new one."""
    for twin, tensor in ours:
        if result is twin:
            return tensor
    place = result.untyped_storage().data_ptr()
    for _, tensor in ours:
        if place and tensor.untyped_storage().data_ptr() == place:
            return _restride(tensor, result)
    return _to_device(result)


def _copy(target, source, non_blocking=False):
    """Copy into `target`; the only way from one device to the other."""
    if _is_ours(target) and not _is_ours(source):
        transfers.to_device += 1
    elif _is_ours(source) and not _is_ours(target):
        transfers.to_cpu += 1
    plain = [_twin(value) if _is_ours(value) else value for value in (target, source)]
    plain[0].copy_(plain[1])
    return target


def _convolution(x, weight, bias, *settings):
    return _run(aten.convolution.default, x, weight, bias, *settings)


def _convolution_backward(grad, x, weight, *settings):
    *settings, mask = settings
    sizes = [weight.shape[0]] if mask[2] else None
    return _run(aten.convolution_backward.default, grad, x, weight, sizes, *settings, mask)


def _check_devices(op, tensors) -> None:
    """Refuse operands of several devices, as CUDA does."""
    name = op._schema.name
    takes_indices = name in _TAKE_CPU_INDICES and _is_ours(tensors[0])
    for tensor in tensors:
        if _is_ours(tensor) or (tensor.dim() == 0 and torch.Tag.pointwise in op.tags):
            continue
        if takes_indices and not tensor.is_floating_point():
            # reading at indices, torch has copied them before, for their sizes
            transfers.to_device += name != "aten::index"
            continue
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, "
            f"{NAME}:0 and {tensor.device}! (when checking arguments of {name})"
        )


def _is_ours(value) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == NAME


def _plain_storage(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    """Return a CPU storage over the same memory, valid as long as the given one lives."""
    return torch._C._construct_storage_from_data_pointer(
        storage.data_ptr(), torch.device("cpu"), storage.nbytes()
    )


def _twin(tensor: torch.Tensor) -> torch.Tensor:
    """Return a CPU tensor over the memory of a device's, valid as long as that lives."""
    twin = torch.empty(0, dtype=tensor.dtype, device="cpu")
    plain = _plain_storage(tensor.untyped_storage())
    return twin.set_(plain, tensor.storage_offset(), tensor.size(), tensor.stride())


def _restride(base: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return aten.as_strided.default.redispatch(
        _CPU_KEYS, base, like.size(), like.stride(), like.storage_offset()
    )


def _to_device(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the device with the values and strides of a CPU tensor."""
    storage = tensor.untyped_storage()
    base = torch.from_dlpack(_capsule(storage, tensor.dtype))
    return _restride(base, tensor)


# What follows hands memory to torch as DLPack's "extension device", which torch calls PrivateUse1.
_EXTENSION = 12
_CODES = {"int": 0, "uint": 1, "float": 2, "bfloat": 4, "complex": 5, "bool": 6}


class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    _fields_ = [
        ("tensor", _DLTensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("shape", ctypes.c_int64 * 1),
    ]


_allocate, _free = ctypes.pythonapi.PyMem_RawMalloc, ctypes.pythonapi.PyMem_RawFree
_allocate.restype, _allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_ALIGNED = 64  # bytes, as torch's own memory


def _capsule(storage: torch.UntypedStorage, dtype: torch.dtype):
    """Copy a CPU storage into memory of the device's own, described as one vector.

    One block holds the description and, after it, the numbers: torch gives both back with one call
    of C's, from any thread.
    """
    kind = str(dtype).removeprefix("torch.").rstrip("0123456789")
    n_bytes = storage.nbytes()
    block = _allocate(ctypes.sizeof(_Managed) + _ALIGNED + max(n_bytes, 1))
    data = -(-(block + ctypes.sizeof(_Managed)) // _ALIGNED) * _ALIGNED
    managed = _Managed.from_address(block)
    managed.tensor = _DLTensor(
        data=data,
        device_type=_EXTENSION,
        ndim=1,
        code=_CODES[kind],
        bits=8 * dtype.itemsize,
        lanes=1,
    )
    managed.tensor.shape = ctypes.cast(
        block + _Managed.shape.offset, ctypes.POINTER(ctypes.c_int64)
    )
    managed.shape[0] = n_bytes // dtype.itemsize
    managed.context = None
    managed.deleter = ctypes.cast(_free, ctypes.c_void_p)
    if n_bytes:
        ctypes.memmove(data, storage.data_ptr(), n_bytes)
    return _new_capsule(block, b"dltensor", None)
