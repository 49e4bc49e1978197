"""Follow a forward pass: which layers and activation functions run, in which order, on what."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from sklmc._torch import single_thread
from sklmc.models import ModelView, run_module

AFFINE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
OTHER_WEIGHTS = (nn.Embedding, nn.EmbeddingBag, nn.Bilinear, nn.RNNBase, nn.MultiheadAttention)
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
NOT_ELEMENTWISE = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax)
RELU_FUNCTIONS = (
    functional.relu,
    functional.relu_,
    torch.relu,
    torch.relu_,
    torch.Tensor.relu,
    torch.Tensor.relu_,
)
CLAMPS = (torch.clamp, torch.Tensor.clamp, torch.Tensor.clamp_)
OTHER_FUNCTIONS = (
    functional.celu,
    functional.elu,
    functional.gelu,
    functional.hardsigmoid,
    functional.hardswish,
    functional.hardtanh,
    functional.leaky_relu,
    functional.logsigmoid,
    functional.mish,
    functional.prelu,
    functional.relu6,
    functional.selu,
    functional.sigmoid,
    functional.silu,
    functional.softplus,
    functional.tanh,
    torch.abs,
    torch.Tensor.abs,
    torch.sigmoid,
    torch.Tensor.sigmoid,
    torch.tanh,
    torch.Tensor.tanh,
)


@dataclass(frozen=True, eq=False)
class Call:
    """One use of a module, or of an activation function outside an activation module.

    `name` is the module's path, for a function ``path.function()``; a second use ends in ``:1``.
    """

    name: str
    path: str
    kind: str  # "weight", "norm", "relu", "activation" or "other"
    module: nn.Module | None
    function: Callable[[torch.Tensor], torch.Tensor] | None = None


class Follower(TorchFunctionMode):
    """Calls `before` and `after` around every layer of a net, in each pass that runs inside it."""

    def __init__(self, look: ModelView, before: Callable, after: Callable):
        super().__init__()
        self._look, self._before, self._after = look, before, after
        self._stack: list[Call] = []
        self._counts: Counter[str] = Counter()

    @contextlib.contextmanager
    def installed(self) -> Iterator[Follower]:
        """Put hooks on the net's layers, once for any number of passes."""
        handles = []
        for path, module in self._look.module.named_modules():
            kind = module_kind(module)
            handles += [
                module.register_forward_pre_hook(self._entering(path, kind), with_kwargs=True),
                module.register_forward_hook(self._leaving()),
            ]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def __enter__(self):
        """Begin one forward pass."""
        self._stack.clear()
        self._counts.clear()
        return super().__enter__()

    def _number(self, base: str) -> str:
        """Return a name for the next use of something."""
        uses = self._counts[base]
        self._counts[base] += 1
        return f"{base}:{uses}" if uses else base

    def _entering(self, path: str, kind: str):
        def hook(module, args, kwargs):
            function = module if kind in ("relu", "activation") else None
            call = Call(self._number(path), path, kind, module, function)
            self._stack.append(call)
            self._before(call, first_tensor((*args, *kwargs.values())))

        return hook

    def _leaving(self):
        def hook(module, args, output):
            self._after(self._stack.pop(), first_tensor(output))

        return hook

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        kind = _function_kind(func, args, kwargs)
        inside = self._stack[-1] if self._stack else None
        if kind is None or inside is None or inside.function is not None:
            return func(*args, **kwargs)
        base = f"{inside.path}.{func.__name__.rstrip('_')}()".lstrip(".")
        call = Call(self._number(base), inside.path, kind, None, _apply(func, args, kwargs))
        self._before(call, args[0])
        output = func(*args, **kwargs)
        self._after(call, output)
        return output


def follow_once(look: ModelView, args: tuple[torch.Tensor, ...], before: Callable, after: Callable):
    """Run a net once on a few samples, calling `before` and `after` around every layer."""
    follower = Follower(look, before, after)
    with single_thread(), follower.installed(), follower:
        run_module(look, args)


def module_kind(module: nn.Module) -> str:
    """Say what a module does to its input."""
    if isinstance(module, (*AFFINE, *OTHER_WEIGHTS)):
        return "weight"
    if isinstance(module, NORMS):
        return "norm"
    if isinstance(module, nn.ReLU):
        return "relu"
    ours = type(module).__module__ == "torch.nn.modules.activation"
    if ours and not isinstance(module, NOT_ELEMENTWISE):
        return "activation"
    return "other"


def _function_kind(func, args, kwargs) -> str | None:
    """Return "relu" or "activation" for a function of that kind called on a tensor."""
    if not args or not isinstance(args[0], torch.Tensor):
        return None
    if func in RELU_FUNCTIONS:
        return "relu"
    if func in CLAMPS:
        bounds = [*args[1:], *[None] * 2][:2]
        low, high = kwargs.get("min", bounds[0]), kwargs.get("max", bounds[1])
        zero = isinstance(low, (int, float)) and low == 0
        return "relu" if zero and high is None else None
    return "activation" if func in OTHER_FUNCTIONS else None


def _apply(func, args, kwargs) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function with the options that it was called with, as a function of a tensor."""
    return lambda tensor: func(tensor, *args[1:], **kwargs)


def first_tensor(value) -> torch.Tensor | None:
    """Return a tensor, or the first tensor in a (nested) tuple, list or dict."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for part in value:
            found = first_tensor(part)
            if found is not None:
                return found
    return None
