"""What a net gave for fixed samples when it was saved: to judge classes that have changed since."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from skorch import NeuralNet
from torch import nn

from sklmc.models import run_module, view

_TOLERANCE = 1e-2  # of the largest output: other versions and machines round otherwise, in half too


def witnesses(nets: Iterable[NeuralNet | nn.Module]) -> dict[str, torch.Tensor]:
    """Return the outputs of one net of each class, by the class's name; not of those that refuse.

    A net refuses if the shape of its input is not known or if it answers differently each time.
    """
    found: dict[str, torch.Tensor] = {}
    for net in nets:
        module = getattr(net, "module_", net)
        name = type(module).__qualname__.rpartition(".")[2]
        if name not in found:
            try:
                first, second = _answer(net), _answer(net)
            except (RuntimeError, TypeError, ValueError, AttributeError, LookupError):
                continue
            if first.isfinite().all() and torch.equal(first, second):
                found[name] = first
    return found


def disagree(before: dict[str, torch.Tensor], nets: Iterable[NeuralNet | nn.Module]) -> str | None:
    """Return the name of a class whose net answers otherwise than before, None if there is none."""
    now = witnesses(nets)
    for name, outputs in before.items():
        answer = now.get(name)
        if answer is None or answer.shape != outputs.shape:
            return name
        if (answer - outputs).abs().max() > _TOLERANCE * outputs.abs().max():
            return name
    return None


def _answer(net) -> torch.Tensor:
    """Return a net's outputs for samples that are the same in every process."""
    look = view(net, caller="save_model")
    outputs = run_module(look, look.sample())
    return outputs.detach().double().cpu()
