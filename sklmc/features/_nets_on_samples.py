"""Features of several nets on the same samples, block by block."""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sklmc._torch import are_equal
from sklmc._validation import check_alpha, check_option
from sklmc.exceptions import StaleStatisticsWarning
from sklmc.features._layers import Layer, by_sample, is_activation_function, trace_layers
from sklmc.merging import reestimate_statistics, tracked_norms
from sklmc.models import (
    Arrays,
    ModelView,
    Reader,
    Reading,
    State,
    check_compatible,
    check_finite,
    interpolate_states,
    view_together,
)

BLOCK_NUMBERS = 2**23  # of features that one block may hold over all nets
MAX_ROWS = 1024
TRACE_ROWS = 8


class Nets:
    """Nets of one architecture, their layers, and the samples that flow through them."""

    def __init__(
        self,
        models: Sequence,
        X,
        caller: str,
        names: Sequence[str],
        min_samples: int,
        repair: str | None = None,
    ):
        check_option(repair, ["batch_norm", None], caller, "repair")
        self.caller = caller
        self.repair = repair
        self.looks = view_together(models, caller, names)
        if len(self.looks) > 1:
            check_compatible(self.looks, caller, list(names))
        else:
            check_finite(self.looks[0].state, caller, names[0])
        self.data = self.looks[0].to_input(X)
        self.n_samples = len(self.data)
        if self.n_samples < min_samples:
            raise ValueError(
                f"{caller}: 'X' holds {self.n_samples} sample, too few: at least {min_samples} "
                "are needed."
            )
        sample = self.data.first(TRACE_ROWS)
        if self.n_samples == 1:
            sample = tuple(part.expand(2, *part.shape[1:]) for part in sample)
        self.layers = trace_layers(self.looks[0], sample)

    @property
    def n_weight_layers(self) -> int:
        """Number of layers with weights that a forward pass runs."""
        return max((layer.depth for layer in self.layers), default=0)

    def between(self, alphas: Sequence[float]) -> Sequence[State]:
        """Return the nets between the first two, with statistics of their own if `repair` asks."""
        first, last = self.looks[0].state, self.looks[-1].state
        states = [interpolate_states(first, last, alpha) for alpha in alphas]
        norms = tracked_norms(self.looks[0].module)
        if not norms or not states or all(are_equal((first[n], last[n]) for n in first)):
            return states
        if self.repair is not None:
            return [reestimate_statistics(self.looks[0], state, self.data) for state in states]
        warnings.warn(
            f"{self.caller}: {len(norms)} batch-norm layers keep running statistics, which are "
            "interpolated here although they do not belong to the interpolated weights; set "
            "repair='batch_norm' to estimate them again on X, and compare.",
            StaleStatisticsWarning,
            stacklevel=4,
        )
        return states

    def read(
        self,
        outputs: Sequence[Layer] = (),
        inputs: Sequence[Layer] = (),
        alphas: Sequence[float] = (),
    ) -> Iterator[list[Reading]]:
        """Yield one reading per net, then one per net at `alphas` between the first two.

        Memory depends on the layers, not on the number of samples.
        """
        wanted = {"outputs": [w.name for w in outputs], "inputs": [w.name for w in inputs]}
        between = self.between(alphas)
        per_sample = sum(math.prod(layer.shape) for layer in outputs)
        per_sample += sum(math.prod(layer.input_shape) for layer in inputs)
        size = max(1, per_sample) * (len(self.looks) + len(between))
        rows = min(MAX_ROWS, max(1, BLOCK_NUMBERS // size))
        modules = {layer.name: layer.module for layer in self.layers}
        with contextlib.ExitStack() as stack:
            readers = [stack.enter_context(layer_reader(look, **wanted)) for look in self.looks]
            for args in self.data.blocks(rows):
                found = [reader.run(args) for reader in readers]
                found += [readers[0].run(args, state) for state in between]
                yield [_by_sample(one, modules, len(Arrays(*args))) for one in found]


def layer_reader(look: ModelView, inputs=(), outputs=()) -> Reader:
    """Return a reader of layers by the names that `trace_layers` gives them."""
    return Reader(look, inputs, outputs, functions=is_activation_function)


def _by_sample(reading: Reading, modules: Mapping, rows: int) -> Reading:
    """Bring the samples of everything read to the first axis; leave out what has none."""
    found = Reading()
    for side in ("inputs", "outputs"):
        for name, tensor in getattr(reading, side).items():
            rowed = by_sample(modules.get(name), tensor, rows)
            if rowed is not None:
                getattr(found, side)[name] = rowed
    return found


def check_inner_alphas(alphas, caller: str) -> list[float]:
    """Return positions strictly between the nets, each once and in the order given."""
    if np.ndim(alphas) == 0 and not isinstance(alphas, (str, bytes)):
        alphas = [alphas]
    values = [check_alpha(_plain(x), caller, "alphas") for x in itertools.chain(alphas)]
    if not values:
        raise ValueError(f"{caller}: 'alphas' is empty; pass positions between 0 and 1.")
    for value in values:
        if value in (0.0, 1.0):
            raise ValueError(
                f"{caller}: 'alphas' holds {value!r}, where the net is an end point and is "
                "compared with itself; pass positions strictly between 0 and 1."
            )
    return list(dict.fromkeys(values))


def _plain(value):
    """Return numpy's scalars as Python's."""
    return value.item() if isinstance(value, np.generic) else value
