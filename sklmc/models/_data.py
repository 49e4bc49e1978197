"""Samples and labels as a model takes them, refused where they do not fit it or each other."""

from __future__ import annotations

import torch

from sklmc._validation import check_same_length
from sklmc.models._inputs import Inputs
from sklmc.models._losses import per_sample_loss
from sklmc.models._outputs import run_module
from sklmc.models._view import ModelView

PROBE_ROWS = 4  # samples that the net is run on, to see whether it takes them


def read_data(view: ModelView, X, y=None) -> tuple[Inputs, torch.Tensor | None]:
    """Return forward's arguments, and the target or None."""
    inputs = view.to_input(X)
    if y is not None:
        return inputs, read_target(view, inputs, y)
    _probe(view, inputs, list(range(min(PROBE_ROWS, len(inputs)))))
    return inputs, None


def read_labelled_data(view: ModelView, X, y) -> tuple[Inputs, torch.Tensor]:
    """Return forward's arguments and the target, which must be there."""
    inputs = view.to_input(X)
    return inputs, read_target(view, inputs, y)


def read_target(view: ModelView, inputs: Inputs, y) -> torch.Tensor:
    """Return the target, if it fits what the net gives: length, shape, range of the labels."""
    target = view.to_target(y)
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
        return run_module(view, inputs[rows].args).cpu(), rows
    except ValueError:
        return run_module(view, inputs.args).cpu(), list(range(len(inputs)))
