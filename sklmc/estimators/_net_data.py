"""What a net does with data before torch sees them: checks, casts, sizes, samples and batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Number

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from skorch.dataset import Dataset, get_len
from skorch.utils import is_dataset, multi_indexing
from torch.utils.data import DataLoader, Subset

from sklmc._sklearn import _check_method_params, _num_samples, check_is_fitted, validate_data
from sklmc._validation import check_sample_weight
from sklmc.estimators._sample_weights import WeightedData
from sklmc.models._arrays import check_tensor

_ARRAY_OPTIONS = {"batch_size", "shuffle", "drop_last"}  # of a DataLoader
LABELS = (str, bytes, Number, np.generic, type(None))  # what a single label may be


class NetData:
    """Data on their way into a net."""

    dtype: str | None
    _sizes: Mapping[str, int] = {}
    _sample_shape: tuple[int, ...] | None = None
    _weights: np.ndarray | None = None  # of the samples, while a net is trained

    def score(self, X, y, sample_weight=None):
        """Return accuracy (classifiers) or R2 (regressors); greater is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As for fit.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            True labels or values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, not negative; None means equal weights.

        Returns
        -------
        float
            The score of ``predict(X)``.
        """
        caller = type(self).__name__
        y = readable(y, caller, "y")
        if sample_weight is not None:
            sample_weight = check_sample_weight(sample_weight, _num_samples(y), caller)
        return super().score(X, y, sample_weight=sample_weight)

    def _check_input(self, X):
        """Validate and cast X as in fit; what torch alone can read goes through untouched."""
        if goes_untouched(X):
            return X
        X = readable(X, type(self).__name__, "X")
        options = {"reset": False, "allow_nd": True, "dtype": self.dtype or "numeric"}
        return _plain(validate_data(self, X, **options))

    def _check_both(self, X, y, reset: bool, **options):
        """Validate and cast X, and validate y, for training."""
        caller = type(self).__name__
        if goes_untouched(X):
            return X, readable(y, caller, "y")
        X, y = readable(X, caller, "X"), readable(y, caller, "y")
        options = {"reset": reset, "allow_nd": True, "dtype": self.dtype or "numeric", **options}
        X, y = validate_data(self, X, y, **options)
        X = _plain(X)
        if reset:
            self._sample_shape = X.shape[1:]
            self._sample_dtype = X.dtype
        return X, y

    def _take_training_data(self, X, y, new, classes=None, sample_weight=None, params=None):
        """Check data and weights, and leave out the samples of weight zero.

        Returns X, y and other arguments of fit, and notes the weights for `get_split_datasets`.
        """
        X, y = self._check_training_data(X, y, new, classes=classes)
        params = params or {}
        vars(self).pop("_weights", None)
        n_samples = len(X) if is_dataset(X) else get_len(X)
        weights = check_sample_weight(sample_weight, n_samples, type(self).__name__)
        weights = self._weigh_classes(X, y, weights)
        if weights is None:
            return X, y, params
        rows = np.flatnonzero(weights)
        if len(rows) < n_samples:
            params = _check_method_params(X, params, rows)
            X = Subset(X, rows) if is_dataset(X) else multi_indexing(X, rows)
            y = None if y is None else y[rows]
        self._weights = weights[rows]
        return X, y, params

    def _weigh_classes(self, X, y, weights: np.ndarray | None) -> np.ndarray | None:
        """Return the weights of the samples, in a classifier times those of their classes."""
        return weights

    def _check_validation_data(self, data):
        """Return a dataset of arrays, or a subset of one, as the net takes them in training."""
        if type(data) is Subset:
            return Subset(self._check_validation_data(data.dataset), data.indices)
        if type(data) is not Dataset or goes_untouched(data.X) or data.y is None:
            return data  # what is inside of any other is codes and floats already
        try:
            X, y = self._check_training_data(data.X, data.y, False)
        except ValueError as error:
            error.add_note("This happened with the validation set that 'train_split' holds.")
            raise
        return self.get_dataset(X, y)

    def _remember_sizes(self, X, n_outputs: int | None) -> None:
        """Note what a module may want to know of the data when it is built."""
        shape: tuple[int, ...] = ()
        if is_dataset(X):
            shape = np.shape(X[0][0]) if len(X) else ()
        elif not isinstance(X, Mapping):
            shape = X.shape[1:]
        sizes = {"n_features": int(np.prod(shape))} if shape else {}
        if len(shape) > 1:
            sizes["n_channels"] = int(shape[0])
        if n_outputs is not None:
            sizes["n_outputs"] = n_outputs
        self._sizes = sizes

    def _model_input(self, X) -> np.ndarray:
        """Return X as the module gets it in predict."""
        check_is_fitted(self)
        return self._check_input(X)

    def _model_sample(self) -> np.ndarray:
        """Return two samples of zeros, in the shape and the dtype that the module gets."""
        check_is_fitted(self)
        if self._sample_shape is None:
            raise ValueError(
                f"{type(self).__name__}: the shape of a sample is not known, since the net was "
                "not fitted on an array; pass 'X'."
            )
        return np.zeros((2, *self._sample_shape), dtype=self._sample_dtype)


def goes_untouched(X) -> bool:
    """Say whether X is left to skorch: a Dataset, or a dict of forward's arguments."""
    return is_dataset(X) or (isinstance(X, Mapping) and not scipy.sparse.issparse(X))


def read_labels(dataset, caller: str) -> np.ndarray:
    """Return the labels inside a torch Dataset whose items are pairs (X, y)."""
    labels = []
    for item in (dataset[k] for k in range(len(dataset))):  # one after the other: X may be large
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise ValueError(
                f"{caller}: the items of the {type(dataset).__name__} must be pairs (X, y) where y "
                "is None; pass y as well, or such a Dataset."
            )
        labels.append(np.asarray(item[1]))
    return np.array(labels)


def check_codes(codes: np.ndarray, caller: str) -> np.ndarray:
    """Return the labels inside a Dataset, which go to the criterion as they are: 0, 1, ..."""
    found = np.unique(codes)
    if not np.array_equal(found, np.arange(len(found))):
        raise ValueError(
            f"{caller}: the labels inside a Dataset must be 0, 1, ..., n_classes - 1, found "
            f"{found.tolist()!r}; encode them, or pass X and y as arrays."
        )
    return codes


def read_codes(dataset, caller: str) -> np.ndarray:
    """Return the labels of classes inside a torch Dataset."""
    return check_codes(read_labels(dataset, caller).astype(int), caller)


def readable(values, caller: str, name: str):
    """Return a tensor as an array, and anything else as it is, if a net can read its values.

    Labels may be text. Dates are refused: a cast would make numbers of nanoseconds of them.
    """
    if isinstance(values, torch.Tensor):
        check_tensor(values, caller, name)
        values = values.detach().cpu()
        return (values.float() if values.dtype is torch.bfloat16 else values).numpy()
    if isinstance(values, pd.DataFrame) and name == "X":
        for column, part in values.items():
            if pd.api.types.is_numeric_dtype(part.dtype):
                continue
            try:
                part.astype(float)
            except (TypeError, ValueError):
                raise ValueError(
                    f"{caller}: column {column!r} of '{name}' holds no numbers (dtype "
                    f"{part.dtype}); encode it."
                ) from None
    if scipy.sparse.issparse(values) and name == "y":
        raise TypeError(f"{caller}: 'y' is sparse; pass y.toarray().")
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    if kind in ("m", "M"):
        raise TypeError(f"{caller}: '{name}' holds dates or times; turn them into numbers.")
    if name == "y" and kind == "O" and not all(isinstance(v, LABELS) for v in np.ravel(values)):
        raise TypeError(f"{caller}: 'y' must hold numbers or text, got other objects.")
    return values


def _plain(X) -> np.ndarray:
    """Return a checked array as torch takes it: no subclass, the machine's byte order."""
    X = np.asarray(X)
    return X if X.dtype.isnative else X.astype(X.dtype.newbyteorder("="))


@dataclass
class ArrayBatches:
    """Mini-batches cut from arrays in one piece, where a DataLoader would gather sample by sample.

    Every batch is a copy: X and y, and the weights where there are any.

    A shuffled pass takes its order from one call of ``torch.randperm(n_samples)`` on torch's
    global generator, and draws nothing else.
    """

    X: np.ndarray
    y: np.ndarray | None
    indices: np.ndarray  # of the rows, in their order
    batch_size: int
    shuffle: bool = False
    drop_last: bool = False
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        n_samples = len(self.indices)
        whole, rest = divmod(n_samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        indices = self.indices
        if self.shuffle:
            indices = indices[torch.randperm(len(indices)).numpy()]
        for batch in range(len(self)):
            rows = indices[batch * self.batch_size : (batch + 1) * self.batch_size]
            y = torch.zeros(len(rows)) if self.y is None else torch.from_numpy(self.y[rows])
            weights = () if self.weights is None else (torch.from_numpy(self.weights[rows]),)
            yield torch.from_numpy(self.X[rows]), y, *weights


def array_batches(iterator, dataset, options: dict) -> ArrayBatches | None:
    """Return the batches that `iterator` would give, or None where only it can give them."""
    if iterator is not DataLoader or not options.keys() <= _ARRAY_OPTIONS:
        return None
    data, rows, shares = dataset, np.arange(len(dataset)), None
    while type(data) in (Subset, WeightedData):
        if type(data) is Subset:
            if type(data.dataset) is Subset:  # has its samples in the order of a DataLoader
                return None
            data, rows = data.dataset, np.asarray(data.indices)[rows]
        else:
            data, shares = data.data, data.weights[rows]
    if type(data) is not Dataset or type(data.X) is not np.ndarray:
        return None
    if type(data.y) not in (np.ndarray, type(None)):
        return None
    weights = None
    if shares is not None:
        weights = np.zeros(len(data.X))
        weights[rows] = shares
    return ArrayBatches(data.X, data.y, rows, **options, weights=weights)


def may_leave_one(iterator_options: dict, n_samples: int) -> bool:
    """Say whether the last batch of a pass would hold a single sample."""
    size = iterator_options["batch_size"]
    return "drop_last" not in iterator_options and n_samples > size and n_samples % size == 1
