"""Samples and labels as a model takes them, refused where they do not fit it or each other."""

from __future__ import annotations

import numpy as np
import torch

from sklmc._validation import check_same_length
from sklmc.models._inputs import Inputs
from sklmc.models._losses import per_sample_loss
from sklmc.models._outputs import predict_outputs
from sklmc.models._view import ModelView

PROBE_ROWS = 4  # samples that the net is run on, to see whether it takes them


def read_data(view: ModelView, X, y=None) -> tuple[Inputs, torch.Tensor | None]:
    """Return the samples, and the target or None; X may hold it (a Dataset, a DataLoader)."""
    inputs = view.to_input(X)
    y = inputs.targets() if y is None else y
    if y is not None:
        return inputs, read_target(view, inputs, y)
    _probe(view, inputs, list(range(min(PROBE_ROWS, len(inputs)))))
    return inputs, None


def read_labelled_data(view: ModelView, X, y=None) -> tuple[Inputs, torch.Tensor]:
    """Return the samples and the target, which must be there."""
    inputs = view.to_input(X)
    y = inputs.targets() if y is None else y
    if y is None:
        raise TypeError(
            f"{view.caller}: 'y' is None and X holds no labels; pass 'y', or a Dataset or "
            "DataLoader whose items are pairs (X, y)."
        )
    return inputs, read_target(view, inputs, y)


def read_target(view: ModelView, inputs: Inputs, y) -> torch.Tensor:
    """Return the target, if it fits what the net gives: length, shape, range of the labels."""
    target = view.to_target(_join_batches(y, len(inputs)))
    if target.ndim == 0:
        raise ValueError(f"{view.caller}: 'y' must hold one value per sample, got a single number.")
    check_same_length(inputs, target, view.caller)
    flat = target.reshape(len(target), -1).double()
    rows = sorted(
        {
            *range(min(PROBE_ROWS, len(target))),
            int(flat.amin(dim=1).argmin()),
            int(flat.amax(dim=1).argmax()),
        }
    )
    outputs, rows = _probe(view, inputs, rows)
    per_sample_loss(outputs, target[rows], view.caller)
    return target


def _probe(view: ModelView, inputs: Inputs, rows: list[int]) -> tuple[torch.Tensor, list[int]]:
    """Run a net on some samples; on all of them where it takes no fewer (nodes of a graph)."""
    try:
        return predict_outputs(view, inputs[torch.tensor(rows)]), rows
    except ValueError:
        return predict_outputs(view, inputs, batch_size=len(inputs)), list(range(len(inputs)))


def _join_batches(y, n_samples: int):
    """Return labels that come in batches, as X may, as one array."""
    in_batches = isinstance(y, list) and all(getattr(part, "ndim", 0) > 0 for part in y)
    if in_batches and len(y) != n_samples == sum(map(len, y)):
        return np.concatenate([np.asarray(part) for part in y])
    return y
