"""Which arguments a net's module gets, and a clear word about those that it cannot take."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn


def check_module(module, caller: str) -> None:
    """Refuse a module that is an instance."""
    if isinstance(module, nn.Module):
        raise TypeError(
            f"{caller} got a net whose 'module' is an instance ({type(module).__name__}). Every "
            "fit would start from the same weights and change them in place; pass the class and "
            "set its arguments with module__width=..., and so on."
        )


def check_device(device, caller: str) -> None:
    """Refuse a device that torch does not know."""
    try:
        torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"{caller}: 'device' must name a device of torch ('cpu', 'cuda', 'cuda:1'), got "
            f"{device!r}."
        ) from None


def check_callbacks(callbacks: Iterable, caller: str) -> None:
    """Refuse what is neither a callback, nor its class, nor a pair of a name and one of these."""
    for one in callbacks:
        callback = one[1] if isinstance(one, tuple) and len(one) == 2 else one
        if not hasattr(callback, "initialize"):
            raise TypeError(
                f"{caller}: 'callbacks' must hold skorch callbacks, or pairs (name, callback), got "
                f"{one!r}."
            )


def check_arguments(component: Callable, prefix: str, given: Iterable[str], caller: str) -> None:
    """Refuse arguments that a component's constructor does not take."""
    parameters, takes_any = _named_parameters(component)
    unknown = [name for name in given if name not in parameters and name != "param_groups"]
    if unknown and not takes_any:
        name = unknown[0]
        raise TypeError(
            f"{caller}: '{prefix}__{name}' is set, but {_name(component)} takes no argument "
            f"{name!r}; it takes {', '.join(map(repr, parameters)) or 'none'}."
            f"{nearest(name, parameters)}"
        )


def module_arguments(
    module: Callable, given: Mapping[str, object], sizes: Mapping[str, object], caller: str
) -> dict[str, object]:
    """Return the user's arguments, and those of the data's sizes that `module` takes beside."""
    check_arguments(module, "module", given, caller)
    parameters, _ = _named_parameters(module)
    return {**{name: size for name, size in sizes.items() if name in parameters}, **given}


def check_names(names: Iterable[str], prefixes: Iterable[str], module, known, caller: str) -> None:
    """Refuse parameters that neither skorch nor the net knows, with the nearest that exist."""
    prefixes = list(prefixes)
    for name in sorted(names):
        prefix, dunder, _ = name.partition("__")
        if name in known or (dunder and prefix in prefixes):
            continue
        parameters, _ = _named_parameters(module) if callable(module) else ([], False)
        offers = [*known, *(f"module__{parameter}" for parameter in parameters)]
        if name in parameters:
            hint = f" Did you mean 'module__{name}'?"
        else:
            hint = nearest(name, offers)
        raise ValueError(
            f"{caller}: {name!r} is no parameter of it. Arguments of the module, the optimizer "
            f"and so on are set with module__..., optimizer__....{hint}"
        )


def nearest(name: str, offers: Iterable[str]) -> str:
    """Return a sentence that offers the name most like `name`; empty where none is alike."""
    near = difflib.get_close_matches(name, list(offers), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _named_parameters(module: Callable) -> tuple[list[str], bool]:
    """Return the names that a module's constructor takes, and whether it takes any other."""
    try:
        parameters = inspect.signature(module).parameters.values()
    except (TypeError, ValueError):  # no signature to read
        return [], True
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return (
        [parameter.name for parameter in parameters if parameter.kind in kinds],
        any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters),
    )


def _name(module: Callable) -> str:
    """Return a name for messages."""
    return getattr(module, "__name__", None) or type(module).__name__
