"""The fast evaluator for chains of dense layers: all alphas, many pairs, in one batched pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sklmc._torch import to_device
from sklmc.connectivity._path_evaluator import Overrides, PathEvaluator
from sklmc.models import ModelView, find_chain, read_once

# Activations are laid out (..., units, samples): sums over units then run over whole rows.
NOT_POINTWISE = (
    "GLU",
    "LogSoftmax",
    "MultiheadAttention",
    "PReLU",
    "Softmax",
    "Softmax2d",
    "Softmin",
)
POINTWISE = tuple(
    getattr(nn, name) for name in nn.modules.activation.__all__ if name not in NOT_POINTWISE
)
NOTHING = (nn.AlphaDropout, nn.Dropout, nn.Identity)  # in eval mode
CACHE_BYTES = 5 * 2**18  # what the activations of one call may take: about a core's own cache
MIN_ROWS, MAX_ROWS = 128, 2048
GROUP_OUTPUTS = 2**18  # outputs whose losses are worked out in one go
WEIGHT_SHARE = 4  # rows are at least so many times weights / units: interpolating costs too


class ChainEvaluator(PathEvaluator):
    """Runs Linear layers, norms and pointwise activations in a row as batched products.

    The first layer's outputs are computed once per net; weights of the other layers are
    interpolated for all alphas of a pair at once.
    """

    def __init__(self, skeleton, states, alphas, classify, layers: Sequence[str]):
        super().__init__(skeleton, states[:1], alphas, classify)
        self.first_layer = layers[0]
        self.steps = [(layer, skeleton.module.get_submodule(layer)) for layer in layers[1:]]
        weight, bias = f"{self.first_layer}.weight", f"{self.first_layer}.bias"
        self.first_weights = [(state[weight], state.get(bias)) for state in states]
        self.sources = _permuted_copies(self.first_weights)
        self.stacks = {
            name: _column_stack([state[name] for state in states])
            for name, tensor in states[0].items()
            if tensor.is_floating_point() and name not in (weight, bias)
        }
        dtype = states[0][weight].dtype
        self.alpha = torch.tensor(self.alphas, dtype=dtype, device=skeleton.device)
        linears = [part for _, part in self.steps if isinstance(part, nn.Linear)]
        widths = [len(states[0][weight]), *(part.out_features for part in linears)]
        self.bytes_per_row = len(self.alphas) * max(widths) * dtype.itemsize
        self.weights_per_unit = sum(p.in_features * p.out_features for p in linears) / sum(widths)

    def rows(self, args: tuple[torch.Tensor, ...]) -> int:
        """Return as many samples as keep one pair's activations in cache, more for wide nets."""
        rows = CACHE_BYTES // self.bytes_per_row
        rows = max(rows, int(WEIGHT_SHARE * self.weights_per_unit))
        return min(MAX_ROWS, max(MIN_ROWS, 2 ** rows.bit_length() // 2))

    def group(self, rows: int, n_outputs: int) -> int:
        """Return a multiple of the pairs of one product, whose outputs are still few."""
        batch, _ = self._batch(rows)
        return batch * max(1, GROUP_OUTPUTS // (batch * len(self.alphas) * n_outputs * rows))

    def _batch(self, rows: int) -> tuple[int, int]:
        """Return how many pairs and alphas one product takes: their activations fit the cache."""
        one = self.bytes_per_row // len(self.alphas) * rows
        fit = max(1, CACHE_BYTES // one)
        return max(1, fit // len(self.alphas)), min(len(self.alphas), fit)

    def load(self, args: tuple[torch.Tensor, ...]) -> None:
        """Take a block of samples and run every net up to its first layer."""
        self.args = to_device(args, self.skeleton.device)
        # what reaches the first weight layer is the same for every net
        inputs, _ = read_once(self.skeleton, self.first_layer, self.args, self.states[0])
        columns = inputs.T  # (n_features, rows)
        first: list[torch.Tensor] = []
        for (weight, bias), source in zip(self.first_weights, self.sources):
            if source is not None:
                first.append(first[source[0]][source[1]])
            elif bias is None:
                first.append(weight @ columns)
            else:
                first.append(torch.addmm(bias[:, None], weight, columns))
        self.first = torch.stack(first)  # (n_models, units, rows)

    def _end(self, model: int) -> torch.Tensor:
        """Return the outputs of one net, by the same batched steps with a batch of one."""
        weights = {name: stack[model][None] for name, stack in self.stacks.items()}
        return self._run(self.first[model][None], weights, own=False)[0]

    def between(
        self, pairs: Sequence[tuple[int, int]], overrides: Sequence[Overrides]
    ) -> torch.Tensor:
        """Return the outputs of all inner nets of some pairs, product by product."""
        n_pairs, n_alphas = self._batch(self.first.shape[-1])
        found: torch.Tensor | None = None
        for k in range(0, len(pairs), n_pairs):
            some = pairs[k : k + n_pairs]
            first = _Lines(self.first, some)
            lines = {name: _Lines(stack, some) for name, stack in self.stacks.items()}
            for at in range(0, len(self.alphas), n_alphas):
                alpha = self.alpha[at : at + n_alphas]
                weights = {name: line.at(alpha) for name, line in lines.items()}
                outputs = self._run(first.at(alpha), weights, own=True)
                if found is None:
                    shape = (len(pairs), len(self.alphas), *outputs.shape[1:])
                    found = torch.empty(shape, dtype=outputs.dtype)
                into = found[k : k + n_pairs, at : at + n_alphas]
                into.copy_(outputs.reshape(into.shape))
        return found

    def _run(self, x: torch.Tensor, weights: dict[str, torch.Tensor], own: bool) -> torch.Tensor:
        """Run all steps on x (batch, units, rows), which is overwritten if it is our own."""
        for layer, part in self.steps:
            if isinstance(part, nn.Linear):
                weight, bias = weights[f"{layer}.weight"], weights.get(f"{layer}.bias")
                x = torch.bmm(weight, x) if bias is None else torch.baddbmm(bias, weight, x)
                own = True
            elif isinstance(part, nn.LayerNorm):
                x, own = _layer_norm(x, part, layer, weights, own), True
            elif isinstance(part, nn.BatchNorm1d):
                x, own = _batch_norm(x, part, layer, weights), True
            elif type(part) is nn.ReLU and own:
                x = x.clamp_(min=0)
            else:
                x, own = part(x.clone() if getattr(part, "inplace", False) else x), True
        x = x.cpu()
        return (
            torch.cat([torch.zeros_like(x), x], dim=1) if self.classify and x.shape[1] == 1 else x
        )


def chain_layers(
    skeleton: ModelView, state, args: tuple[torch.Tensor, ...], first: str
) -> list[str] | None:
    """Return the layers of a plain chain from the first weight layer on, or None."""
    row = find_chain(skeleton, args, state)
    names = [call.path for call, _ in row]
    if first not in names:
        return None
    row, names = row[names.index(first) :], names[names.index(first) :]
    flat = all(call.input.ndim == 2 and output.ndim == 2 for call, output in row)
    if not (flat and isinstance(row[0][0].module, nn.Linear)):
        return None
    if not all(_can_run(call.module) for call, _ in row):
        return None
    held = {
        f"{call.path}.{key}"
        for call, _ in row
        for key in (*call.module._parameters, *call.module._buffers)
    }
    return names if all(name in held for name in state) else None


def _can_run(part: nn.Module) -> bool:
    """Say whether a step is one that `_run` can do in its own layout."""
    if type(part) is nn.LayerNorm:
        return len(part.normalized_shape) == 1
    if type(part) is nn.BatchNorm1d:
        return part.track_running_stats
    return type(part) in (nn.Linear, *POINTWISE, *NOTHING)


class _Lines:
    """The lines between the entries of a stack that pairs name, for any alphas."""

    def __init__(self, stack: torch.Tensor, pairs: Sequence[tuple[int, int]]):
        if len(pairs) == 1:  # views instead of copies
            (a, b) = pairs[0]
            start, end = stack[a : a + 1], stack[b : b + 1]
        else:
            start, end = stack[[pair[0] for pair in pairs]], stack[[pair[1] for pair in pairs]]
        self.start = start[:, None]
        self.step = end[:, None] - self.start

    def at(self, alpha: torch.Tensor) -> torch.Tensor:
        """Return (n_pairs * n_alphas, ...) points: exactly the start where the step is 0."""
        alpha = alpha.reshape(-1, *[1] * (self.start.ndim - 2))
        return torch.addcmul(self.start, self.step, alpha).flatten(0, 1)


def _permuted_copies(weights) -> list[tuple[int, torch.Tensor] | None]:
    """Say which first layers are another's with its units reordered: (which, order), or None.

    That is what alignment leaves behind: such a net's first outputs need no product.
    """
    seen: dict[frozenset, tuple[int, dict[bytes, int]]] = {}
    found: list[tuple[int, torch.Tensor] | None] = []
    for k, (weight, bias) in enumerate(weights):
        table = weight if bias is None else torch.cat([weight, bias[:, None]], dim=1)
        rows = [row.tobytes() for row in table.cpu().contiguous().view(torch.uint8).numpy()]
        where = {row: unit for unit, row in enumerate(rows)}
        source, units = k, where
        if len(where) == len(rows):  # equal units could not be told apart
            source, units = seen.setdefault(frozenset(where), (k, where))
        if source == k:
            found.append(None)
        else:
            order = torch.tensor([units[row] for row in rows], device=weight.device)
            found.append((source, order))
    return found


def _column_stack(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack a tensor of all nets; vectors become columns, to go with (units, rows)."""
    stack = torch.stack(list(tensors))
    return stack if stack.ndim == 3 else stack[:, :, None]


def _layer_norm(
    x: torch.Tensor, part: nn.LayerNorm, layer: str, weights, own: bool
) -> torch.Tensor:
    """Normalise each sample over its units, in place if the memory is our own."""
    mean = x.mean(dim=1, keepdim=True)
    x = x.sub_(mean) if own else x - mean
    x *= torch.rsqrt(x.square().mean(dim=1, keepdim=True) + part.eps)
    if f"{layer}.weight" in weights:
        x *= weights[f"{layer}.weight"]
    if f"{layer}.bias" in weights:
        x += weights[f"{layer}.bias"]
    return x


def _batch_norm(x: torch.Tensor, part: nn.BatchNorm1d, layer: str, weights) -> torch.Tensor:
    """Normalise each unit with its running statistics."""
    scale = torch.rsqrt(weights[f"{layer}.running_var"] + part.eps)
    if f"{layer}.weight" in weights:
        scale = scale * weights[f"{layer}.weight"]
    shift = -weights[f"{layer}.running_mean"] * scale
    if f"{layer}.bias" in weights:
        shift = shift + weights[f"{layer}.bias"]
    return torch.addcmul(shift, x, scale)
