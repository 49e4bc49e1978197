"""Merge plain units that point the same way; clear those that are dead."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from sklmc.features._layers import trace_layers
from sklmc.features._nets_on_samples import BLOCK_NUMBERS, MAX_ROWS, TRACE_ROWS, layer_reader
from sklmc.features._redundancy._plain_units import PlainUnits, scale_rows
from sklmc.models import ModelView

ROUNDING = 1e-12  # of a cosine: exact multiples merge at tol=0


class UnitMerger:
    """Reduces one group of units after another; `state` holds the weights so far."""

    def __init__(self, look: ModelView, inputs, tol: float, balance: bool, inputs_are_data: bool):
        self.look, self.inputs, self.tol, self.balance = look, inputs, tol, balance
        self.inputs_are_data = inputs_are_data
        self.state = dict(look.state)
        self.kept: dict[str, np.ndarray] = {}
        self._fates: list[pd.DataFrame] = []

    def reduce(self, units: PlainUnits) -> None:
        """Merge and clear the units of one group, in `state`."""
        layer = self.look.module.get_submodule(units.producer)
        eps = 0.0 if units.norm is None else self.look.module.get_submodule(units.norm).eps
        rows = units.rows(self.state, layer, eps)
        columns = units.columns(self.state)
        dead, dead_on_data = self._dead(units, rows, columns)
        sizes = rows.norm(dim=1).numpy()
        weight = sizes * columns.norm(dim=1).numpy()
        order = [unit for unit in np.argsort(-weight, kind="stable") if not dead[unit]]
        into = nearest_kept(rows.numpy(), order, self.tol)
        ratio = np.full(units.size, np.nan)
        for unit, heir in into.items():
            if unit != heir:
                ratio[unit] = sizes[unit] / sizes[heir]
                self._add_columns(units, unit, heir, ratio[unit])
        kept = np.array(sorted(u for u, to in into.items() if u == to) or [0])  # never none
        alive = torch.from_numpy(np.isin(np.arange(units.size), kept)).double()
        self._clear(units, alive)
        if self.balance:
            self._balance(units, layer, eps)
        self.kept[units.name] = kept
        fate = np.where(dead_on_data, "dead on X", np.where(dead, "dead", "merged"))
        fate[kept] = "kept"
        target = [into[u] if what == "merged" else -1 for u, what in enumerate(fate)]
        columns = {"group": units.name, "unit": np.arange(units.size), "fate": fate}
        self._fates.append(pd.DataFrame(columns | {"into": target, "ratio": ratio}))

    def to_frame(self) -> pd.DataFrame:
        """Return what became of every unit."""
        if not self._fates:
            return pd.DataFrame(columns=["group", "unit", "fate", "into", "ratio"])
        return pd.concat(self._fates, ignore_index=True)

    def _dead(self, units: PlainUnits, rows, columns) -> tuple[np.ndarray, np.ndarray]:
        """Return which units change no output, and which of them only on the data."""
        unreached = (rows == 0).all(dim=1) | (columns == 0).all(dim=1)
        silent = self._silent(units)
        constant = (rows[:, :-1] == 0).all(dim=1)
        provable = unreached | (constant & silent)
        dead = provable | silent if self.inputs_are_data else provable
        return dead.numpy(), (dead & ~provable).numpy()

    def _silent(self, units: PlainUnits) -> torch.Tensor:
        """Return which units are zero wherever they are used, on all samples."""
        layers = trace_layers(self.look, self.inputs.first(TRACE_ROWS))
        used = {tensor.rpartition(".")[0]: places for tensor, places in units.consumers}
        chosen = [layer for layer in layers if layer.path in used]
        width = sum(int(np.prod(layer.input_shape)) for layer in chosen)
        rows = min(MAX_ROWS, max(1, BLOCK_NUMBERS // max(1, width)))
        silent = torch.ones(units.size, dtype=torch.bool)
        with layer_reader(self.look, inputs=[layer.name for layer in chosen]) as reader:
            for args in self.inputs.blocks(rows):
                reading = reader.run(args, self.state)
                for layer in chosen:
                    linear = isinstance(layer.module, torch.nn.Linear)
                    values = reading.inputs[layer.name].movedim(-1 if linear else 1, 0).cpu()
                    for tensor, places in units.consumers:
                        if tensor.rpartition(".")[0] == layer.path:
                            at = values[torch.from_numpy(places)].reshape(units.size, -1)
                            silent &= (at == 0).all(dim=1)
        return silent

    def _add_columns(self, units: PlainUnits, unit: int, kept: int, ratio: float) -> None:
        """Give what uses one unit to another, times the ratio of their incoming norms."""
        for tensor, places in units.consumers:
            new = self.state[tensor].clone()
            moved = new.movedim(1, 0)
            moved[places[kept]] += ratio * moved[places[unit]]
            self.state[tensor] = new

    def _clear(self, units: PlainUnits, alive: torch.Tensor) -> None:
        """Set everything that makes or uses units that are not alive to zero."""
        units.scale(self.state, alive, alive)
        if units.norm is not None:
            layer = (f"{units.producer}.weight", f"{units.producer}.bias")
            scale_rows(self.state, [name for name in layer if name in self.state], alive)

    def _balance(self, units: PlainUnits, layer, eps: float) -> None:
        """Give every unit incoming and outgoing weights of one norm."""
        incoming = units.rows(self.state, layer, eps).norm(dim=1)
        outgoing = units.columns(self.state).norm(dim=1)
        factor = torch.ones(units.size, dtype=torch.float64)
        both = (incoming > 0) & (outgoing > 0)
        factor[both] = (outgoing[both] / incoming[both]).sqrt()
        units.scale(self.state, factor, 1.0 / factor)


def nearest_kept(rows: np.ndarray, order, tol: float) -> dict[int, int]:
    """Map every unit in `order` to the kept unit that it joins; a kept unit to itself.

    `rows` (n_units, d) are incoming weights; units come in the order given, and each joins the
    kept one of greatest cosine if that exceeds ``1 - tol``.
    """
    directions = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    kept: list[int] = []
    into: dict[int, int] = {}
    for unit in map(int, order):
        cosines = directions[kept] @ directions[unit]
        best = int(cosines.argmax()) if kept else -1
        if kept and cosines[best] > 1.0 - tol - ROUNDING:
            into[unit] = kept[best]
        else:
            into[unit] = unit
            kept.append(unit)
    return into
