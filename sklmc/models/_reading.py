"""From whatever X may be to the samples that flow through a net."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from numbers import Number
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import skorch.dataset
import torch
from scipy import sparse
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    default_collate,
)

from sklmc.models._arrays import check_tensor, module_input, read_array
from sklmc.models._inputs import Args, Arrays, Batches, Inputs, Items
from sklmc.models._outputs import run_module

if TYPE_CHECKING:
    from sklmc.models._view import ModelView

SAMPLE_ROWS = 8  # rows of X that a trace sees
# rounding of a pass over other rows, as a share of the largest output
SAME_OUTPUT = 1e-3
LABEL_KEYS = ("labels", "label")  # of an item that is a dict with its target inside


def read_inputs(view: ModelView, X) -> Inputs:
    """Return the samples of X, whatever kind it is of.

    One array-like is the only argument of forward; a tuple or dict of them are several; a list of
    either are batches; a Dataset, a DataLoader or a memory map is read when it is needed.
    """
    if isinstance(X, Inputs):
        return X
    if isinstance(X, DataLoader):
        return _read_loader(view, X)
    if isinstance(X, Dataset):
        return _read_dataset(view, X)
    if _is_list_of_batches(X):
        return _read_batches(view, X)
    if _is_lazy(X):
        return _read_rows(view, X)
    args = to_args(view, X)
    inputs = Arrays(*args)
    return inputs if _may_be_cut(view, inputs) else _one_batch(view, args)


def to_args(view: ModelView, X) -> Args:
    """Return forward's arguments on the CPU, of what is in memory."""
    if _holds_arguments(view, X):
        args = tuple(_read_part(view, part) for part in X)
    elif isinstance(X, Mapping):
        args = _bind(view, {name: _read_part(view, part) for name, part in X.items()})
    elif sparse.issparse(X):
        raise TypeError(f"{view.caller}: 'X' is sparse; pass X.toarray().")
    elif X is None or isinstance(X, (str, bytes, set, type, Iterator)):
        raise TypeError(
            f"{view.caller}: 'X' must be array-like, a tuple or dict of array-likes (forward's "
            f"arguments), a list of batches, a Dataset or a DataLoader, got {type(X).__name__}."
        )
    else:
        return (view.to_tensor(X),)
    if not len(Arrays(*args)):
        shapes = [tuple(part.shape) for part in args if isinstance(part, torch.Tensor)]
        raise ValueError(
            f"{view.caller}: 'X' must hold at least one sample, but its tensors have shapes "
            f"{shapes}."
        )
    return args


def _is_lazy(X) -> bool:
    """Say whether X is read piece by piece: a memory map, or what only looks like an array."""
    if isinstance(X, np.memmap):
        return True
    if isinstance(X, (np.ndarray, torch.Tensor, pd.DataFrame, pd.Series, str, bytes, list, tuple)):
        return False
    if isinstance(X, Mapping) or sparse.issparse(X) or hasattr(X, "__array_interface__"):
        return False
    if isinstance(X, type):  # a class has the methods of its instances
        return False
    return hasattr(X, "__len__") and hasattr(X, "__getitem__") and not hasattr(X, "__dataframe__")


def few_samples(view: ModelView, X) -> Args:
    """Return forward's arguments for a trace: a few samples, at least two."""
    inputs = read_inputs(view, X)
    few = inputs.first(SAMPLE_ROWS)
    if isinstance(inputs, Batches) or len(inputs) > 1:
        return few
    return tuple(map(_twice, few))


def head(X, caller: str):
    """Return the first rows of an array: do not convert what nobody looks at."""
    if isinstance(X, torch.Tensor):
        check_tensor(X, caller, "X")
    long = isinstance(X, (np.ndarray, torch.Tensor, pd.DataFrame)) and X.ndim
    return X[:SAMPLE_ROWS] if long else X


# One array-like, or one argument of several


def _holds_arguments(view: ModelView, X) -> bool:
    """Say whether X is a tuple of forward's arguments and not of rows.

    Arrays of one axis may be either: as many as forward takes are arguments.
    """
    if not isinstance(X, tuple) or not any(hasattr(part, "ndim") for part in X):
        return False
    if any(isinstance(part, torch.Tensor) or getattr(part, "ndim", 0) > 1 for part in X):
        return True
    try:
        inspect.signature(view.original.forward).bind(*X)
    except TypeError:
        return False
    return len(X) > 1


def _read_part(view: ModelView, part):
    """Return one of several arguments: a tensor as it is, numbers as the net computes with them."""
    if part is None or isinstance(part, (Number, str)):
        return part
    if isinstance(part, torch.Tensor):
        check_tensor(part, view.caller, "X")
        return part.detach().cpu()
    tensor = torch.from_numpy(read_array(part, view.caller))
    if not tensor.is_floating_point():
        return tensor
    return module_input(tensor, view.original, view.caller)


def _bind(view: ModelView, given: Mapping) -> Args:
    """Bring a dict into the order of forward's arguments; the gaps hold their defaults."""
    signature = inspect.signature(view.original.forward)
    try:
        bound = signature.bind(**given)
    except TypeError as error:
        raise ValueError(
            f"{view.caller}: 'X' is a dict with {', '.join(map(repr, given))}, but forward of "
            f"{view.name} cannot take it: {error}."
        ) from None
    bound.apply_defaults()
    if bound.kwargs:
        raise ValueError(
            f"{view.caller}: forward of {view.name} takes {', '.join(map(repr, bound.kwargs))} by "
            "name only; wrap the module in one whose forward names its arguments."
        )
    args = list(bound.args)
    last = max(k for k, name in enumerate(signature.parameters) if name in given)
    return tuple(args[: last + 1])


def _twice(part):
    """Return the only sample of an argument twice; a number stays as it is."""
    if isinstance(part, torch.Tensor) and part.ndim:
        return part.expand(2, *part.shape[1:]).clone()
    return part


# Which samples can be cut apart


def _may_be_cut(view: ModelView, inputs: Inputs) -> bool:
    """Say whether a sample's output does not depend on which others run with it.

    One argument alone always may: it has one row for each sample. Several may point at each
    other's rows (edges of a graph at its nodes): four and eight samples are tried.
    """
    if isinstance(inputs, Arrays) and len(inputs.args) == 1:
        return True
    n = min(SAMPLE_ROWS, len(inputs))
    if n < 2:
        return True
    try:
        many = run_module(view, inputs.first(n))
        few = run_module(view, inputs.first(n // 2))
    except ValueError:
        return False
    if many.ndim == 0 or few.ndim == 0 or (len(many), len(few)) != (n, n // 2):
        return False
    atol = SAME_OUTPUT * float(many.abs().max()) if many.numel() else 0.0
    same = many[: n // 2].shape == few.shape
    return same and torch.allclose(many[: n // 2], few, rtol=SAME_OUTPUT, atol=atol, equal_nan=True)


def _one_batch(view: ModelView, args: Args) -> Batches:
    """Return samples that only run together."""
    return Batches(lambda: [args], functools.partial(_count_outputs, view))


def _count_outputs(view: ModelView, args: Args) -> int:
    """Return how many outputs a batch has."""
    output = run_module(view, args)
    return len(output) if output.ndim else 1


# Lists of batches


def _is_list_of_batches(X) -> bool:
    """Say whether X is a list whose elements are what X may be themselves.

    A list of rows (or of samples of one axis) is one array.
    """
    if not isinstance(X, list) or not X:
        return False
    return any(
        isinstance(part, Mapping)
        or (isinstance(part, tuple) and any(getattr(p, "ndim", 0) > 0 for p in part))
        or getattr(part, "ndim", 0) > 1
        for part in X
    )


def _read_batches(view: ModelView, X: list) -> Inputs:
    """Return batches as one array each argument, where they can be joined."""
    batches = [to_args(view, batch) for batch in X]
    first = Arrays(*batches[0])
    if _may_be_cut(view, first) and all(map(first.joins, batches[1:])):
        return first.join(batches[1:])
    return Batches(lambda: batches, functools.partial(_count_outputs, view))


# What is read when it is needed


def _read_rows(view: ModelView, X) -> Items:
    """Read what can be indexed as it is needed: rows of an array on disk, or samples one by one."""
    if not len(X):
        raise ValueError(f"{view.caller}: 'X' must hold at least one sample, got none.")

    def fetch(rows: list[int]) -> Args:
        if hasattr(X, "shape"):
            order = sorted(set(rows))  # files want rising, distinct rows
            part = X[order[0] : order[-1] + 1] if _dense(order) else X[order]
            where = {row: k for k, row in enumerate(order)}
            return to_args(view, np.asarray(part)[[where[row] for row in rows]])
        return to_args(view, _collated([X[row] for row in rows], default_collate, view.caller))

    return Items(len(X), fetch)


def _read_dataset(view: ModelView, X: Dataset) -> Inputs:
    """Read the items of a Dataset as they are needed."""
    if isinstance(X, IterableDataset) or not hasattr(X, "__len__"):
        raise TypeError(
            f"{view.caller}: 'X' is a {type(X).__name__}, which has no length and can be read once "
            "only; pass a DataLoader of it that starts anew each time, or a list of its batches."
        )
    inputs = _read_items(view, X, default_collate)
    if not _may_be_cut(view, inputs):
        raise ValueError(
            f"{view.caller}: the outputs of {view.name} for items of the {type(X).__name__} depend "
            "on which items run together; pass a DataLoader (its batches stay whole) or a list of "
            "batches."
        )
    return inputs


def _read_items(view: ModelView, dataset: Dataset, collate: Callable) -> Items:
    """Return the items of a Dataset with a length."""
    caller, kind = view.caller, type(dataset).__name__
    if not len(dataset):
        raise ValueError(f"{caller}: 'X' must hold at least one sample, got an empty {kind}.")
    for k in {0, len(dataset) // 2, len(dataset) - 1}:
        if not _equal(dataset[k], dataset[k]):
            raise ValueError(
                f"{caller}: item {k} of the {kind} is another each time that it is read "
                "(augmentation?); pass a Dataset whose items stay the same."
            )
    labelled = _holds_labels(dataset) and _split_item(dataset[0], view)[1] is not None

    def read(rows: list[int]) -> list:
        several = getattr(dataset, "__getitems__", None)
        return several(rows) if several else [dataset[k] for k in rows]

    def fetch(rows: list[int]) -> Args:
        batch = _collated(read(rows), collate, caller)
        return to_args(view, _as_arguments(_split_item(batch, view)[0]))

    def fetch_targets(rows: list[int]) -> np.ndarray:
        return np.asarray(_split_item(_collated(read(rows), collate, caller), view)[1])

    return Items(len(dataset), fetch, fetch_targets if labelled else None)


def _read_loader(view: ModelView, X: DataLoader) -> Inputs:
    """Read a loader: its items, where any of them can run together, or else its batches."""
    caller = view.caller
    sampler = getattr(X.batch_sampler, "sampler", X.sampler)
    plain = type(X.batch_sampler).__name__ in ("BatchSampler", "NoneType")
    iterable = isinstance(X.dataset, IterableDataset)
    if not iterable and plain and not isinstance(sampler, SequentialSampler):
        raise ValueError(
            f"{caller}: the DataLoader of {type(X.dataset).__name__} shuffles its samples "
            f"({type(sampler).__name__}); pass one with shuffle=False, or the Dataset itself."
        )
    try:
        first, again = next(iter(X), None), next(iter(X), None)
    except (RuntimeError, TypeError, ValueError, KeyError, IndexError) as error:
        raise ValueError(
            f"{caller}: the DataLoader of {type(X.dataset).__name__} cannot be read: "
            f"{type(error).__name__}: {error}"
        ) from error
    if first is None:
        raise ValueError(f"{caller}: 'X' must hold at least one sample, got an empty DataLoader.")
    if not _equal(first, again):
        raise ValueError(
            f"{caller}: the first batch of the DataLoader of {type(X.dataset).__name__} is another "
            "each time that it is read (shuffling or augmentation?); pass one that stays the same."
        )
    if not iterable and plain and X.collate_fn is not None:
        items = _read_items(view, X.dataset, X.collate_fn)
        if _may_be_cut(view, items):
            return items
    labelled = _split_item(first, view)[1] is not None
    return Batches(
        lambda: (to_args(view, _as_arguments(_split_item(batch, view)[0])) for batch in X),
        functools.partial(_count_outputs, view),
        (lambda: (np.asarray(_split_item(batch, view)[1]) for batch in X)) if labelled else None,
    )


def _split_item(item, view: ModelView) -> tuple[object, object]:
    """Return X and y of an item or a batch of a Dataset; y is None where there is none.

    skorch's form is a pair (X, y), where X may be a tuple or dict of forward's arguments. A dict
    may hold its labels, as datasets of texts do.
    """
    if isinstance(item, Mapping):
        key = next((key for key in LABEL_KEYS if key in item), None)
        return {k: v for k, v in item.items() if k != key}, item.get(key)
    if not isinstance(item, (tuple, list)):
        return item, None
    if len(item) == 1:
        return item[0], None
    if len(item) == 2:
        return item[0], item[1]
    raise ValueError(
        f"{view.caller}: an item of 'X' has {len(item)} parts; give items the form (X, y), where X "
        "is a tuple or dict of forward's arguments."
    )


def _as_arguments(x):
    """Return what a loader made of an item's X: a list of tensors is a tuple of arguments."""
    return tuple(x) if isinstance(x, list) and any(isinstance(p, torch.Tensor) for p in x) else x


def _holds_labels(dataset) -> bool:
    """Say whether a Dataset has labels; skorch's puts zeros where it has none."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return not (isinstance(dataset, skorch.dataset.Dataset) and dataset.y is None)


def _collated(items: list, collate: Callable, caller: str):
    """Return a batch of items, or say that they do not make one."""
    try:
        return collate(items)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{caller}: the items of 'X' cannot be put together into a batch: "
            f"{str(error).splitlines()[0]}; pass a DataLoader with a collate_fn that can."
        ) from None


def _equal(a, b) -> bool:
    """Say whether two items that were read hold the same."""
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and bool(torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)))
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, (np.ndarray, np.generic)):
        return bool(np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f"))
    return a == b or a is b


def _dense(order: list[int]) -> bool:
    """Say whether rising rows are all rows between the first and the last."""
    return order[-1] - order[0] + 1 == len(order)
