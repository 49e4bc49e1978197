"""Pipelines side by side: nets behind different scalers, brought to one input."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import joblib
import numpy as np
import torch
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)
from torch import nn

from sklmc._sklearn import FrozenEstimator
from sklmc._torch import fixed_normal
from sklmc.models._fingerprint import Unreadable, fingerprint
from sklmc.models._forward import Call, Watcher
from sklmc.models._outputs import run_module
from sklmc.models._view import ModelView, view

Affine = tuple[np.ndarray, np.ndarray]  # x -> x * scale + shift, feature by feature

PROBE_ROWS = 8
# Share of the largest output by which a net may change when its input is scaled and its first
# layer scaled back: rounding in float32. A net that uses its input elsewhere changes by far more,
# since the probe halves or doubles the features.
SAME_OUTPUT = 1e-4

SCALERS = {
    StandardScaler: lambda s: (
        1.0 / (s.scale_ if s.with_std else 1.0),
        -(s.mean_ if s.with_mean else 0.0) / (s.scale_ if s.with_std else 1.0),
    ),
    MinMaxScaler: lambda s: (s.scale_, s.min_),
    MaxAbsScaler: lambda s: (1.0 / s.scale_, 0.0),
    RobustScaler: lambda s: (
        1.0 / (s.scale_ if s.with_scaling else 1.0),
        -(s.center_ if s.with_centering else 0.0) / (s.scale_ if s.with_scaling else 1.0),
    ),
}


def view_together(models: Sequence, caller: str, names: Sequence[str]) -> list[ModelView]:
    """Return views of models that all take the first one's input.

    Pipelines with equal earlier steps do so as they are. Where their scalers differ, the
    difference is folded into the first linear layer: such a model is a new one, with the steps of
    the first and the function of its own.
    """
    looks = [view(model, caller=caller, name=name) for model, name in zip(models, names)]
    return [looks[0], *(_in_frame_of(looks[0], other) for other in looks[1:])]


def _in_frame_of(a: ModelView, b: ModelView) -> ModelView:
    """Return B as a model that takes the input of A."""
    steps_a, steps_b = _flat_steps(a.earlier), _flat_steps(b.earlier)
    while steps_a and steps_b and _equal(steps_a[0][1], steps_b[0][1]):
        del steps_a[0], steps_b[0]
    if not steps_a and not steps_b:
        return b
    scale_a, shift_a = _affine(steps_a, a, b)
    scale_b, shift_b = _affine(steps_b, a, b)
    # A's net gets u = x * scale_a + shift_a, B's x * scale_b + shift_b = u * ratio + shift
    ratio, shift = np.broadcast_arrays(scale_b / scale_a, shift_b - shift_a * scale_b / scale_a)
    state = dict(b.state)
    if (ratio != 1.0).any() or (shift != 0.0).any():
        state = fold_input(b, ratio, shift)
    return view(b.rebuild(state, behind=a), caller=b.caller, name=b.name)


def _flat_steps(earlier: Sequence[Pipeline]) -> list[tuple[str, object]]:
    """Return names and transformers, one after another, without those that do nothing."""
    found = []
    for pipeline in earlier:
        for name, step in pipeline.steps:
            inner = step.estimator if isinstance(step, FrozenEstimator) else step
            if isinstance(inner, Pipeline):
                found += _flat_steps([inner])
            elif inner is not None and inner != "passthrough":
                found.append((name, inner))
    return found


def _equal(a, b) -> bool:
    """Say whether two fitted transformers are the same."""
    if a is b or type(a) is not type(b):
        return a is b
    # of a function what it does counts; of all others also what fit made of them
    digest = fingerprint if isinstance(a, FunctionTransformer) else joblib.hash
    try:
        return digest(a) == digest(b)
    except (Unreadable, pickle.PicklingError, TypeError, AttributeError):
        return False


def _affine(steps: Sequence[tuple[str, object]], a: ModelView, b: ModelView) -> Affine:
    """Return what scalers do, one after another, in float64."""
    scale, shift = np.array(1.0), np.array(0.0)
    for name, step in steps:
        kind = type(step)
        if kind not in SCALERS or getattr(step, "clip", False):
            clipped = "(clip=True)" if kind in SCALERS else ""
            known = ", ".join(one.__name__ for one in SCALERS)
            raise ValueError(
                f"{a.caller}: the Pipelines '{a.name}' and '{b.name}' differ before their last "
                f"steps, and the step {name!r} ({kind.__name__}{clipped}) cannot be folded into "
                f"the first layer of a net ({known} can); fit the earlier steps on the same data, "
                "or pass transformed X and the last steps."
            )
        times, plus = SCALERS[kind](step)
        scale, shift = scale * times, shift * times + plus
    return scale, shift


def fold_input(look: ModelView, ratio: np.ndarray, shift: np.ndarray) -> dict[str, torch.Tensor]:
    """Return the state of a net that makes of u what the net makes of ``u * ratio + shift``."""
    u = fixed_normal((PROBE_ROWS, len(ratio)), torch.float64).numpy()
    layers = _first_layers(look, (look.to_tensor(u),))
    for path, layer in layers.items():
        if layer.bias is None and shift.any():
            raise _cannot_fold(look, f"its first layer {path!r} has no bias")
    # halved or doubled features show another use of the input, which the scalers may not
    far = 2.0 ** np.linspace(-1, 1, len(ratio)), np.ones_like(shift) * shift.any()
    wanted = run_module(look, (look.to_tensor(u * far[0] + far[1]),))
    folded = run_module(look, (look.to_tensor(u),), _fold(look, layers, *far))
    same = torch.allclose(folded, wanted, rtol=0.0, atol=SAME_OUTPUT * float(wanted.abs().max()))
    if torch.isfinite(wanted).all() and not same:  # NaN weights are for others to refuse
        raise _cannot_fold(
            look, f"it uses its input beyond its first layer {', '.join(map(repr, layers))}"
        )
    return _fold(look, layers, ratio, shift)


def _fold(look: ModelView, layers: dict[str, nn.Linear], ratio, shift) -> dict[str, torch.Tensor]:
    """Return the state with the weights and biases of first layers changed."""
    state = dict(look.state)
    for path, layer in layers.items():
        dot = f"{path}." if path else ""
        weight = state[dot + "weight"]
        wide = weight.double()  # (n_out, n_in)
        times, plus = (torch.tensor(part).to(weight.device) for part in (ratio, shift))
        state[dot + "weight"] = (wide * times).to(weight.dtype)
        if layer.bias is not None:
            bias = state[dot + "bias"]
            state[dot + "bias"] = (bias.double() + wide @ plus).to(bias.dtype)
    return state


def _first_layers(look: ModelView, args: tuple[torch.Tensor]) -> dict[str, nn.Linear]:
    """Return the linear layers that take a net's input as it is, by path."""
    flat = args[0].flatten(1)
    found: dict[str, nn.Linear] = {}

    def before(call: Call) -> None:
        part, given = call.module, call.input
        if list(part.children()) or not list(part.parameters(recurse=False)):
            return
        if given is None or not torch.equal(given.cpu().reshape(len(flat), -1), flat):
            return
        plain = type(part).forward is nn.Linear.forward and given.shape == args[0].shape
        if not plain or f"{call.path}.weight".lstrip(".") not in look.state:
            raise _cannot_fold(look, f"its first layer {call.path!r} is a {type(part).__name__}")
        found[call.path] = part

    with Watcher(look, before) as watcher:
        watcher.run(args)
    if not found:
        raise _cannot_fold(look, "no linear layer takes its input as it is")
    return found


def _cannot_fold(look: ModelView, reason: str) -> ValueError:
    """Say why unequal scalers stay unequal."""
    return ValueError(
        f"{look.caller}: the scalers before the last step of '{look.name}' and of the first model "
        f"differ, and cannot be folded into the net: {reason}, where a plain Linear with a bias is "
        "needed; fit the scalers on the same data, or pass transformed X and the last steps."
    )
