"""Which hidden units are plain: one layer makes them, a homogeneous activation, layers use them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sklmc.features._layers import AFFINE, weight_matrix
from sklmc.models import Inputs, ModelView, State, predict_outputs, view
from sklmc.symmetry import PermutationSymmetry

TOLERANCE = 1e-9  # largest relative change of an output that rounding may cause in float64
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass
class PlainUnits:
    """The tensors of one group of plain units.

    A unit's activation depends on its row of `weight` (and `bias`, and its entries of the batch
    norm `norm`) alone and grows in proportion to them; what uses it are columns of `consumers`:
    tensor and, per unit, positions (n_units, n_positions) on axis 1.
    """

    name: str
    size: int
    producer: str
    norm: str | None
    consumers: list[tuple[str, np.ndarray]]
    vectors: list[str]  # all tensors whose axis 0 holds the units

    def rows(self, state: Mapping[str, torch.Tensor], layer: nn.Module, eps: float) -> torch.Tensor:
        """Return weights and bias behind any norm, (n_units, n_inputs + 1)."""
        probe = copy.copy(layer)
        probe._parameters = {"weight": state[f"{self.producer}.weight"], "bias": None}
        matrix = weight_matrix(probe)
        bias = state.get(f"{self.producer}.bias")
        bias = torch.zeros(len(matrix)) if bias is None else bias.cpu()
        bias = bias.double()
        if self.norm is not None:
            scale, shift, mean, variance = (
                state[f"{self.norm}.{part}"].double().cpu()
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            factor = scale / (variance + eps).sqrt()
            matrix, bias = factor[:, None] * matrix, factor * (bias - mean) + shift
        return torch.cat([matrix, bias[:, None]], dim=1)

    def columns(self, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return everything that uses each unit, (n_units, n_uses)."""
        parts = []
        for tensor, positions in self.consumers:
            moved = state[tensor].double().cpu().movedim(1, 0)
            parts.append(moved[torch.from_numpy(positions)].reshape(self.size, -1))
        return torch.cat(parts, dim=1)

    def scale(
        self, state: dict[str, torch.Tensor], rows: torch.Tensor, columns: torch.Tensor
    ) -> None:
        """Multiply what makes each unit by `rows` (n_units,) and what uses it by `columns`."""
        behind = [f"{self.norm}.weight", f"{self.norm}.bias"]
        scale_rows(state, self.vectors if self.norm is None else behind, rows)
        for tensor, positions in self.consumers:
            old = state[tensor].clone().movedim(1, 0)
            factor = columns.to(old.device, torch.float64)
            for units, places in enumerate(positions):
                old[places] = (old[places].double() * factor[units]).to(old.dtype)
            state[tensor] = old.movedim(0, 1).contiguous()


def scale_rows(state: dict[str, torch.Tensor], names: Iterable[str], rows: torch.Tensor) -> None:
    """Multiply the rows of some tensors by one factor each (n_units,)."""
    for name in names:
        old = state[name]
        factor = rows.to(old.device, torch.float64).reshape(-1, *[1] * (old.ndim - 1))
        state[name] = (old.double() * factor).to(old.dtype)


def plain_units(
    look: ModelView, symmetry: PermutationSymmetry, inputs: Inputs
) -> tuple[list[PlainUnits], dict[str, str]]:
    """Return the groups of plain units, and for every other group why it is none.

    The structure is read off the symmetry; that the units scale as claimed is then tested: on
    random weights, scaling what makes them and unscaling what uses them must change nothing.
    """
    found, refused = [], {}
    tied = {name for names in symmetry.aliases for name in names if len(names) > 1}
    prover = _Prover(look, inputs)
    for group in symmetry.groups:
        candidate = _read(look, symmetry, group, tied)
        if isinstance(candidate, str):
            refused[group.name] = candidate
            continue
        error = prover.error(candidate)
        if error > TOLERANCE:
            refused[group.name] = (
                f"what lies between is not positively homogeneous (error {error:.1e})"
            )
        else:
            found.append(candidate)
    return found, refused


def _read(look: ModelView, symmetry: PermutationSymmetry, group, tied) -> PlainUnits | str:
    """Read the tensors of a group, or say why its units are not plain."""
    if group.within:
        return "its units lie within another group"
    producers, norms = [], []
    consumers: list[tuple[str, np.ndarray]] = []
    vectors: list[str] = []
    for tensor, blocks in symmetry.blocks.items():
        path, _, leaf = tensor.rpartition(".")
        for block in blocks:
            axes = [d for d, axis in enumerate(block.axes) if group.name in axis.factors]
            if not axes:
                continue
            if tensor in tied:
                return f"{tensor!r} is tied to another tensor"
            module = _owner(look.module, path)
            whole = len(blocks) == 1 and block.axes[axes[0]].positions.size == group.size
            if axes == [0] and isinstance(module, AFFINE) and leaf in ("weight", "bias") and whole:
                if isinstance(module, nn.modules.conv._ConvTransposeNd):
                    return f"{path!r} is a transposed convolution"
                producers.append(path)
                vectors.append(tensor)
            elif axes == [0] and isinstance(module, BATCH_NORMS) and leaf in _norm_parts(module):
                if not whole:
                    return f"{path!r} norms other units as well"
                norms.append(path)
                vectors.append(tensor)
            elif axes == [1] and _uses(module, leaf):
                axis = block.axes[1]
                moved = np.moveaxis(axis.positions, axis.factors.index(group.name), 0)
                consumers.append((tensor, moved.reshape(group.size, -1)))
            else:
                return f"{tensor!r} holds its units in a way that is not that of a plain layer"
    if len(set(producers)) != 1:
        return f"{len(set(producers))} layers make its units: {sorted(set(producers))!r}"
    if not consumers:
        return "no linear or convolutional layer uses its units"
    if len(set(norms)) > 1:
        return f"several norms stand behind its layer: {sorted(set(norms))!r}"
    norm = norms[0] if norms else None
    return PlainUnits(group.name, group.size, producers[0], norm, consumers, vectors)


def _owner(module: nn.Module, path: str) -> nn.Module | None:
    """Return the module that holds a tensor."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _norm_parts(module: nn.Module) -> Sequence[str]:
    """Return the tensors of a batch norm that can be scaled; none where it has no scale."""
    whole = module.affine and module.track_running_stats
    return ("weight", "bias", "running_mean", "running_var") if whole else ()


def _uses(module: nn.Module | None, leaf: str) -> bool:
    """Say whether axis 1 of this tensor holds input units."""
    if isinstance(module, nn.modules.conv._ConvTransposeNd) or leaf != "weight":
        return False
    return isinstance(module, AFFINE) and getattr(module, "groups", 1) == 1


class _Prover:
    """Scales units of a float64 net with random weights and measures what the outputs do."""

    def __init__(self, look: ModelView, inputs: Inputs):
        self.generator = torch.Generator().manual_seed(0)
        module = copy.deepcopy(look.module).double().cpu()
        self.look = view(module, caller=look.caller, name=look.name)
        wide = (part.double() if part.is_floating_point() else part for part in inputs.args)
        self.inputs = Inputs(*wide)
        self.state = {name: self._draw(name, t) for name, t in self.look.state.items()}
        self.before = predict_outputs(self.look, self.inputs, self.state)

    def _draw(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Draw a tensor that makes every part of the net visible."""
        if not tensor.is_floating_point():
            return tensor
        if name.endswith("running_var"):
            return 0.5 + torch.rand(tensor.shape, generator=self.generator, dtype=torch.float64)
        normal = torch.randn(tensor.shape, generator=self.generator, dtype=torch.float64)
        if tensor.ndim < 2:
            return 1.0 + 0.5 * normal
        return normal * (2.0 / tensor[0].numel()) ** 0.5

    def error(self, units: PlainUnits) -> float:
        """Return the largest relative change of an output when units are scaled."""
        spread = torch.rand(units.size, generator=self.generator, dtype=torch.float64)
        factor = torch.exp(3.0 * (2.0 * spread - 1.0))
        state = dict(self.state)
        units.scale(state, factor, 1.0 / factor)
        error = self._change(state)
        if units.norm is None:
            return error
        # that the norm sees the layer itself, before any activation: turn the sign of both
        state = dict(self.state)
        sign = torch.where(spread > 0.5, 1.0, -1.0).double()
        still = (f"{units.norm}.running_var", f"{units.norm}.bias")
        scale_rows(state, [name for name in units.vectors if name not in still], sign)
        return max(error, self._change(state))

    def _change(self, state: State) -> float:
        """Return the largest relative change of an output."""
        after = predict_outputs(self.look, self.inputs, state)
        size = self.before.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
        return float((after - self.before).abs().max() / size)
