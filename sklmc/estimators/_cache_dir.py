"""What `cache_dir` holds: a folder for each population, by fingerprints, a record for each net."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path

import torch
from skorch import NeuralNet

from sklmc._torch import seeded
from sklmc.estimators._members import Data
from sklmc.estimators._vectorized import adopt
from sklmc.exceptions import SklmcWarning
from sklmc.models import (
    Record,
    Unreadable,
    fingerprint,
    keeping,
    open_folder,
    read_record,
    versions,
    write_json,
    write_record,
)


def net_versions() -> dict[str, str]:
    """Return the versions that trained weights may depend on."""
    return versions("skorch")


def check_cache_seed(random_state, caller: str) -> None:
    """Refuse a seed with which nothing could be resumed."""
    if not isinstance(random_state, Integral):
        raise ValueError(
            f"{caller}: 'random_state' must be an int with 'cache_dir', got {random_state!r}: "
            "with other seeds each time nothing could be resumed."
        )


class PopulationFolders:
    """The part of a `cache_dir` that belongs to training data, a root seed and the versions."""

    def __init__(self, cache_dir, data: Data, root: int, caller: str):
        self.top = open_folder(cache_dir, caller)
        self.root = root
        self.caller = caller
        self.here: Path | None = None  # None: the data cannot be told from others
        given = data._asdict()
        if data.sample_weight is None:  # as in folders that know of no weights
            del given["sample_weight"]
        parts = self._read(given, "all nets")
        if parts is not None:
            self.here = self.top / fingerprint(*parts.values(), root, net_versions())[:16]

    def make(self, estimator, params: Mapping, labels: Mapping, key) -> Path | None:
        """Return the folder of a population: of an estimator, parameters and a key of the caller.

        None, with a warning, where something cannot be told from others. `labels` are the
        parameters for people, in cell.json.
        """
        if not isinstance(estimator, NeuralNet):
            raise ValueError(
                f"{self.caller}: 'cache_dir' stores skorch nets only, got "
                f"{type(estimator).__name__}; set it to None."
            )
        if self.here is None:
            return None
        settings = {
            name: value
            for name, value in estimator.get_params(deep=False).items()
            if name not in ("random_state", "verbose")
        }
        nets = f"the nets of {dict(labels)}" if labels else "the nets"
        values = dict(sorted({**settings, **params}.items()))
        found = self._read({**values, "estimator": type(estimator)}, nets)
        if found is None:
            return None
        kind = found.pop("estimator")
        folder = self.here / fingerprint(kind, [list(pair) for pair in found.items()], key)[:24]
        with keeping(self.top, self.caller):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(
                folder / "cell.json",
                {
                    "params": labels,
                    "random_state": self.root,
                    "versions": net_versions(),
                    "settings": {name: str(value) for name, value in sorted(settings.items())},
                },
            )
        return folder

    def report_others(self, folders: list[Path | None]) -> None:
        """Say that the `cache_dir` also holds nets of something else."""
        if self.here is None or not self.here.exists():
            return
        others = sum(path.is_dir() and path != self.here for path in self.top.iterdir())
        cells = sum(path.is_dir() and path not in folders for path in self.here.iterdir())
        counts = ((others, "other data, seeds or versions"), (cells, "other cells"))
        parts = [f"{count} of {what}" for count, what in counts if count]
        if parts:
            warnings.warn(
                f"{self.caller}: 'cache_dir' {str(self.top)!r} also holds nets that are not of "
                f"this grid (folders: {', '.join(parts)}). They are left alone.",
                SklmcWarning,
                stacklevel=3,
            )

    def _read(self, values: Mapping, nets: str) -> dict[str, str] | None:
        """Return fingerprints by name; None, with a warning, where something has none."""
        found = {}
        for name, value in values.items():
            try:
                found[name] = fingerprint(value)
            except Unreadable as error:
                warnings.warn(
                    f"{self.caller}: {nets} are not stored in 'cache_dir', since {name!r} cannot "
                    f"be told from others: {error}. They are trained in every fit.",
                    SklmcWarning,
                    stacklevel=4,
                )
                return None
        return found


def member_path(folder: Path, index: int) -> Path:
    """Return where a member of a cell is stored."""
    return folder / f"{index:05d}.safetensors"


def store_net(folder: Path, index: int, net, span: range, notes: Mapping) -> None:
    """Write a fitted net with its optimizer, its history and notes on where it comes from."""
    if net._modules != ["module"] or net._optimizers != ["optimizer"]:
        raise ValueError(
            f"'cache_dir' stores nets of one module and one optimizer, but {type(net).__name__} "
            f"has {net._modules!r} and {net._optimizers!r}; set it to None."
        )
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
    records = {
        index: read_record(member_path(folder, index), {"seed": seeds[index]}, caller)
        for index in span
    }
    return {index: record for index, record in records.items() if record is not None}


def restore_net(net, lead, record: Record) -> None:
    """Make an unfitted net the one that was stored; `lead` has seen the data."""
    adopt(net, lead)
    with seeded(0):  # plain skorch nets draw from the global generators
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
    return json.loads(json.dumps(value, default=lambda array: array.tolist()))
