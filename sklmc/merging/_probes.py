"""What repairs read off a forward pass, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from sklmc.merging._rows import choose_rows, count_rows, input_rows, output_rows
from sklmc.merging._sites import Norm, Probe, Site, watch
from sklmc.models import BLOCK_ROWS, Inputs, ModelView, Moments, State

N_BLOCKS = 10  # at least, so that folds are of different samples


def fold_blocks(inputs: Inputs) -> Iterator[tuple[int, tuple[torch.Tensor, ...]]]:
    """Number all samples in blocks, enough of them for folds."""
    return enumerate(inputs.blocks(min(BLOCK_ROWS, math.ceil(len(inputs) / N_BLOCKS))))


class OutputProbe(Probe):
    """Keeps the chosen rows of one output."""

    def __init__(self, kind: str, n_samples: int, n_block: int, seed: tuple[int, int]):
        self.kind = kind
        self._draw = (n_block, n_samples, seed)
        self.rows: torch.Tensor | None = None

    def after(self, output: torch.Tensor) -> None:
        chosen = choose_rows(count_rows(output, self.kind), *self._draw)
        self.rows = output_rows(output, self.kind, chosen)


class SiteProbe(Probe):
    """Keeps the chosen rows of what reaches one layer, and the arguments until then."""

    def __init__(self, site: Site, n_samples: int, n_block: int, seed: tuple[int, int]):
        self.site = site
        self._draw = (n_block, n_samples, seed)
        self.rows: torch.Tensor | None = None

    def before(self, arguments: dict) -> None:
        self._arguments = arguments

    def after(self, output: torch.Tensor) -> None:
        chosen = choose_rows(count_rows(output, self.site.kind), *self._draw)
        self.rows = input_rows(self.site, self._arguments, chosen)
        del self._arguments


class OperandProbe(Probe):
    """Keeps the chosen rows of one operand of an addition."""

    def __init__(self, operand: int, kind: str, n_samples: int, n_block: int, seed):
        self.operand = operand
        self.kind = kind
        self._draw = (n_block, n_samples, seed)
        self.rows: torch.Tensor | None = None

    def before(self, arguments: dict) -> None:
        value = arguments["input" if self.operand == 0 else "other"]
        chosen = choose_rows(count_rows(value, self.kind), *self._draw)
        self.rows = output_rows(value, self.kind, chosen).clone()  # the addition may be in place


class MomentProbe(Probe):
    """Adds one output, or one input, to running moments per unit."""

    def __init__(self, moments: Moments, kind: str, of_input: bool = False):
        self.moments = moments
        self.kind = kind
        self.of_input = of_input

    def before(self, arguments: dict) -> None:
        if self.of_input:
            self._add(arguments["input"])

    def after(self, output: torch.Tensor) -> None:
        if not self.of_input:
            self._add(output)

    def _add(self, values: torch.Tensor) -> None:
        self.moments.add(values, unit_axis=1 if self.kind == "conv" else -1)


def lone_statistics(
    view: ModelView, state: State, norm: Norm, inputs: Inputs
) -> dict[str, torch.Tensor]:
    """Return the mean and variance of what reaches a batch norm that follows no layer."""
    moments = Moments()
    for _, args in fold_blocks(inputs):
        watch(view, args, state, {norm.call: MomentProbe(moments, "conv", of_input=True)})
    return {norm.mean: moments.mean, norm.variance: moments.variance(correction=1)}
