"""From array-likes to the tensors that a module and a loss want."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import nn
from torch.utils.data import DataLoader, Dataset

from sklmc.exceptions import NonFiniteError


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
        X.detach().cpu() if isinstance(X, torch.Tensor) else torch.from_numpy(read_array(X, caller))
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
    if cast is not tensor and not torch.isfinite(cast).all():
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


def read_array(X, caller: str) -> np.ndarray:
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
