"""The callbacks of members that are trained together, and what they leave in the histories."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from skorch.callbacks import (
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    GradientNormClipping,
    LRScheduler,
    PassthroughScoring,
    PrintLog,
)

from sklmc.estimators._net_callbacks import named_monitor, schedule_length

_KNOWN = (EpochTimer, GradientNormClipping, EarlyStopping)


def is_followed(callback) -> bool:
    """Say whether a callback is followed here; any other must see each net by itself."""
    kind = type(callback)
    if kind is LRScheduler:
        policy, schedules = callback.policy_, torch.optim.lr_scheduler
        return (  # that it depends on the number of steps alone
            isinstance(policy, type)
            and issubclass(policy, schedules.LRScheduler)
            and not issubclass(policy, schedules.ReduceLROnPlateau)
        )
    if kind is PassthroughScoring:
        return callback.name == ("train_loss" if callback.on_train else "valid_loss")
    if kind is EpochScoring:
        return callback.scoring == "accuracy" and not callback.on_train
    if kind is PrintLog:
        return callback.sink is print
    return kind in _KNOWN


class Schedules:
    """The learning rate schedules of all members, run once on the optimizer of all."""

    def __init__(self, net, optimizer: torch.optim.Optimizer, X, y):
        self.callbacks = [(name, cb) for name, cb in net.callbacks_ if type(cb) is LRScheduler]
        self.schedulers = []
        for _, callback in self.callbacks:
            with schedule_length(net, callback, X, y):
                settings = {"last_epoch": -1, **callback.kwargs}
            self.schedulers.append(callback.policy_(optimizer, **settings))
        self.n_steps = 0

    def advance(self, step_every: str) -> dict[str, float]:
        """Take one step of the schedules of one kind; return the rates that were in use."""
        rates = {}
        for (_, callback), scheduler in zip(self.callbacks, self.schedulers):
            if callback.step_every == step_every:
                if callback.event_name is not None:
                    rates[callback.event_name] = scheduler.get_last_lr()[0]
                scheduler.step()
        self.n_steps += step_every == "batch"
        return rates

    def write(self, net) -> None:
        """Leave the schedules' state in the callbacks of one member."""
        own = dict(net.callbacks_)
        for (name, callback), scheduler in zip(self.callbacks, self.schedulers):
            own[name].lr_scheduler_.load_state_dict(scheduler.state_dict())
            if callback.step_every == "batch":
                own[name].batch_idx_ = self.n_steps


class Clipping:
    """Gradient norm clipping, member by member."""

    def __init__(self, net):
        self.callbacks = [
            cb
            for _, cb in net.callbacks_
            if type(cb) is GradientNormClipping and cb.gradient_clip_value is not None
        ]

    @torch.no_grad()
    def apply(self, parameters: Sequence[torch.Tensor]) -> None:
        """Scale the gradients of every member whose norm is too large."""
        for callback in self.callbacks:
            order = float(callback.gradient_clip_norm_type)
            grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
            norms = [torch.linalg.vector_norm(grad.flatten(1), order, dim=1) for grad in grads]
            norm = torch.linalg.vector_norm(torch.stack(norms), order, dim=0)  # (n_members,)
            factor = (callback.gradient_clip_value / (norm + 1e-6)).clamp(max=1.0)
            for grad in grads:
                grad.mul_(factor.view(-1, *(1,) * (grad.ndim - 1)))


@dataclass
class Pass:
    """What one pass over the data leaves in the histories of the members."""

    prefix: str
    sizes: list[int]  # samples of each batch
    losses: np.ndarray  # (n_batches, n_members)
    extras: list[dict]  # what else each batch leaves
    accuracy: np.ndarray | None = None  # (n_members,)

    def rows(self) -> Iterator[list[dict]]:
        """Yield the history's batches of each member."""
        loss, size = f"{self.prefix}_loss", f"{self.prefix}_batch_size"
        for member in self.losses.T.tolist():
            parts = zip(member, self.sizes, self.extras)
            yield [{loss: value, size: n, **extra} for value, n, extra in parts]

    def mean(self) -> list[float]:
        """Return the mean loss of each member, batches weighted by their size."""
        return np.average(self.losses.astype(np.float64), axis=0, weights=self.sizes).tolist()


def record_epoch(
    nets: Sequence, passes: Sequence[Pass], rates: dict[str, float], started: float, ready
) -> list[int]:
    """Write one epoch into the histories; return the positions of members that stop here.

    `ready(position, net)` brings a net's own weights up to date, for callbacks that read them.
    """
    share = (time.time() - started) / len(nets)
    means = {f"{done.prefix}_loss": done.mean() for done in passes}
    stopped = []
    all_rows = zip(*(done.rows() for done in passes))
    for position, (net, rows) in enumerate(zip(nets, all_rows)):
        row: dict = {"batches": [batch for part in rows for batch in part]}
        net.history.append(row)
        row["epoch"] = len(net.history)
        row.update({f"{done.prefix}_batch_count": len(done.sizes) for done in passes})
        for name, callback in net.callbacks_:
            kind = type(callback)
            if kind is EpochTimer:
                callback.epoch_start_time_ = started
                row["dur"] = share
            elif kind is PassthroughScoring and name in means:
                _record_score(row, callback, name, means[name][position])
            elif kind is EpochScoring and passes[-1].accuracy is not None:
                name = callback.name_
                _record_score(row, callback, name, float(passes[-1].accuracy[position]))
            elif kind is LRScheduler and callback.step_every == "epoch":
                if callback.event_name is not None:
                    row[callback.event_name] = rates[callback.event_name]
            elif kind is EarlyStopping and _stops(callback, net, position, ready):
                stopped.append(position)
                break
    return stopped


def _record_score(row: dict, callback, name: str, score: float) -> None:
    """Write a score and whether it is the best so far, as skorch's scoring callbacks do."""
    row[name] = score
    best = callback._is_best_score(score)
    if best:
        callback.best_score_ = score
    if best is not None:
        row[f"{name}_best"] = bool(best)


def _stops(callback: EarlyStopping, net, position: int, ready) -> bool:
    """Let one EarlyStopping look at the epoch, and say whether it ends the training."""
    if callback.load_best:
        ready(position, net)
    try:
        with named_monitor(net, callback):
            callback.on_epoch_end(net)
    except KeyboardInterrupt:  # how skorch's callback says so
        return True
    return False
