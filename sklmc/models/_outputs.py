"""Forward passes in blocks, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sklmc._torch import single_thread, to_device, torch_defaults
from sklmc.models._arrays import floating_dtype, leading_width
from sklmc.models._copying import tensors_in
from sklmc.models._inputs import Inputs
from sklmc.models._memory import ERRORS, leftovers, run_afresh

if TYPE_CHECKING:
    from sklmc.models._view import ModelView

FIELD = "selected_output_"  # the attribute of a module that names the output that counts


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

    The first of a tuple, "logits" of a dict or an object that has them, or what `select_output`
    named. What a criterion takes as probabilities comes back as their logarithms, which are logits
    as good as any.
    """
    field = vars(view.original).get(FIELD)
    found = output
    if field is not None:
        found = _field(output, field)
    elif isinstance(output, (tuple, list)) and not hasattr(output, "logits"):
        found = output[0] if output else None
    elif not isinstance(output, torch.Tensor):
        found = _field(output, "logits")
    if not isinstance(found, torch.Tensor):
        fields = plain_output(output)
        names = ", ".join(map(repr, fields)) if isinstance(fields, Mapping) else ""
        wanted = "" if field is None else f", and no tensor {field!r}"
        raise TypeError(
            f"{view.caller}: {view.name} returns {type(output).__name__}"
            f"{names and f' with {names}'}{wanted}; wrap the module "
            "so that it returns one tensor, or name the output that counts with select_output."
        )
    criterion = getattr(view.net, "criterion_", None)
    if isinstance(criterion, nn.NLLLoss):
        return _log_probabilities(found)
    if isinstance(criterion, nn.BCELoss):
        tiny = torch.finfo(found.dtype).tiny
        return found.clamp_min(tiny).log() - (1.0 - found).clamp_min(tiny).log()
    return found


def plain_output(output):
    """Return an object with fields, as models of transformers give them, as a dict."""
    if isinstance(output, (torch.Tensor, tuple, list, Mapping)) or output is None:
        return output
    fields = getattr(output, "__dict__", {})
    return {name: part for name, part in fields.items() if list(tensors_in(part))}


def _field(output, field: str | int):
    """Return one field of an output; None where there is none."""
    if isinstance(field, str) and not isinstance(output, Mapping):
        return getattr(output, field, None)
    try:
        return output[field]
    except (LookupError, TypeError):
        return None


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
