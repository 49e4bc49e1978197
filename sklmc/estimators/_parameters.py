"""How a net stores, lists and checks its parameters, and how it is pickled."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real

import torch
from torch import nn
from torch.utils.data import Dataset

from sklmc._documentation import LinksDocumentation
from sklmc._sklearn import Interval, Options, StrOptions, cloudpickle
from sklmc._torch import torch_defaults
from sklmc._validation import LARGEST_RATE, check_constraints, did_you_mean

_OWN = ("class_weight", "dtype", "random_state")  # parameters that skorch does not know
_SET_BY_SKORCH = ("history_", "initialized_", "virtual_params_")


class NetParameters(LinksDocumentation):
    """Parameters of a skorch net as scikit-learn wants them: stored in init, checked in fit."""

    _parameter_constraints: dict = {
        "module": [callable],
        "criterion": [callable],
        "optimizer": [callable],
        "lr": [Interval(Real, 0, LARGEST_RATE, closed="both")],
        "max_epochs": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), Options(Integral, {-1})],
        "iterator_train": [callable],
        "iterator_train__shuffle": ["boolean"],
        "iterator_valid": [callable],
        "dataset": [callable, Dataset],
        "train_split": [callable, None],
        "callbacks": [list, StrOptions({"disable"}), None],
        "predict_nonlinearity": [callable, StrOptions({"auto"}), None],
        "warm_start": ["boolean"],
        "device": [str, torch.device, None],
        "compile": ["boolean"],
        "use_caching": ["boolean", StrOptions({"auto"})],
        "torch_load_kwargs": [dict, None],
        "dtype": [StrOptions({"float32", "float64"}), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # skorch fills these when it meets the first module; known from the start, they need no
    # attribute that is set in __init__ without being a parameter.
    prefixes_ = [
        *("iterator_train", "iterator_valid", "callbacks", "dataset", "compile"),
        *("module", "criterion", "optimizer"),
    ]
    cuda_dependent_attributes_ = ["module_", "criterion_", "optimizer_"]
    _modules = ["module"]
    _criteria = ["criterion"]
    _optimizers = ["optimizer"]
    history_ = None
    initialized_ = False
    virtual_params_: Mapping = {}

    def __init__(self, arguments: Mapping):
        """Store the arguments of a constructor, which hands over its ``locals()``."""
        skipped = ("self", "kwargs", "__class__")
        parameters = {name: part for name, part in arguments.items() if name not in skipped}
        own = {name: parameters.pop(name) for name in _OWN if name in parameters}
        super().__init__(**parameters, **arguments["kwargs"])
        for name in _SET_BY_SKORCH:
            vars(self).pop(name, None)
        vars(self).update(own)

    def __getstate__(self):
        """Pack what may live on a device as skorch does, but let modules come from a notebook.

        skorch's own pickle inside the pickle knows importable classes only, so that no worker
        process could get (or give back) a net whose module was defined in ``__main__``.
        """
        state = dict(vars(self))
        packed = {
            name: state.pop(name) for name in self.cuda_dependent_attributes_ if name in state
        }
        state["__cuda_dependent_attributes__"] = cloudpickle.dumps(packed)
        return state

    def __setstate__(self, state):
        """Unpack what was packed as tensors that can be trained, wherever that happens."""
        with torch_defaults(None):
            super().__setstate__(state)

    def _get_param_names(self) -> list[str]:
        """Name whatever the user may have set: the public attributes without underscore."""
        return sorted(
            name for name in vars(self) if not name.startswith("_") and not name.endswith("_")
        )

    def _get_params_callbacks(self, deep: bool = True) -> dict[str, object]:
        """List callbacks the same before and after fit: the user's, and the defaults' settings."""
        params: dict[str, object] = {}
        if not deep or not isinstance(self.callbacks, list | None):
            return params
        defaults = {name for name, _ in self.get_default_callbacks()}
        for name, callback in self._uniquely_named_callbacks():
            if name not in defaults:
                params[f"callbacks__{name}"] = callback
            if isinstance(callback, type) or not hasattr(callback, "get_params"):
                continue
            for key, value in callback.get_params().items():
                params[f"callbacks__{name}__{key}"] = value
        return {name: value for name, value in params.items() if name not in vars(self)}

    def set_params(self, **params):
        """Set parameters, also those of the module, the optimizer, the callbacks and so on.

        A new ``lr`` or ``optimizer__...`` acts at once on a net that is fitted, a new
        ``module__...`` or ``criterion__...`` builds it anew (untrained), as in skorch; everything
        else acts on the next fit.

        Parameters
        ----------
        **params : object
            Names and values, ``module__width=32`` for example.

        Returns
        -------
        self
            The net.
        """
        passive = ("iterator_train__", "iterator_valid__", "dataset__", "callbacks")
        later = {name: params.pop(name) for name in list(params) if name.startswith(passive)}
        for name, value in params.items():
            # skorch changes the optimizer of a fitted net only, and the next fit would forget it
            if name.startswith("optimizer__") and "param_groups__" not in name:
                vars(self)[name] = value
                self._params_to_validate.add(name)
        super().set_params(**params)
        for name, value in later.items():
            setattr(self, name, value)
            if "__" in name:
                self._params_to_validate.add(name)
        if self.initialized_ and any(name.startswith("callbacks") for name in later):
            self._initialize_callbacks()
        return self

    def _check_parameters(self) -> None:
        """Refuse values out of range, unknown names, and a module that is an instance."""
        caller = type(self).__name__
        check_module(self.module, caller)
        params = self.get_params(deep=False)
        check_constraints(self._parameter_constraints, params, caller)
        _check_device(self.device, caller)
        check_net_names(self, self._params_to_validate, caller)
        for name in ("optimizer", "criterion"):
            check_arguments(getattr(self, name), name, self.get_params_for(name), caller)
        if self.callbacks != "disable":
            _check_callbacks(self.callbacks or [], caller)
            known = [name for name, _ in self._uniquely_named_callbacks()]
            for name in params:
                prefix, _, rest = name.partition("__")
                if prefix == "callbacks" and rest and rest.partition("__")[0] not in known:
                    raise ValueError(
                        f"{caller}: {name!r} is set, but there is no callback of that name; "
                        f"there are {', '.join(map(repr, known))}."
                    )


def check_net_names(net, names: Iterable[str], caller: str) -> None:
    """Refuse parameters that neither skorch nor a net knows, with the nearest that exist."""
    # our nets list whatever was set, misspelt or not
    known = getattr(net, "_parameter_constraints", None) or net.get_params(deep=False)
    prefixes = ("module", "criterion", "optimizer", *net.prefixes_)
    for name in sorted(names):
        prefix, dunder, _ = name.partition("__")
        if (name in known and not dunder) or (dunder and prefix in prefixes):
            continue
        arguments, _ = named_arguments(net.module) if callable(net.module) else ([], False)
        hint = did_you_mean(name, [*known, *(f"module__{argument}" for argument in arguments)])
        if name in arguments:
            hint = f" Did you mean 'module__{name}'?"
        raise ValueError(
            f"{caller}: {name!r} is no parameter of the net. Arguments of the module, the "
            f"optimizer and so on are set with module__..., optimizer__....{hint}"
        )


def check_module(module, caller: str) -> None:
    """Refuse a module that is an instance."""
    if isinstance(module, nn.Module):
        raise TypeError(
            f"{caller} got a net whose 'module' is an instance ({type(module).__name__}). Every "
            "fit would start from the same weights and change them in place; pass the class and "
            "set its arguments with module__width=..., and so on."
        )


def _check_device(device, caller: str) -> None:
    """Refuse a device that torch does not know."""
    try:
        torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"{caller}: 'device' must name a device of torch ('cpu', 'cuda', 'cuda:1'), got "
            f"{device!r}."
        ) from None


def _check_callbacks(callbacks: Iterable, caller: str) -> None:
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
    parameters, takes_any = named_arguments(component)
    unknown = [name for name in given if name not in parameters and name != "param_groups"]
    if unknown and not takes_any:
        name = unknown[0]
        kind = getattr(component, "__name__", None) or type(component).__name__
        raise TypeError(
            f"{caller}: '{prefix}__{name}' is set, but {kind} takes no argument {name!r}; it takes "
            f"{', '.join(map(repr, parameters)) or 'none'}.{did_you_mean(name, parameters)}"
        )


def named_arguments(component: Callable) -> tuple[list[str], bool]:
    """Return the names of the arguments that a component takes, and whether it takes any other."""
    try:
        parameters = inspect.signature(component).parameters.values()
    except (TypeError, ValueError):  # no signature to read
        return [], True
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return (
        [parameter.name for parameter in parameters if parameter.kind in kinds],
        any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters),
    )
