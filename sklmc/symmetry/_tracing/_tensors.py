"""The tensors of a net: which are tied, which are constants, and that all can be moved."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin

from sklmc.exceptions import ArchitectureMismatchError, SymmetryError

_QUANTISING = re.compile(r"torch\.ao\..*\b(quantized|qat|fake_quantize|observer)\.")


def tied_names(module: nn.Module) -> dict[str, str]:
    """Map the name of a tied tensor to the first name of the same tensor."""
    first: dict[int, str] = {}
    tied = {}
    for named in (module.named_parameters, module.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            known = first.setdefault(id(tensor), name)
            if known != name:
                tied[name] = known
    return tied


def alias_sets(tied: dict[str, str]) -> tuple[tuple[str, ...], ...]:
    """Return tuples of names that stand for one tensor."""
    sets: dict[str, list[str]] = {}
    for name, first in tied.items():
        sets.setdefault(first, [first]).append(name)
    return tuple(tuple(names) for names in sets.values())


def constant_digests(module: nn.Module) -> dict[str, str]:
    """Return digests of the buffers that cannot move: two nets must share them."""
    persistent = module.state_dict().keys()
    found = {}
    for name, tensor in module.named_buffers(remove_duplicate=False):
        if tensor.ndim and (name not in persistent or not tensor.is_floating_point()):
            values = tensor.detach().cpu().contiguous().reshape(-1)
            data = values.view(torch.uint8).numpy().tobytes()
            found[name] = hashlib.sha256(data).hexdigest()
    return found


def check_dense(module: nn.Module, caller: str) -> None:
    """Refuse modules that quantise, and tensors whose entries cannot be moved."""
    for path, part in module.named_modules():
        kind = f"{type(part).__module__}.{type(part).__qualname__}"
        if _QUANTISING.match(kind) and not kind.endswith(".FloatFunctional"):
            raise SymmetryError(
                f"{caller}: module {path!r} ({kind}) quantises; permute the floating-point net "
                "and quantise it afterwards."
            )
    tensors = (module.named_parameters, module.named_buffers)
    for name, tensor in (pair for named in tensors for pair in named(remove_duplicate=False)):
        if isinstance(tensor, UninitializedTensorMixin) or tensor.is_meta:
            raise SymmetryError(
                f"{caller}: tensor {name!r} has no values yet (a lazy layer or the meta device); "
                "run the module on data, or load its weights (module.to_empty(device=...), then "
                "load_state_dict), first."
            )
        if tensor.is_inference():
            raise SymmetryError(
                f"{caller}: tensor {name!r} was made under torch.inference_mode and cannot be "
                "traced; make the net outside of it, then load_state_dict."
            )
        if tensor.is_quantized:
            kind = "quantised"
        elif tensor.layout is not torch.strided or tensor.is_nested:
            kind = "nested" if tensor.is_nested else f"stored as {tensor.layout}"
        elif tensor.is_floating_point() and tensor.itemsize == 1:
            kind = f"of {tensor.dtype}"
        else:
            continue
        raise SymmetryError(
            f"{caller}: tensor {name!r} is {kind}; permute the dense floating-point net and "
            "convert it afterwards."
        )


def check_same_shapes(
    state: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], caller: str
) -> None:
    """Refuse a state whose tensors differ in name or shape from those of a net; name the first."""
    seen = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if seen == shapes:
        return
    name = next(n for n in [*shapes, *seen] if shapes.get(n) != seen.get(n))
    raise ArchitectureMismatchError(
        f"{caller}: tensor {name!r} has shape {seen.get(name, 'none, it is missing')} in the "
        f"model, but {shapes.get(name, 'none, it is unknown')} in the symmetry; use the symmetry "
        "of this architecture."
    )


def check_same_constants(module: nn.Module, digests: Mapping[str, str]) -> None:
    """Refuse a module whose constants differ from those of a net; name the first."""
    found = constant_digests(module)
    for name in digests.keys() | found.keys():
        if digests.get(name) != found.get(name):
            raise ArchitectureMismatchError(
                f"PermutationSymmetry: the model's constant {name!r} differs from that of the "
                "net that the symmetry was found for; constants (integer and non-persistent "
                "buffers, such as rotary frequencies) must be equal in both nets."
            )
