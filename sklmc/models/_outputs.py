"""Forward passes in blocks, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from sklmc._torch import single_thread, to_device, torch_defaults
from sklmc.models._arrays import floating_dtype, leading_width
from sklmc.models._inputs import Inputs

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
            if state is None:
                output = view.module(*args)
            else:
                output = functional_call(view.module, dict(state), args, tie_weights=False)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        shapes = ", ".join(str(tuple(arg.shape)) for arg in args if isinstance(arg, torch.Tensor))
        width = leading_width(view.original)
        hint = f" Its first linear layer takes {width} features." if width else ""
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{view.caller}: {view.name} cannot run on 'X' of shape {shapes}.{hint} "
            f"torch says: {reason}"
        ) from None
    if isinstance(output, (tuple, list)):
        output = output[0]
    if not isinstance(output, torch.Tensor):
        raise TypeError(
            f"{view.caller}: {view.name} returns {type(output).__name__}; wrap the module so that "
            "it returns one tensor, its logits."
        )
    return output


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
