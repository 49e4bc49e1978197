"""Evaluators of a path: all nets on the line between two nets, on one block of samples."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from sklmc._torch import to_device
from sklmc.models import (
    ModelView,
    State,
    Watcher,
    as_logits,
    interpolate_states,
    named_tensors,
    read_once,
    run_module,
    view,
)

LINEAR_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # linear in weight and bias together
WORKSPACE = 2**28  # bytes that the first layer's outputs of one block may take
Overrides = Sequence[Mapping[str, torch.Tensor]] | None  # per inner alpha: tensors to replace


class PathEvaluator:
    """Runs nets at and between `states`, any module: the plain way, which others must agree with.

    `alphas` are the inner ones, `classify` names the task, `layers` are those that faster
    evaluators need to know.

    Outputs come as (n_outputs, n_values): classes or targets first, samples (times tokens) last.
    """

    def __init__(
        self, skeleton: ModelView, states: Sequence[State], alphas, classify: bool, layers=()
    ):
        self.skeleton = skeleton
        self.states = list(states)
        self.alphas = [float(alpha) for alpha in alphas]
        self.classify = classify

    def rows(self, args: tuple[torch.Tensor, ...]) -> int:
        """Return how many samples a block should have."""
        return 1024

    def group(self, rows: int, n_outputs: int) -> int:
        """Return how many pairs `between` should get at once."""
        return 1

    def load(self, args: tuple[torch.Tensor, ...]) -> None:
        """Take a block of samples."""
        self.args = to_device(args, self.skeleton.device)

    def ends(self, models: Sequence[int]) -> torch.Tensor:
        """Return the outputs (n_models, n_outputs, n_values) of nets as they are."""
        return torch.stack([self._end(model) for model in models])

    def _end(self, model: int) -> torch.Tensor:
        """Run one net."""
        return self._finish(run_module(self.skeleton, self.args, self.states[model]))

    def between(
        self, pairs: Sequence[tuple[int, int]], overrides: Sequence[Overrides]
    ) -> torch.Tensor:
        """Return the outputs (n_pairs, n_alphas, n_outputs, n_values) of all inner nets."""
        outputs = [
            self._finish(self._inner(a, b, k, changed))
            for (a, b), changed in zip(pairs, overrides)
            for k in range(len(self.alphas))
        ]
        stacked = torch.stack(outputs)
        return stacked.reshape(len(pairs), len(self.alphas), *stacked.shape[1:])

    def _inner(self, a: int, b: int, k: int, overrides: Overrides) -> torch.Tensor:
        """Run the net at the k-th inner alpha."""
        state = interpolate_states(self.states[a], self.states[b], self.alphas[k])
        return run_module(self.skeleton, self.args, state | (overrides[k] if overrides else {}))

    def _finish(self, outputs: torch.Tensor) -> torch.Tensor:
        """Bring a module's outputs (n, ...) to (n_outputs, n_values), on the CPU."""
        return values_last(outputs.cpu(), self.classify)


class SplitEvaluator(PathEvaluator):
    """Runs everything up to the first weight layer once per net and interpolates its outputs.

    The first layer is linear in its parameters, so its output is linear in alpha.
    """

    def __init__(self, skeleton, states, alphas, classify, layers: Sequence[str]):
        super().__init__(skeleton, states, alphas, classify)
        (self.layer,) = layers
        rest = copy.deepcopy(skeleton.module)
        part = rest.get_submodule(self.layer)
        self.handed_on: list[torch.Tensor] = []  # what the layer gives instead of running
        part.forward = lambda *args, given=self.handed_on: given[0]
        self.rest = view(rest, caller=skeleton.caller, name="models")
        held = {f"{self.layer}.{name}" for name, _ in part.named_parameters(recurse=False)}
        self.rest_names = [name for name in states[0] if name not in held]

    def rows(self, args: tuple[torch.Tensor, ...]) -> int:
        """Return as many samples as keep the first layer's outputs within bounds."""
        self.load(tuple(part[:1] for part in args))
        size = self.first[0].numel() * self.first[0].element_size() * len(self.states)
        return int(min(1024, max(8, WORKSPACE // max(1, size))))

    def load(self, args: tuple[torch.Tensor, ...]) -> None:
        """Take a block of samples and run every net up to its first weight layer."""
        super().load(args)
        self.first = [
            read_once(self.skeleton, self.layer, self.args, state)[1] for state in self.states
        ]

    def _inner(self, a: int, b: int, k: int, overrides: Overrides) -> torch.Tensor:
        """Interpolate the first layer's output and run the rest."""
        first, second = ({n: self.states[end][n] for n in self.rest_names} for end in (a, b))
        state = interpolate_states(first, second, self.alphas[k])
        self.handed_on[:] = [torch.lerp(self.first[a], self.first[b], self.alphas[k])]
        return run_module(self.rest, self.args, state | (overrides[k] if overrides else {}))


def first_weight_layer(
    skeleton: ModelView, state: State, args: tuple[torch.Tensor, ...]
) -> str | None:
    """Return the name of the first layer with weights if it is linear in them, else None."""
    called: list[str] = []
    weighted = [
        path for path, part in skeleton.module.named_modules() if part._parameters or part._buffers
    ]
    with Watcher(skeleton, lambda call: called.append(call.path), modules=weighted) as watcher:
        watcher.run(args, state)
    if not called or called.count(called[0]) > 1:
        return None
    layer = skeleton.module.get_submodule(called[0])
    own = {id(parameter) for parameter in layer.parameters(recurse=False)}
    uses = sum(id(tensor) in own for _, tensor in named_tensors(skeleton.module))
    free = type(layer) in LINEAR_LAYERS and uses == len(own) and called[0] != ""
    return called[0] if free else None


def values_last(outputs: torch.Tensor, classify: bool) -> torch.Tensor:
    """Bring outputs (n, ...) to (n_classes, n * n_tokens) or, for regression, (n_outputs, n)."""
    if classify:
        outputs = as_logits(outputs)
        return outputs.reshape(-1, outputs.shape[-1]).T.contiguous()
    return outputs.reshape(len(outputs), -1).T.contiguous()
