"""The subject of discovery: a model with a sample, as tracing and proof see it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from sklmc._torch import single_thread, to_device, torch_defaults
from sklmc.exceptions import SymmetryError, TraceError
from sklmc.models import ERRORS, ModelView, run_afresh, view
from sklmc.symmetry._tracing._export import export_graph, trace_input
from sklmc.symmetry._tracing._graph import Graph
from sklmc.symmetry._tracing._tensors import check_dense, tied_names


class Subject:
    """A model seen by this room: its tensors, which are tied, which are buffers, its sample."""

    def __init__(self, model, X, caller: str):
        self.caller = caller
        self.view = view(model, caller=caller)
        check_dense(self.view.original, caller)
        self.state = self.view.state
        self.module: nn.Module = self.view.module
        self.aliases = tied_names(self.view.original)
        buffers = {name for name, _ in self.view.original.named_buffers(remove_duplicate=False)}
        self.buffers = frozenset(buffers & self.state.keys())
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self.state.items()}
        self.sample = trace_input(tuple(map(_plain, self.view.sample(X))))
        self._given = X
        self._settle()

    def _settle(self) -> None:
        """Run the net once: what it keeps from a call would be written into the trace."""
        with contextlib.suppress(*ERRORS), torch.no_grad(), single_thread():
            run_afresh(self.view, self.inputs)  # what it does not take is said by the trace

    def graph(self, training: bool) -> Graph:
        """Export the forward pass in one mode."""
        try:
            return export_graph(self.module, self.sample, training=training, caller=self.caller)
        except TraceError:
            if not self.takes_any_rows():
                return self.graph(training)
            with self.refusing(), torch.no_grad(), single_thread():
                self.module(*self.inputs)  # what forward refuses is not the fault of the trace
            raise

    def takes_any_rows(self) -> bool:
        """Go back to all of X, once, where forward wants exactly its rows (nodes of a graph)."""
        if self._given is None:
            return True
        whole, self._given = self.view.to_input(self._given), None
        self.sample = whole.whole()
        self._settle()
        return False

    @property
    def inputs(self) -> tuple:
        """The sample where the net lies."""
        return tuple(
            to_device(value, self.view.device) if isinstance(value, torch.Tensor) else value
            for value in self.sample
        )

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Say in our words what the net says when it runs, as it is, on what it does not take."""
        try:
            yield
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = [tuple(v.shape) for v in self.sample if isinstance(v, torch.Tensor)]
            raise SymmetryError(
                f"{self.caller}: the net does not take 'X' (traced as {shapes[0]}, "
                f"{len(shapes)} tensors in all): {error}. Pass a few samples as the net takes them."
            ) from error

    def graphs(self) -> list[Graph]:
        """Export eval mode, and train mode where that can be exported."""
        found, rows = [self.graph(False)], self.sample
        try:
            found.append(self.graph(True))
            if self.sample is not rows:  # train mode wanted all rows: both have the same
                found[0] = self.graph(False)
        except TraceError:
            self.sample = rows
            warnings.warn(
                f"{self.caller}: the forward pass could not be traced in train mode; the symmetry "
                "is proved for eval mode only.",
                stacklevel=4,
            )
        return found

    @property
    def movable(self) -> set[str]:
        """Floating tensors of the state; all others are constants of the net."""
        return {
            name
            for name, tensor in self.state.items()
            if tensor.is_floating_point() or tensor.is_complex()
        }


def _plain(value):
    """Return a tensor that can be traced: one made under inference mode is copied."""
    inference = isinstance(value, torch.Tensor) and value.is_inference()
    return value.clone() if inference else value


@contextlib.contextmanager
def settings_of(look: ModelView) -> Iterator[None]:
    """Run a block under torch's own settings with the net's dtype and device as the default ones.

    So a caller's inference mode, autocast and defaults change nothing, and what forward makes
    without naming a dtype or a device fits the net.
    """
    elsewhere = contextlib.nullcontext() if look.device.type == "cpu" else look.device
    with torch_defaults(dtype_of(look.original.parameters())), elsewhere:
        yield


def dtype_of(tensors: Iterable[torch.Tensor]) -> torch.dtype:
    """Return the dtype of the first floating tensor; float32 where there is none."""
    floating = (tensor.dtype for tensor in tensors if tensor.is_floating_point())
    return next(floating, torch.float32)
