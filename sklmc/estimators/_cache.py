"""Fitted nets as records: what makes one, and how it is made again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from sklmc.estimators._vectorized import adopt
from sklmc.models import Record, read_record, write_record


def member_path(folder: Path, index: int) -> Path:
    """Return where a member of a cell is stored."""
    return folder / f"{index:05d}.safetensors"


def store_net(folder: Path, index: int, net, span: range, notes: Mapping) -> None:
    """Write a fitted net with its optimizer, its history and notes on where it comes from."""
    tensors = {f"module.{name}": value for name, value in net.module_.state_dict().items()}
    state = net.optimizer_.state_dict()
    plain: dict = {}
    for number, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{number}.{name}"] = value
            else:
                plain.setdefault(str(number), {})[name] = value
    content = {
        **notes,
        "index": index,
        "span": [span.start, span.stop],
        "history": _jsonable(net.history_.to_list()),
        "param_groups": _jsonable(state["param_groups"]),
        "optimizer_state": plain,
        "output_ndim": getattr(net, "_output_ndim", None),
    }
    write_record(member_path(folder, index), tensors, content)


def read_nets(folder: Path, span: range, seeds: list[int], caller: str) -> dict[int, Record]:
    """Return the good records of a span."""
    records = {}
    for index in span:
        record = read_record(member_path(folder, index), {"seed": seeds[index]}, caller)
        if record is not None:
            records[index] = record
    return records


def restore_net(net, lead, record: Record) -> None:
    """Make an unfitted net the one that was stored; `lead` has seen the data."""
    adopt(net, lead)
    net.initialize()
    module = {
        name.removeprefix("module."): value
        for name, value in record.tensors.items()
        if name.startswith("module.")
    }
    net.module_.load_state_dict(module)
    state: dict = {
        int(number): dict(entries) for number, entries in record.notes["optimizer_state"].items()
    }
    for name, value in record.tensors.items():
        if name.startswith("optimizer."):
            _, number, entry = name.split(".", 2)
            state.setdefault(int(number), {})[entry] = value
    groups = [
        {key: tuple(value) if key == "betas" else value for key, value in group.items()}
        for group in record.notes["param_groups"]
    ]
    net.optimizer_.load_state_dict({"state": state, "param_groups": groups})
    net.history_.extend(record.notes["history"])
    if record.notes["output_ndim"] is not None:
        net._output_ndim = record.notes["output_ndim"]
    net._set_training(False)


def _jsonable(value):
    """Return histories and settings as plain lists, dicts and numbers; NaN stays a number."""
    if isinstance(value, Mapping):
        return {key: _jsonable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(part) for part in value]
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return value.tolist()
    return value
