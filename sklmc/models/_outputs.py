"""Forward passes in blocks, and what is read off along the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from sklmc._torch import plain_attention, single_thread, to_device, torch_defaults
from sklmc.models._inputs import floating_dtype, leading_width
from sklmc.models._view import ModelView

BLOCK_ROWS = 1024  # default number of samples in a forward pass


def input_blocks(inputs, batch_size: int | None = None) -> Iterator[tuple[torch.Tensor, ...]]:
    """Cut forward's argument, or a tuple of them, into blocks of samples."""
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    for start in range(0, len(parts[0]), batch_size or BLOCK_ROWS):
        yield tuple(part[start : start + (batch_size or BLOCK_ROWS)] for part in parts)


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
        shapes = ", ".join(str(tuple(arg.shape)) for arg in args)
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
    inputs,
    state: Mapping[str, torch.Tensor] | None = None,
    batch_size: int | None = None,
) -> torch.Tensor:
    """Return a module's outputs (n_samples, ...) in eval mode, on the CPU, one thread."""
    with single_thread():
        blocks = [run_module(view, args, state).cpu() for args in input_blocks(inputs, batch_size)]
    return torch.cat(blocks)


def count_multiply_adds(view: ModelView, inputs) -> int:
    """Return the multiplications that one sample costs, as torch counts them."""
    (first, *_) = input_blocks(inputs, 1)
    with FlopCounterMode(display=False) as counter, single_thread():
        run_module(view, first)
    return counter.get_total_flops() // 2


def as_logits(outputs: torch.Tensor) -> torch.Tensor:
    """Turn one logit z per sample, of shape (n,) or (n, 1), into the two logits [0, z]."""
    if outputs.ndim == 1:
        outputs = outputs[:, None]
    if outputs.ndim == 2 and outputs.shape[1] == 1:
        return torch.cat([torch.zeros_like(outputs), outputs], dim=1)
    return outputs


def capture_activations(
    view: ModelView,
    inputs,
    layers: Sequence[tuple[str, str]],
    state: Mapping[str, torch.Tensor] | None = None,
    batch_size: int | None = None,
) -> Iterator[dict[tuple[str, str, int], torch.Tensor]]:
    """Yield, block by block, what goes into or comes out of modules: never all samples at once.

    `layers` holds (module path, "input" or "output"); the keys of a block are (module path, side,
    number of the call), since a forward pass may call a module again. Modules that the pass does
    not call have no entry. Values are copies, made before a later operation can write into them;
    what is one tensor in the pass is one tensor here.
    """
    modules = dict(view.module.named_modules())
    unknown = [path for path, _ in layers if path not in modules]
    if unknown:
        raise ValueError(
            f"{view.caller}: {view.name} has no layer {unknown[0]!r}; its layers are "
            f"{[name for name in modules if name]!r}."
        )
    caught: dict[tuple[str, str, int], torch.Tensor] = {}
    copies: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(path: str, side: str, value) -> None:
        value = value[0] if isinstance(value, tuple) else value
        call = sum(key[:2] == (path, side) for key in caught)
        # originals stay alive within a block, so that their ids are theirs alone
        pair = copies.setdefault((id(value), value._version), (value, value.detach().clone()))
        caught[path, side, call] = pair[1]

    handles = []
    for path, side in layers:
        if side == "input":
            hook = modules[path].register_forward_pre_hook(
                lambda module, args, path=path: keep(path, "input", args)
            )
        else:
            hook = modules[path].register_forward_hook(
                lambda module, args, output, path=path: keep(path, "output", output)
            )
        handles.append(hook)
    try:
        for args in input_blocks(inputs, batch_size):
            caught.clear()
            copies.clear()
            with single_thread(), plain_attention():
                run_module(view, args, state)
            yield dict(caught)
    finally:
        for handle in handles:
            handle.remove()
