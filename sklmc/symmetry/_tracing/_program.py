"""A forward pass as torch exports it, with plain numbers for all sizes.

Some sizes are read off whole numbers: a graph net adds its atoms up into
``int(molecule.max()) + 1`` rows. No weight has a say in such a number: in one batch it is as
constant as any other size.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator

import torch
import torch._functorch.config as functorch_config
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_map

from sklmc.symmetry._tracing._graph import flatten, source_line

# what torch says of operations that read the values of tensors
_READING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

_LOGGERS = (
    "torch.export",
    "torch.fx.experimental.symbolic_shapes",
    "torch._subclasses.fake_tensor",
)


class FloatDependentError(Exception):
    """A size or a branch depends on numbers that are no whole numbers of the sample."""


def export_program(module: torch.nn.Module, sample: tuple) -> ExportedProgram:
    """Export a forward pass; sizes that it reads off whole numbers of the sample become constants.

    Only where torch cannot tell such a size is the pass exported once more, with the sample's
    values at hand (which takes the time and the memory of a forward pass).
    """
    try:
        with quiet():
            program, error = torch.export.export(module, sample, strict=False), None
        if not _unknown_sizes(program):
            return program
    except Exception as caught:
        if not is_data_dependent(caught):
            raise
        error = caught
    try:
        with quiet(), functorch_config.patch(fake_tensor_propagate_real_tensors=True):
            program = torch.export.export(module, sample, strict=False)
            _settle(program)
    except Exception as second:
        if error is None:
            raise
        raise error from second  # the first one knows the line
    return program


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep export from printing graphs, logs and warnings where it fails: we raise instead."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    printed = io.StringIO()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
        sys.stderr.write(printed.getvalue())  # no failure: what others said meanwhile
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def is_data_dependent(error: Exception) -> bool:
    """Say whether torch's trace stopped where it met the value of a tensor."""
    text = str(error)
    named = "DataDependent" in type(error).__name__
    return named or "data-dependent" in text or "Could not guard" in text


def _unknown_sizes(program: ExportedProgram) -> bool:
    """Say whether there is a tensor of a size that torch does not know."""
    return any(
        isinstance(value, torch.Tensor) and not all(isinstance(n, int) for n in value.shape)
        for node in program.graph.nodes
        for value in flatten(node.meta.get("val"))
    )


def _settle(program: ExportedProgram) -> None:
    """Write numbers in the place of what was read off the sample."""
    _check_origin(program)
    numbers = {}
    for node in program.graph.nodes:
        args = (node.args, node.kwargs)
        node.args, node.kwargs = torch.fx.node.map_arg(args, lambda n: numbers.get(n, n))
        value = node.meta.get("val")
        if isinstance(value, (torch.SymInt, torch.SymBool)):
            numbers[node] = bool(value) if isinstance(value, torch.SymBool) else int(value)
        elif value is not None:
            node.meta["val"] = tree_map(_of_known_size, value)


def _of_known_size(value):
    """Return an example of a result whose size is made of plain numbers."""
    if not isinstance(value, torch.Tensor) or all(isinstance(n, int) for n in value.shape):
        return value
    return torch.empty([int(n) for n in value.shape], dtype=value.dtype, device="meta")


def _check_origin(program: ExportedProgram) -> None:
    """Refuse sizes and branches that more than whole numbers of the sample decide about."""
    specs = program.graph_signature.input_specs
    entries = [node for node in program.graph.nodes if node.op == "placeholder"]
    whole = {
        node
        for node, spec in zip(entries, specs, strict=True)
        if spec.kind is InputKind.USER_INPUT and not _is_floating(node)
    }
    other: set[torch.fx.Node] = set()  # what is made of anything else
    for node in program.graph.nodes:
        if node.op == "placeholder" and node not in whole:
            other.add(node)
        if not other.isdisjoint(node.all_input_nodes):
            other.add(node)
        if not other.isdisjoint(_deciding(node)):
            raise FloatDependentError(source_line(node))


def _deciding(node: torch.fx.Node) -> list[torch.fx.Node]:
    """Return the arguments whose values make the size of a result, or a number of Python's."""
    tags = getattr(node.target, "tags", ())
    if not _READING.intersection(tags):
        return []
    if len(node.all_input_nodes) == 1:
        return node.all_input_nodes
    # the first one is what a mask or a number of repeats is applied to
    chosen = [one for one in flatten(node.args[1:]) if isinstance(one, torch.fx.Node)]
    if node.target is torch.ops.aten.index.Tensor:
        return [one for one in chosen if one.meta["val"].dtype in (torch.bool, torch.uint8)]
    return chosen


def _is_floating(node: torch.fx.Node) -> bool:
    """Say whether a node is a tensor of floating or complex numbers."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())
