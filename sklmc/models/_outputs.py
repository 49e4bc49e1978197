"""Forward passes in blocks, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sklmc._torch import single_thread, to_device, torch_defaults
from sklmc.models._arrays import floating_dtype, leading_width
from sklmc.models._inputs import Inputs
from sklmc.models._memory import ERRORS, leftovers, run_afresh

if TYPE_CHECKING:
    from sklmc.models._view import ModelView


def run_module(
    view: ModelView,
    args: tuple[torch.Tensor, ...],
    state: Mapping[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Run the view's module on one block, with other weights if `state` is given."""
    args = to_device(args, view.device)
    try:
        with torch_defaults(floating_dtype(view.original)), torch.no_grad():
            output = run_afresh(view, args, state)
    except ERRORS as error:
        shapes = ", ".join(str(tuple(arg.shape)) for arg in args if isinstance(arg, torch.Tensor))
        width = leading_width(view.original)
        hint = f" Its first linear layer takes {width} features." if width else ""
        if left := leftovers(view):
            names = ", ".join(repr(".".join(filter(None, place))) for place in left)
            hint += f" It holds what may be left from an earlier call ({names}): reset it."
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{view.caller}: {view.name} cannot run on 'X' of shape {shapes}.{hint} "
            f"torch says: {reason}"
        ) from None
    return pick_output(view, output)


def pick_output(view: ModelView, output) -> torch.Tensor:
    """Return the tensor among a module's outputs that is scored: its logits or predictions.

    The first of a tuple, "logits" of a dict or an object that has them. What a criterion takes as
    probabilities comes back as their logarithms, which are logits as good as any.
    """
    found = output
    if isinstance(output, Mapping):
        found = output.get("logits")
    elif not isinstance(output, (torch.Tensor, tuple, list)):
        found = getattr(output, "logits", None)
    elif isinstance(output, (tuple, list)):
        found = output[0] if output else None
    if not isinstance(found, torch.Tensor):
        fields = f" with {', '.join(map(repr, output))}" if isinstance(output, Mapping) else ""
        raise TypeError(
            f"{view.caller}: {view.name} returns {type(output).__name__}{fields}; wrap the module "
            "so that it returns one tensor (or 'logits' among others)."
        )
    criterion = getattr(view.net, "criterion_", None)
    if isinstance(criterion, nn.NLLLoss):
        return _log_probabilities(found)
    if isinstance(criterion, nn.BCELoss):
        tiny = torch.finfo(found.dtype).tiny
        return found.clamp_min(tiny).log() - (1.0 - found).clamp_min(tiny).log()
    return found


def _log_probabilities(output: torch.Tensor) -> torch.Tensor:
    """Return the logarithms of probabilities; of what are logarithms already, as they are."""
    if output.numel() and float(output.detach().max()) <= 0.0:
        return output
    return output.clamp_min(torch.finfo(output.dtype).tiny).log()


def predict_outputs(
    view: ModelView,
    inputs: Inputs,
    state: Mapping[str, torch.Tensor] | None = None,
    batch_size: int | None = None,
) -> torch.Tensor:
    """Return a module's outputs (n_samples, ...) in eval mode, on the CPU, one thread."""
    with single_thread():
        return inputs.collect(lambda args: run_module(view, args, state).cpu(), batch_size)


def count_multiply_adds(view: ModelView, inputs: Inputs) -> int:
    """Return the multiplications that one sample costs, as torch counts them."""
    with FlopCounterMode(display=False) as counter, single_thread():
        run_module(view, inputs.first(1))
    return counter.get_total_flops() // 2


def as_logits(outputs: torch.Tensor) -> torch.Tensor:
    """Turn one logit z per sample, of shape (n,) or (n, 1), into the two logits [0, z]."""
    if outputs.ndim == 1:
        outputs = outputs[:, None]
    if outputs.ndim == 2 and outputs.shape[1] == 1:
        return torch.cat([torch.zeros_like(outputs), outputs], dim=1)
    return outputs
