"""Layers that multiply what reaches them with a matrix: which call, which tensors, in which order.

All of them are one thing to a regression: rows of inputs in groups, times a matrix per group.
"""

from __future__ import annotations

import dataclasses
import math

import torch

from sklmc.models import State

PROJECTIONS = ("query", "key", "value")  # of an attention; what comes out of it is "attended"


@dataclasses.dataclass(frozen=True)
class Norm:
    """Batch norm in eval mode: which call it is, and its tensors (None where it has none)."""

    call: int
    mean: str
    variance: str
    scale: str | None
    shift: str | None
    eps: float


@dataclasses.dataclass(frozen=True)
class WeightLayer:
    """A linear or convolution layer: which call it is, its tensors, and what reads its output.

    A call of attention is four of them, which its `kind` tells apart.
    """

    call: int
    kind: str  # "linear", "conv", "transposed", one of `PROJECTIONS` or "attended"
    weight: str
    bias: str | None
    options: tuple  # of a convolution: stride, padding, dilation, groups, output padding
    norm: Norm | None  # batch norm that alone reads the output
    addition: int | None  # residual addition that alone reads what comes out of layer and norm
    operand: int  # which operand of that addition it is
    is_output: bool  # nothing reads it
    weight_rows: tuple[int, int] | None = None  # of a packed tensor; None is all of it
    bias_rows: tuple[int, int] | None = None
    is_swapped: bool = False  # the net takes an attention's samples first, the call has them second

    @property
    def target(self) -> int:
        """The call whose output the layer answers for, before any addition."""
        return self.call if self.norm is None else self.norm.call

    @property
    def matrix_name(self) -> tuple:
        """The tensor that holds the matrix, and which rows of it."""
        return self.weight, self.weight_rows

    @property
    def groups(self) -> int:
        """Number of groups of channels that do not see each other."""
        return self.options[3] if self.options else 1

    @property
    def units_axis(self) -> int:
        """The axis of the output that holds the units."""
        return 1 if self.options else -1

    def matrix(self, state: State) -> torch.Tensor:
        """Return the weights (groups, n_outputs, n_inputs) in float64."""
        weight = _rows(state[self.weight], self.weight_rows).double().cpu()
        if self.kind != "transposed":
            return weight.reshape(self.groups, len(weight) // self.groups, -1)
        # (groups * n_in, n_out, *kernel), and a position sees the kernel from behind
        grouped = weight.unflatten(0, (self.groups, -1)).transpose(1, 2)
        return grouped.flip(tuple(range(3, grouped.ndim))).flatten(2)

    def changes(
        self, state: State, matrix: torch.Tensor, shift: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Return the tensors of a state in which these weights, and biases, are the layer's."""
        old = state[self.weight]
        if self.kind == "transposed":
            n_in, n_out, *kernel = old.shape
            grouped = matrix.reshape(self.groups, n_out, n_in // self.groups, *kernel)
            grouped = grouped.flip(tuple(range(3, grouped.ndim)))
            weight = grouped.transpose(1, 2).reshape(old.shape)
        else:
            width = math.prod(old.shape[1:])
            weight = _put(old, self.weight_rows, matrix.reshape(-1, width))
        changes = {self.weight: weight}
        if shift is not None and self.bias is not None:
            changes[self.bias] = _put(state[self.bias], self.bias_rows, shift.reshape(-1))
        return changes

    def biases(self, state: State) -> torch.Tensor | None:
        """Return the biases (groups * n_outputs,) in float64; None where there are none."""
        if self.bias is None:
            return None
        return _rows(state[self.bias], self.bias_rows).double().cpu()


def _rows(tensor: torch.Tensor, rows: tuple[int, int] | None) -> torch.Tensor:
    return tensor if rows is None else tensor[slice(*rows)]


def _put(old: torch.Tensor, rows: tuple[int, int] | None, values: torch.Tensor) -> torch.Tensor:
    """Return a tensor with some of its rows, or all, replaced."""
    if rows is None:
        return values.reshape(old.shape)
    new = old.double().cpu().clone()
    new[slice(*rows)] = values.reshape(new[slice(*rows)].shape).double()
    return new
