"""One point of a parameter grid: its nets, and the tasks that train a population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score
from skorch import NeuralNet

from sklmc._torch import torch_defaults
from sklmc.estimators._cache_dir import net_versions, read_nets, restore_net, store_net
from sklmc.estimators._members import (
    Data,
    fit_members,
    inner_net,
    member_settings,
    needs_seeding,
)
from sklmc.estimators._net import ArrayNet
from sklmc.estimators._sample_weights import weight_argument
from sklmc.estimators._vectorized import plan_training
from sklmc.models import (
    keeping,
    locked,
    mean_over_samples,
    per_sample_error,
    per_sample_loss,
    predict_outputs,
    read_labelled_data,
    view,
)


@dataclass
class Cell:
    """The population at one point of a parameter grid.

    Attributes
    ----------
    params : dict
        The point: names and values.
    estimators : list of estimators
        The fitted members.
    seeds : list of int
        The ``random_state`` of each member.
    vectorized : bool
        Whether the training of the members was vectorized.
    diverged : list of int
        Members whose weights are not finite.
    train_loss, train_score : ndarray of shape (n_estimators,)
        Of each member on the training data: cross entropy in nats (lower is better) and accuracy
        for classifiers, mean squared error and R2 for regressors.
    """

    params: dict
    estimators: list = field(repr=False)
    seeds: list[int] = field(repr=False)
    vectorized: bool
    diverged: list[int]
    train_loss: np.ndarray = field(repr=False)
    train_score: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class SpanTask:
    """Training of neighbouring members of one population; runs in any process."""

    caller: str
    estimator: object
    settings: list[str]
    seeds: list[int]
    span: range
    vectorized: bool
    must: bool
    spawn: tuple[int, int] | None = None  # seed and number of the epochs that all members share
    folder: Path | None = None
    notes: dict = field(default_factory=dict)

    def run(self, data: Data) -> list:
        """Return the members."""
        if self.folder is None:
            return self._train(self.span, data)
        return [member for member, _, _ in self.run_and_score(data)]

    def run_and_score(self, data: Data) -> list[tuple[object, float, float]]:
        """Return each member with its loss and score on the training data."""
        if self.folder is None:
            members = self._train(self.span, data)
            return [(member, *score_member(member, data, self.caller)) for member in members]
        lock = self.folder / f"{self.span.start:05d}.lock"
        with keeping(self.folder, self.caller), locked(lock):
            return self._complete(data)

    def _make(self, index: int):
        """Return an unfitted member with its seed, silent."""
        seed = self.seeds[index]
        values = {name: seed if name.endswith("random_state") else 0 for name in self.settings}
        member = clone(self.estimator).set_params(**values)
        if self.spawn is not None:
            inner_net(member)._spawned_from = self.spawn
        return member

    def _train(self, span: range, data: Data) -> list:
        """Train the members of a span together."""
        seed = self.seeds[span.start] if needs_seeding(self.estimator) else None
        return fit_members(self._make, data, span, self.vectorized, self.must, seed)

    @torch_defaults(None)
    def _complete(self, data: Data) -> list[tuple[object, float, float]]:
        """Read what is stored and train the rest; every finished net is stored at once.

        Members are trained in the groups that an undisturbed run would have formed: a group of
        which one is missing is trained again as a whole, so that all its bits are the same.
        """
        records = read_nets(self.folder, self.span, self.seeds, self.caller)
        start = self.span.start
        while start in records:
            stop = min(records[start].notes["span"][1], self.span.stop)
            if any(index not in records for index in range(start, stop)):
                break
            start = stop
        done = []
        lead = None
        for index in range(self.span.start, start):
            net = self._make(index)
            if lead is None:
                lead = clone(net)
                if isinstance(lead, ArrayNet):
                    lead._check_training_data(data.X, data.y, True)
                else:
                    lead.check_data(data.X, data.y)
            restore_net(net, lead, records[index])
            notes = records[index].notes
            done.append((net, notes["train_loss"], notes["train_score"]))
        width = len(self.span) if self.vectorized else 1
        for first in range(start, self.span.stop, width):
            group = range(first, min(first + width, self.span.stop))
            for index, net in zip(group, self._train(group, data)):
                loss, score = score_member(net, data, self.caller)
                notes = {"seed": self.seeds[index], "train_loss": loss, "train_score": score}
                notes = {**self.notes, "versions": net_versions(), **notes}
                store_net(self.folder, index, net, group, notes)
                done.append((net, loss, score))
        return done


def plan_population(
    estimator, data: Data, seeds, vectorize, caller: str, **others
) -> list[SpanTask]:
    """Return the tasks that train a population: one for each span of members trained together."""
    settings = member_settings(estimator, caller)
    weight_argument(estimator, data.sample_weight, caller)  # refuses what takes no weights
    plan = plan_training(
        estimator, data.X, data.y, len(seeds), vectorize, caller, data.sample_weight
    )
    vectorized, must = plan.chunk is not None, vectorize is True
    return [
        SpanTask(caller, estimator, settings, seeds, span, vectorized, must, **others)
        for span in plan.spans(len(seeds))
    ]


def score_member(member, data: Data, caller: str = "ModelGrid") -> tuple[float, float]:
    """Return loss and score of a fitted member: cross entropy and accuracy, or error and R2."""
    X, y, weights = data
    if isinstance(member, NeuralNet) and hasattr(member, "_model_input"):
        seen = view(member, caller=caller)
        inputs, target = read_labelled_data(seen, X, y)
        outputs = predict_outputs(seen, inputs)
        loss = mean_over_samples(per_sample_loss(outputs, target, caller), weights)
        if is_classifier(member):
            error = per_sample_error(outputs, target, caller)
            return loss, 1.0 - mean_over_samples(error, weights)
        r2 = r2_score(target, outputs, sample_weight=weights) if np.isfinite(loss) else np.nan
        return loss, float(r2)
    predictions = member.predict(X)
    metric = accuracy_score if is_classifier(member) else r2_score
    score = float(metric(y, predictions, sample_weight=weights))
    if not is_classifier(member):
        return float(mean_squared_error(y, predictions, sample_weight=weights)), score
    if not hasattr(member, "predict_proba"):
        return float("nan"), score
    probabilities = member.predict_proba(X)
    loss = log_loss(y, probabilities, labels=member.classes_, sample_weight=weights)
    return float(loss), score


def score_members(members: Sequence, data: Data) -> np.ndarray:
    """Return losses and scores of members, of shape (2, n_members)."""
    return np.reshape([score_member(member, data) for member in members], (-1, 2)).T
