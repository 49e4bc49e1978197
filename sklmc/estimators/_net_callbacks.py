"""skorch's callbacks in a net of ours: schedules by name and length, monitors that exist."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator

import skorch.callbacks.lr_scheduler
import torch
from skorch.callbacks import EpochScoring, LRScheduler
from skorch.callbacks.scoring import ScoringBase
from skorch.exceptions import SkorchException

from sklmc._torch import seeded
from sklmc._validation import did_you_mean
from sklmc.estimators._parameters import check_arguments

_SCORING_METHODS = ("on_batch_end", "on_epoch_end")
_OF_VALIDATION = ("valid_loss", "valid_acc")  # in the history only where there is a validation set


class NetCallbacks:
    """Callbacks of a net."""

    _interrupted = False  # by the user, not by a callback

    def initialize_callbacks(self):
        """Build the callbacks; a schedule may go by any name in ``torch.optim.lr_scheduler``.

        Returns
        -------
        self
            The net, with new ``callbacks_``.
        """
        with _found_schedules(self):
            super().initialize_callbacks()
        _check_schedules(self)
        return self

    def get_params_for(self, prefix):
        """Return the parameters of one component, without their prefix.

        Parameters
        ----------
        prefix : str
            "module", for example.

        Returns
        -------
        dict
            Names and values.
        """
        settings = super().get_params_for(prefix)
        if prefix.startswith("callbacks__") and isinstance(settings.get("policy"), str):
            settings["policy"] = _find(settings["policy"], type(self).__name__)
        return settings

    def notify(self, method_name, **cb_kwargs):
        """Call one method of every callback.

        Callbacks that score see labels and targets as they were handed to fit, since that is
        what predict returns.

        Parameters
        ----------
        method_name : str
            "on_epoch_end", for example.
        **cb_kwargs : object
            Arguments of that method.
        """
        if method_name == "on_train_begin":
            _check_monitors(self)
        getattr(self, method_name)(self, **cb_kwargs)
        try:
            for _, callback in self.callbacks_:
                around: contextlib.AbstractContextManager = contextlib.nullcontext()
                if method_name in _SCORING_METHODS and isinstance(callback, ScoringBase):
                    around = self._user_targets(callback)
                elif method_name == "on_train_begin":
                    around = schedule_length(self, callback, **cb_kwargs)
                elif method_name == "on_epoch_end":
                    around = named_monitor(self, callback)
                with around:
                    getattr(callback, method_name)(self, **cb_kwargs)
        except KeyboardInterrupt:  # how callbacks stop a training early
            self._interrupted = False
            raise

    @contextlib.contextmanager
    def _user_targets(self, callback: ScoringBase) -> Iterator[None]:
        """Let a scoring callback read targets as the user gave them."""
        extract = callback.target_extractor
        callback.target_extractor = lambda y: self._decode_target(extract(y))
        try:
            yield
        finally:
            callback.target_extractor = extract


def _check_monitors(net) -> None:
    """Refuse callbacks that wait for scores of a validation set that is not there."""
    if net.train_split is not None:
        return
    callbacks = [callback for _, callback in net.callbacks_]
    own = {cb.name_ for cb in callbacks if isinstance(cb, EpochScoring) and cb.on_train}
    for callback in callbacks:
        monitored = _monitored(callback)
        score = (monitored or "").removesuffix("_best")
        if score in _OF_VALIDATION and score not in own:
            raise ValueError(_no_score(callback, monitored, True, type(net).__name__))


def _monitored(callback) -> str | None:
    """Return the score that a callback reads from the history, None for none."""
    monitor = getattr(callback, "monitor", None)
    if isinstance(callback, LRScheduler):
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
        monitor = monitor if callback.policy_ is plateau else None
    return monitor if isinstance(monitor, str) else None


def _no_score(callback, monitored: str, no_split: bool, caller: str, known=()) -> str:
    """Say that a callback monitors a score that is not there, and what to do."""
    kind = type(callback).__name__
    text = f"{caller}: 'callbacks' holds {kind}, which monitors {monitored!r}, but "
    if no_split:
        other = "train_loss_best" if monitored.endswith("_best") else "train_loss"
        return (
            f"{text}there is no validation set; set train_split=skorch.dataset.ValidSplit(5), or "
            f"monitor={other!r}."
        )
    names = ", ".join(map(repr, known))
    return f"{text}the history of an epoch holds {names} only.{did_you_mean(monitored, known)}"


@contextlib.contextmanager
def named_monitor(net, callback) -> Iterator[None]:
    """Say which score a callback misses in the history, where it ends in a KeyError."""
    try:
        yield
    except (KeyError, SkorchException) as error:
        monitored = _monitored(callback)
        known = [name for name in net.history[-1] if name != "batches"] if net.history else []
        if monitored is None or monitored in known:
            raise
        no_split = net.train_split is None and monitored.startswith("valid_")
        raise ValueError(
            _no_score(callback, monitored, no_split, type(net).__name__, known)
        ) from error


def _find(policy: str, caller: str):
    """Return skorch's schedule of a name, or else torch's."""
    for module in (skorch.callbacks.lr_scheduler, torch.optim.lr_scheduler):
        found = getattr(module, policy, None)
        if found is not None:
            return found
    names = [name for name in dir(torch.optim.lr_scheduler) if not name.startswith("_")]
    raise ValueError(
        f"{caller}: 'callbacks' holds LRScheduler({policy!r}), which is no schedule of "
        f"torch.optim.lr_scheduler.{did_you_mean(policy, names)}"
    )


def _check_schedules(net) -> None:
    """Refuse schedules that get an argument that they do not take, or lack one."""
    caller = type(net).__name__
    for name, callback in net.callbacks_:
        if not isinstance(callback, LRScheduler):
            continue
        policy = callback.policy_
        check_arguments(policy, f"callbacks__{name}", callback.kwargs, caller)
        needed = [
            parameter.name
            for parameter in list(inspect.signature(policy).parameters.values())[1:]
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and parameter.name not in callback.kwargs
        ]
        if needed:
            kind = getattr(policy, "__name__", str(policy))
            given = "".join(f", {argument}=..." for argument in needed)
            raise ValueError(
                f"{caller}: 'callbacks' holds LRScheduler({kind!r}), which needs "
                f"{' and '.join(map(repr, needed))}; pass LRScheduler({kind!r}{given})."
            )


@contextlib.contextmanager
def _found_schedules(net) -> Iterator[None]:
    """Let scheduling callbacks find torch's schedules under their names, for a while."""
    named = [
        (callback, callback.policy, _find(callback.policy, type(net).__name__))
        for _, callback in net._uniquely_named_callbacks()
        if isinstance(callback, LRScheduler) and isinstance(callback.policy, str)
    ]
    for callback, _, policy in named:
        callback.policy = policy
    try:
        yield
    finally:
        for callback, name, policy in named:
            if callback.policy is policy:  # or else callbacks__..._policy has set it anew
                callback.policy = name


@contextlib.contextmanager
def schedule_length(net, callback, X, y) -> Iterator[None]:
    """Let a one-cycle schedule know how many steps there will be, for a while."""
    if not isinstance(callback, LRScheduler) or not _lacks_length(callback):
        yield
        return
    before = vars(callback).copy()
    steps = _steps_per_epoch(net, X, y) if callback.step_every == "batch" else 1
    callback.total_steps = len(net.history) + net.max_epochs * steps
    try:
        yield
    finally:
        vars(callback).pop("total_steps")
        vars(callback).update({k: v for k, v in before.items() if k == "total_steps"})


def _lacks_length(callback: LRScheduler) -> bool:
    """Say whether a schedule needs the number of its steps and was not told."""
    if callback.policy_ is not torch.optim.lr_scheduler.OneCycleLR:
        return False
    given = {name for name, value in callback.kwargs.items() if value is not None}
    return "total_steps" not in given and not {"epochs", "steps_per_epoch"} <= given


def _steps_per_epoch(net, X, y) -> int:
    """Return the number of training batches in an epoch."""
    try:
        with seeded(net.seed_):
            train, _ = net.get_split_datasets(X, y)
        return len(net.get_iterator(train, training=True))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{type(net).__name__}: 'callbacks' holds LRScheduler('OneCycleLR'), but the steps of "
            f"an epoch cannot be counted ({error}); pass LRScheduler(..., total_steps=...)."
        ) from error
