"""From plain values and tensors to a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from skorch import NeuralNet

from sklmc._persistence._known import find_known, may_be_bound, may_be_called
from sklmc._persistence._tensors import TensorReader


class Reader:
    """Makes again what a Writer turned into plain values.

    Names stand for what the caller has `brought`, or for known classes and functions. Of the
    latter no constructor is run and no method is kept, but for a few that are listed as well.
    """

    def __init__(self, arrays: Mapping[str, torch.Tensor], brought: Mapping[str, object]):
        self.nets: list[NeuralNet] = []
        self._tensors = TensorReader(arrays)
        self._by_name = brought
        self._brought = [one for one in brought.values() if isinstance(one, type)]
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
        if kind == "method":
            return self._method(self.read(content[0]), content[1])
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
        if "called" in node and not (kind in self._brought or may_be_called(node["object"])):
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
        if attributes:
            vars(made).update(attributes)
        for name, value in slots.items():
            setattr(made, name, value)
        return made

    def _method(self, owner, name: str):
        """Return a bound method."""
        if type(owner) not in self._brought and not may_be_bound(owner, name):
            raise TypeError(f"{name} of a {type(owner).__qualname__} may not be kept")
        return getattr(owner, name)

    def _fill(self, node, made, items):
        """Return a list, or what is like one, with its items in it."""
        self._remember(node, made)
        for part in items:
            made.append(self.read(part))
        return made

    def _remember(self, node, made):
        """Keep what may be met again."""
        if "number" in node:
            self._made[node["number"]] = made
        return made

    def _find(self, name: str):
        """Return the class or function of a name."""
        found = self._by_name.get(name) or find_known(name)
        if found is None:
            raise TypeError(f"{name} is on no list of known classes")
        return found

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
