"""The forward pass exported: one graph per mode, of a private copy of the module."""

from __future__ import annotations

import copy
import traceback
from pathlib import Path

import torch
from torch import nn
from torch.export.graph_signature import InputKind, OutputKind

from sklmc._torch import to_device
from sklmc.exceptions import TraceError
from sklmc.models import plain_output
from sklmc.symmetry._tracing._graph import TORCH, Entry, Graph, flatten
from sklmc.symmetry._tracing._program import (
    FloatDependentError,
    export_program,
    is_data_dependent,
    quiet,
)

ROWS = ((256, 8), (2048, 4))  # numbers in one sample up to which so many rows are traced; then 2
_SKLMC = str(Path(__file__).parents[2])


def trace_input(sample: tuple) -> tuple:
    """Return forward's arguments with a number of rows that depends on their shape alone."""
    tensors = [part for part in sample if isinstance(part, torch.Tensor)]
    if len(sample) == 1 and tensors and tensors[0].ndim > 0:
        size = tensors[0][0].numel()
        rows = next((rows for limit, rows in ROWS if size <= limit), 2)
        there = torch.arange(rows, device=tensors[0].device)
        return (tensors[0][there % len(tensors[0])],)
    return sample


def export_graph(module: nn.Module, sample: tuple, *, training: bool, caller: str) -> Graph:
    """Export the forward pass of a private copy of a module; the module itself is not touched."""
    private = copy.deepcopy(module, {id(p): p for p in module.parameters()}).train(training)
    private.register_forward_hook(lambda module, args, output: plain_output(output))
    if training:
        _give_momentum(private)
    tensors = [*private.parameters(), *private.buffers()]
    if tensors:
        sample = to_device(sample, tensors[0].device) if _all_tensors(sample) else sample
    try:
        program = export_program(private, sample)
        if any(_is_functorch(node) for node in program.graph.nodes):
            with quiet():
                program = program.run_decompositions({})  # vmap, written out as plain operations
    except Exception as error:
        raise _trace_error(error, module, caller) from error
    return _read(program, training)


def _give_momentum(module: nn.Module) -> None:
    """Give batch norms without momentum one: a cumulative average counts calls, which no trace can.

    Only the running statistics depend on it, and in train mode no output depends on those.
    """
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.momentum is None:
            part.momentum = 0.1


def _is_functorch(node: torch.fx.Node) -> bool:
    """Say whether a node opens, fills or closes a level of torch.vmap."""
    return getattr(node.target, "__module__", "") == "torch._functorch.predispatch"


def _all_tensors(sample: tuple) -> bool:
    """Say whether all of forward's arguments are tensors."""
    return all(isinstance(part, torch.Tensor) for part in sample)


def _read(program, training: bool) -> Graph:
    """Read names and kinds of placeholders from an exported program."""
    specs = program.graph_signature.input_specs
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    entries, constants = [], {}
    for node, spec in zip(nodes, specs, strict=True):
        if spec.kind is InputKind.USER_INPUT:
            entries.append(Entry(node, "input", node.name))
        elif spec.kind is InputKind.PARAMETER or (
            spec.kind is InputKind.BUFFER and spec.persistent is not False
        ):
            is_buffer = spec.kind is InputKind.BUFFER
            entries.append(Entry(node, "tensor", spec.target, is_buffer))
        else:
            entries.append(Entry(node, "constant", spec.target))
            constants[spec.target] = program.constants[spec.target].detach().cpu()
    out = next(node for node in program.graph.nodes if node.op == "output")
    kinds = [spec.kind for spec in program.graph_signature.output_specs]
    values = zip(out.args[0], kinds, strict=True)  # decomposed, updated buffers are among them
    out.args = (tuple(value for value, kind in values if kind is OutputKind.USER_OUTPUT),)
    outputs = [value for value in flatten(out.args) if isinstance(value, torch.fx.Node)]
    return Graph(program.graph_module, entries, outputs, constants, training)


def _trace_error(error: Exception, module: nn.Module, caller: str) -> TraceError:
    """Say in which line of the user's code the trace stopped, and what can be done."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((TORCH, _SKLMC, "<"))
    ]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}, '{frames[-1].line}'" if frames else ""
    kind = type(error).__name__
    text = " ".join(str(error).split())
    if isinstance(error, FloatDependentError):
        where, what = (
            f" at {text}" if text else "",
            "the size of a tensor depends on the values of others",
        )
    elif is_data_dependent(error):
        what = "its control flow depends on the values of tensors"
    elif "PackedSequence" in text:
        what = "it takes or makes a PackedSequence"
    else:
        what = f"{kind}: {text[:200]}"
    return TraceError(
        f"{caller}: the forward pass of {type(module).__name__} could not be traced{where}: "
        f"{what}. Wrap the module so that forward takes and returns plain tensors without such "
        "steps, or give the symmetry yourself (PermutationSymmetry.from_axes_to_perm)."
    )
