"""One inverse temperature, folded into the layer that gives the logits."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sklmc.merging._weight_sites import Site, all_names, find_sites
from sklmc.models import (
    ModelView,
    as_logits,
    fit_inverse_temperature,
    predict_outputs,
)


def calibrate_state(
    look: ModelView, inputs, target: torch.Tensor
) -> tuple[dict[str, torch.Tensor], float]:
    """Return the net's state with its logits scaled to fit labels best, and the scale."""
    logits = as_logits(predict_outputs(look, inputs))
    beta = fit_inverse_temperature(logits, target, held_out=True)
    names = _scaled_tensors(look, look.state, inputs.first(2))
    state = dict(look.state)
    for name in names:
        for same in all_names(look)[name]:
            state[same] = state[same] * beta
    return state, beta


def _scaled_tensors(look: ModelView, state: Mapping[str, torch.Tensor], args: tuple) -> list[str]:
    """Name the tensors that the logits are proportional to."""
    sites, _ = find_sites(look, state, args)
    outputs = [site for site in sites if isinstance(site, Site) and site.is_output]
    if len(outputs) == 1:
        last = outputs[0]
        if last.norm is None:
            return [last.weight] + ([last.bias] if last.bias else [])
        if last.norm.scale is not None:
            return [last.norm.scale, last.norm.shift]
    raise ValueError(
        f"{look.caller}: 'calibrate' scales the layer that gives the logits, but the output of "
        f"{type(look.original).__name__} is not that of a linear or convolution layer with weights "
        "of its own; set calibrate=False."
    )
