"""From array-likes to the tensors that a module and a loss want."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import nn
from torch.utils.data import DataLoader, Dataset

from sklmc.exceptions import NonFiniteError

SAMPLE_ROWS = 8  # rows of X that a trace sees
BLOCK_ROWS = 1024  # default number of samples in a forward pass


class Inputs:
    """The samples that flow through a net: forward's arguments, one row of each for a sample.

    An argument of another length than the first that is longer than one (a mask that all samples
    share, a number) goes with every block as it is.
    """

    __iter__ = None  # a row is no item: an array made of Inputs would be a mistake

    def __init__(self, *args: torch.Tensor):
        self.args = args
        lengths = [len(part) for part in args if part.ndim]
        self._n_samples = next((n for n in lengths if n > 1), max(lengths, default=0))

    def __len__(self) -> int:
        return self._n_samples

    @property
    def given(self) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """What `ModelView.to_input` takes: a tensor, or a tuple of several."""
        return self.args[0] if len(self.args) == 1 else self.args

    def __getitem__(self, rows) -> Inputs:
        """Return some samples, by a slice or by their indices."""
        return Inputs(*(part[rows] if self._has_rows(part) else part for part in self.args))

    def blocks(self, size: int | None = None) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield forward's arguments for one block of samples after the other."""
        size = size or BLOCK_ROWS
        for start in range(0, len(self), size):
            yield self[start : start + size].args

    def first(self, n: int) -> tuple[torch.Tensor, ...]:
        """Return forward's arguments for the first samples."""
        return self[:n].args

    def spread(self, most: int) -> torch.Tensor:
        """Return rows at even distances: all of them, or `most`."""
        n_rows = min(len(self), most)
        return torch.linspace(0, len(self) - 1, n_rows, dtype=torch.float64).round().long()

    def _has_rows(self, part: torch.Tensor) -> bool:
        return part.ndim > 0 and len(part) == len(self)


def several_arguments(X) -> bool:
    """Say whether X is a tuple of tensors: forward's arguments, one by one."""
    return isinstance(X, tuple) and bool(X) and all(isinstance(p, torch.Tensor) for p in X)


def check_input(X, caller: str) -> None:
    """Refuse what is neither one array of samples nor a tuple of tensors, forward's arguments.

    A list of rows is one array; a list of arrays with rows of their own could be batches, or
    samples, and is not guessed at.
    """
    if isinstance(X, torch.Tensor):
        check_tensor(X, caller, "X")
    elif several_arguments(X):
        for part in X:
            check_tensor(part, caller, "X")
        if X[0].ndim == 0 or len(X[0]) == 0:
            raise ValueError(
                f"{caller}: 'X' must hold at least one sample, but its first tensor has shape "
                f"{tuple(X[0].shape)}."
            )
    elif X is None or isinstance(X, (Mapping, str, bytes, set, type, Dataset, DataLoader)):
        raise TypeError(
            f"{caller}: 'X' must be array-like, or a tuple of tensors (forward's arguments), got "
            f"{type(X).__name__}."
        )
    elif sparse.issparse(X):
        raise TypeError(f"{caller}: 'X' is sparse; pass X.toarray().")
    elif isinstance(X, (list, tuple)) and any(map(_holds_rows, X)):
        raise ValueError(
            f"{caller}: 'X' is a {type(X).__name__} of {len(X)} arrays, which could be batches or "
            "samples; pass one array (np.concatenate(X) of batches, np.stack(X) of samples), or a "
            "tuple of tensors for several arguments of forward."
        )


def check_tensor(tensor: torch.Tensor, caller: str, name: str) -> None:
    """Refuse a tensor whose values cannot be read one by one."""
    if tensor.is_meta:
        raise ValueError(
            f"{caller}: '{name}' is on the meta device and has no values; pass the data itself."
        )
    if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized:
        kind = "quantised" if tensor.is_quantized else "nested" if tensor.is_nested else "sparse"
        raise TypeError(f"{caller}: '{name}' is a {kind} tensor; pass a dense one.")


def module_input(X, module: nn.Module, caller: str) -> torch.Tensor:
    """Return X as a CPU tensor in the dtype that `module` computes in.

    Integers stay integers where the module looks them up in an embedding.
    """
    tensor = (
        X.detach().cpu() if isinstance(X, torch.Tensor) else torch.from_numpy(_array(X, caller))
    )
    if tensor.ndim == 0 or len(tensor) == 0:
        raise ValueError(
            f"{caller}: 'X' must hold at least one sample, got shape {tuple(tensor.shape)}."
        )
    if tensor.is_complex():
        raise ValueError(f"{caller}: 'X' must be real, got complex numbers.")
    looks_up = any(isinstance(part, (nn.Embedding, nn.EmbeddingBag)) for part in module.modules())
    if looks_up and not tensor.is_floating_point():
        return tensor.long()
    if not torch.isfinite(tensor).all():
        raise NonFiniteError(
            f"{caller}: 'X' contains NaN or infinity; remove or impute these values."
        )
    cast = tensor.to(floating_dtype(module))
    if not torch.isfinite(cast).all():
        raise NonFiniteError(
            f"{caller}: 'X' holds values up to {float(tensor.abs().max()):.3g}, which are infinite "
            f"in {str(cast.dtype).removeprefix('torch.')}, the dtype of the net; scale X."
        )
    return cast


def check_target(y, caller: str) -> None:
    """Refuse a target that is no array of values."""
    if isinstance(y, torch.Tensor):
        check_tensor(y, caller, "y")
    elif sparse.issparse(y):
        raise TypeError(f"{caller}: 'y' is sparse; pass y.toarray().")
    elif y is None or isinstance(y, (Mapping, str, bytes, set, Dataset, DataLoader)):
        raise TypeError(f"{caller}: 'y' must be array-like, got {type(y).__name__}.")


def module_target(y, caller: str) -> torch.Tensor:
    """Return y as int64 class codes (integers, booleans) or as floats (regression)."""
    if isinstance(y, torch.Tensor):
        y = y.detach().cpu()
        y = y.double() if y.is_floating_point() else y  # numpy has no bfloat16
    values = _one_array(y, caller, "y")
    if values.dtype.kind in "OUS":
        raise TypeError(
            f"{caller}: 'y' holds labels of type {values.dtype}, but a plain module knows no "
            "classes; encode them as 0..n_classes-1 or pass a fitted NetClassifier."
        )
    if values.dtype.kind in "biu":
        return torch.from_numpy(values.astype(np.int64))
    if values.dtype.kind != "f":
        raise TypeError(f"{caller}: 'y' must hold numbers, got dtype {values.dtype}.")
    if not np.isfinite(values).all():
        raise NonFiniteError(f"{caller}: 'y' contains NaN or infinity.")
    return torch.from_numpy(values.astype(np.float64))


def floating_dtype(module: nn.Module) -> torch.dtype:
    """Return the dtype of the first floating parameter; float32 where there is none."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    return torch.float32


def leading_width(module: nn.Module) -> int | None:
    """Return the width of the first Linear layer where nothing with weights stands before it."""
    for part in module.modules():
        if next(part.parameters(recurse=False), None) is not None or isinstance(part, nn.Flatten):
            plain = isinstance(part, nn.Linear) and type(part).forward is nn.Linear.forward
            return part.in_features if plain else None
    return None


def _array(X, caller: str) -> np.ndarray:
    """Return an array-like as a dense, owned ndarray of numbers."""
    values = _one_array(X, caller, "X")
    if values.dtype.kind in "OUS":
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"{caller}: 'X' must hold numbers, got dtype {values.dtype}; encode text columns."
            ) from None
    if values.dtype.kind not in "biufc":
        raise TypeError(f"{caller}: 'X' must hold numbers, got dtype {values.dtype}.")
    dtype = values.dtype.newbyteorder("=")
    if dtype.kind == "u" and dtype.itemsize > 1:
        dtype = np.dtype(np.int64)
    elif dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    return np.array(values, dtype=dtype)  # torch wants writable, native memory


def _one_array(values, caller: str, name: str) -> np.ndarray:
    """Return an array-like as numpy sees it."""
    if isinstance(values, (pd.DataFrame, pd.Series)):
        return values.to_numpy()
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{caller}: '{name}' cannot be read as one array ({error}); pass an array whose rows "
            "have one length."
        ) from None


def _holds_rows(part) -> bool:
    """Say whether an element of a list is more than a row of numbers: an array of rows."""
    if isinstance(part, (list, tuple)):
        return any(getattr(inner, "ndim", 0) > 0 or _holds_rows(inner) for inner in part[:1])
    return getattr(part, "ndim", 0) > 1
