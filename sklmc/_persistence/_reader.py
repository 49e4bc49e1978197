"""From plain values and tensors to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from skorch import NeuralNet

from sklmc._persistence._tensors import TensorReader


class Reader:
    """Makes again what a Writer turned into plain values; names are looked up by `find`.

    Objects are made without their constructor, but for those that `may_call` allows.
    """

    def __init__(self, arrays: Mapping[str, torch.Tensor], find: Callable, may_call: Callable):
        self.nets: list[NeuralNet] = []
        self._tensors = TensorReader(arrays)
        self._find = find
        self._may_call = may_call
        self._made: dict[int, object] = {}

    def read(self, node):
        """Return the value of a node."""
        if not isinstance(node, dict):
            return node
        if "again" in node:
            return self._made[node["again"]]
        if "object" in node:
            return self._object(node)
        kind = next(key for key in node if key != "number")
        content = node[kind]
        if kind == "list":
            return self._fill(node, [], content)
        if kind == "dict":
            found = self._remember(node, {})
            found.update((self.read(key), self.read(part)) for key, part in content)
            return found
        return self._remember(node, self._value(kind, content))

    def _value(self, kind: str, content):
        """Return a value that cannot hold itself."""
        if kind in ("tuple", "set", "frozenset"):
            make = {"tuple": tuple, "set": set, "frozenset": frozenset}[kind]
            return make([self.read(part) for part in content])
        if kind == "name":
            return self._find(content)
        if kind == "tensor":
            return self._tensors.get(content)
        if kind == "dtype":
            return _dtype(content)
        if kind == "device":
            return torch.device(content)
        if kind == "masked":
            data, mask, fill_value = map(self.read, content)
            return np.ma.MaskedArray(data, mask, fill_value=fill_value)
        if kind == "array":
            return self._array(content)
        if kind == "scalar":
            return self._array(content)[()]
        if kind == "frame":
            columns = [[self.read(part) for part in pair] for pair in content["columns"]]
            return pd.DataFrame(dict(columns), index=range(content["length"]))
        if kind == "random":
            random = np.random.RandomState()
            random.set_state(self.read(content))
            return random
        if kind == "bytes":
            return bytes.fromhex(content)
        if kind == "path":
            return Path(content)
        return {"slice": slice, "range": range}[kind](*content)

    def _object(self, node):
        """Return an object: made without its constructor, then given its attributes."""
        kind = self._find(node["object"])
        arguments = [self.read(part) for part in node.get("arguments", ())]
        if not isinstance(kind, type):
            raise TypeError(f"{node['object']} is no class")
        if "called" in node and not self._may_call(node["object"]):
            raise TypeError(f"{node['object']} may not be called")
        made = kind(*arguments) if "called" in node else kind.__new__(kind, *arguments)
        if isinstance(made, NeuralNet):
            self.nets.append(made)
        self._fill(node, made, node.get("items", ()))
        for key, part in node.get("pairs", ()):
            made[self.read(key)] = self.read(part)
        state = self.read(node.get("state"))
        if state is None:
            return made
        if not isinstance(made, NeuralNet) and hasattr(made, "__setstate__"):
            made.__setstate__(state)
            return made
        attributes, slots = state if isinstance(state, tuple) else (state, {})
        vars(made).update(attributes) if attributes else None
        for name, value in slots.items():
            setattr(made, name, value)
        return made

    def _fill(self, node, made, items):
        """Return a list with its items in it."""
        self._remember(node, made)
        for part in items:
            made.append(self.read(part))
        return made

    def _remember(self, node, made):
        """Keep what may be met again."""
        if "number" in node:
            self._made[node["number"]] = made
        return made

    def _array(self, content: Mapping) -> np.ndarray:
        """Return an array in the order in memory that it had."""
        shape, order = tuple(content["shape"]), content["order"]
        if "bytes" in content:
            flat = self._tensors.get(content["bytes"]).numpy().view(content["dtype"])
        else:
            flat = np.empty(len(content["values"]), dtype=content["dtype"])
            for place, part in enumerate(content["values"]):
                flat[place] = self.read(part)
        return flat.reshape(shape, order=order)


def _dtype(name: str) -> torch.dtype | np.dtype:
    """Return torch's or numpy's dtype of a name."""
    place, _, last = name.partition(".")
    if place != "torch":
        return np.dtype(name)
    found = getattr(torch, last)
    if not isinstance(found, torch.dtype):
        raise TypeError(f"{name} is no dtype")
    return found
