"""Tensors of a model as safetensors holds them: by name, none twice, views as views."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin

from sklmc._torch import usable_device


class TensorShelf:
    """Takes tensors one by one and lays them out when all are known.

    Tensors that overlap in memory (a weight and its transpose, tied) are stored once, as the
    stretch of memory that they share, so that they overlap again when they are read.
    """

    def __init__(self):
        self._tensors: dict[str, torch.Tensor] = {}
        self._notes: dict[str, dict] = {}

    def put(self, tensor: torch.Tensor, name: str) -> dict:
        """Take a tensor; return what describes it, complete after `lay_out`."""
        if type(tensor) not in (torch.Tensor, nn.Parameter):
            raise ValueError(
                "it has no values yet: run the lazy layer on data first"
                if isinstance(tensor, UninitializedTensorMixin)
                else "only plain tensors have"
            )
        if tensor.is_meta or tensor.is_quantized or tensor.layout is not torch.strided:
            raise ValueError(f"{tensor.dtype} on {tensor.device}, {tensor.layout}")
        unique, number = name, 1
        while unique in self._tensors:
            number += 1
            unique = f"{name}-{number}"
        self._tensors[unique] = tensor.detach().resolve_conj().resolve_neg()
        self._notes[unique] = {
            "name": unique,
            "device": str(tensor.device),
            "parameter": isinstance(tensor, nn.Parameter),
            "requires_grad": bool(tensor.requires_grad and tensor.is_leaf),
            "complex": tensor.is_complex(),
        }
        return self._notes[unique]

    def lay_out(self) -> dict[str, torch.Tensor]:
        """Return the arrays of the file, and say in each description where its tensor is."""
        arrays = {}
        for names in self._overlapping():
            first = self._tensors[names[0]]
            if len(names) == 1 and (first.is_contiguous() or not _fills_memory(first)):
                arrays[names[0]] = _writable(first.contiguous())
                continue
            start = min(self._tensors[name].storage_offset() for name in names)
            stop = max(_end(self._tensors[name]) for name in names)
            arrays[names[0]] = _writable(torch.as_strided(first, (stop - start,), (1,), start))
            for name in names:
                tensor = self._tensors[name]
                self._notes[name]["view"] = {
                    "of": names[0],
                    "shape": list(tensor.shape),
                    "stride": list(tensor.stride()),
                    "offset": tensor.storage_offset() - start,
                }
        return arrays

    def _overlapping(self) -> list[list[str]]:
        """Return the names in sets that share memory."""
        by_storage = defaultdict(list)
        sets = []
        for name, tensor in self._tensors.items():
            if tensor.numel():
                by_storage[tensor.untyped_storage().data_ptr(), tensor.dtype].append(name)
            else:
                sets.append([name])
        for names in by_storage.values():
            reached = -1
            for name in sorted(names, key=lambda one: self._tensors[one].storage_offset()):
                tensor = self._tensors[name]
                if tensor.storage_offset() >= reached or reached < 0:
                    sets.append([])
                sets[-1].append(name)
                reached = max(reached, _end(tensor))
        return sets


class TensorReader:
    """Gives the tensors of a file back as they were."""

    def __init__(self, arrays: Mapping[str, torch.Tensor]):
        self._arrays = arrays
        self._stretches: dict[str, torch.Tensor] = {}

    def get(self, note: Mapping) -> torch.Tensor:
        """Return the tensor that a description stands for."""
        view = note.get("view")
        if view is None:
            tensor = self._array(note["name"], note)
        else:
            if view["of"] not in self._stretches:
                self._stretches[view["of"]] = self._array(view["of"], note)
            whole = self._stretches[view["of"]]
            tensor = torch.as_strided(whole, view["shape"], view["stride"], view["offset"])
        if note["parameter"]:
            return nn.Parameter(tensor, requires_grad=note["requires_grad"])
        return tensor.requires_grad_(note["requires_grad"])

    def _array(self, name: str, note: Mapping) -> torch.Tensor:
        """Return an array of the file in memory of its own: a file may change once it is read."""
        array = self._arrays[name].clone().to(usable_device(note["device"]))
        return torch.view_as_complex(array) if note["complex"] else array


def _writable(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose dtype safetensors knows."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _end(tensor: torch.Tensor) -> int:
    """Return where in its storage the last element of a tensor ends."""
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride()))
    return tensor.storage_offset() + reach + 1


def _fills_memory(tensor: torch.Tensor) -> bool:
    """Say whether a tensor's elements lie side by side, in whatever order (channels last)."""
    return _end(tensor) - tensor.storage_offset() == tensor.numel()
