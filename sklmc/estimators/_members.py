"""The members of a population: made, trained (in parallel, with one bar), looked through."""

from __future__ import annotations

import io
import os
import pickle
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sklearn.base import is_classifier, is_regressor
from sklearn.pipeline import Pipeline
from skorch import NeuralNet
from torch import nn
from tqdm.auto import tqdm

from sklmc._sklearn import Parallel, cloudpickle, delayed
from sklmc._torch import all_finite, seeded, single_thread, torch_defaults
from sklmc.estimators._parameters import check_module
from sklmc.estimators._sample_weights import weight_argument
from sklmc.estimators._vectorized import VectorizeError, fit_vectorized
from sklmc.exceptions import DivergedMemberWarning, NonFiniteError


class Data(NamedTuple):
    """What a population is trained on."""

    X: Any
    y: Any
    sample_weight: Any = None


def member_settings(estimator, caller: str) -> list[str]:
    """Name the parameters that a member gets: seeds of all its parts, silence of its nets."""
    if not (is_classifier(estimator) or is_regressor(estimator)):
        raise TypeError(
            f"{caller}: 'estimator' must be a classifier or a regressor, got {estimator!r}."
        )
    params = estimator.get_params(deep=True)
    settings = [name for name in params if f"__{name}".endswith("__random_state")]
    for name, part in {"": estimator, **params}.items():
        if isinstance(part, NeuralNet):
            check_module(part.module, caller)
            settings.append(f"{name}__verbose".removeprefix("__"))
    seeded_itself = any(name.endswith("random_state") for name in settings)
    if not seeded_itself and not needs_seeding(estimator):
        raise ValueError(
            f"{caller}: 'estimator' has no random_state, so that all members would be "
            f"equal, got {estimator!r}; use a NetClassifier or a NetRegressor."
        )
    return settings


def needs_seeding(estimator) -> bool:
    """Say whether the net is a plain skorch net, whose only seeds are torch's global ones."""
    net = inner_net(estimator)
    return isinstance(net, NeuralNet) and "random_state" not in net.get_params(deep=False)


@torch_defaults(None)
def fit_members(
    make: Callable,
    data: Data,
    span: range,
    vectorized: bool,
    must: bool,
    seed: int | None,
) -> list:
    """Train the members that `make` returns for the positions of a span, together or one by one.

    With a seed, all global generators are seeded around a single member. Members that turn out
    to differ by more than weights are trained one by one, unless that is a must.
    """
    if vectorized:
        try:
            return fit_vectorized([make(index) for index in span], *data)
        except VectorizeError:
            if must:
                raise
        except Exception as error:
            error.add_note(f"This happened in members {span[0]} to {span[-1]}, trained together.")
            raise
    return [_fit_member(make(index), data, index, seed) for index in span]


def _fit_member(member, data: Data, index: int, seed: int | None):
    """Train one member; with a seed, all global generators are seeded around it."""
    try:
        weights = weight_argument(member, data.sample_weight, "fit")
        if seed is None:
            member.fit(data.X, data.y, **weights)
        else:
            with seeded(seed), single_thread():
                member.fit(data.X, data.y, **weights)
    except Exception as error:
        error.add_note(f"This happened in member {index}.")
        raise
    if getattr(inner_net(member), "_interrupted", False):
        raise KeyboardInterrupt(f"interrupted in member {index}")
    return member


def inner_net(member):
    """Return the net at the end of a member, or the member itself."""
    while isinstance(member, Pipeline):
        member = member.steps[-1][1]
    return member


def run_parallel(
    tasks: Iterable, n_results: int, n_jobs, verbose: int, desc: str, note: Callable[[object], str]
) -> list:
    """Run tasks, each of which returns a list, and join the lists in the tasks' order.

    verbose=1 shows a bar with the note on the last result, verbose=2 also one line per result.
    """
    pid = os.getpid()
    jobs = [delayed(_run_packed)(pid, task) for task in tasks]
    try:
        results = Parallel(n_jobs=n_jobs, return_as="generator")(jobs)
    except ValueError:  # a backend that gives its results only all at once
        results = Parallel(n_jobs=n_jobs)(jobs)
    results = (pickle.loads(found) if isinstance(found, bytes) else found for found in results)
    done = []
    with tqdm(total=n_results, desc=desc, disable=verbose < 1) as bar:
        for result in (part for results_of_one in results for part in results_of_one):
            done.append(result)
            if verbose:
                text = note(result)
                if verbose > 1:
                    tqdm.write(f"{desc} {len(done)}/{n_results}: {text}")
                bar.set_postfix_str(text)
                bar.update()
    return done


def _run_packed(pid: int, task: Callable):
    """Run a task; pack what it returns where it goes to another process."""
    found = task()
    if os.getpid() == pid:
        return found
    packed = io.BytesIO()
    _NetPickler(packed).dump(found)
    return packed.getvalue()


class _NetPickler(cloudpickle.Pickler):
    """Packs skorch nets whose modules come from a script: skorch's own pickle knows no such."""

    def reducer_override(self, obj):
        if isinstance(obj, NeuralNet):
            return type(obj).__new__, (type(obj),), vars(obj), None, None, _set_state
        return super().reducer_override(obj)


def _set_state(net: NeuralNet, state: dict) -> None:
    """Give a net its attributes."""
    vars(net).update(state)


def last_loss(member) -> str:
    """Say what was measured last in training."""
    history = getattr(inner_net(member), "history_", None)
    if not history or "train_loss" not in history[-1]:
        return ""
    return f"train_loss {history[-1, 'train_loss']:.4f}"


def report_diverged(members: list, caller: str) -> list[int]:
    """Return the members whose weights are not finite, with a warning; refuse if all are."""
    diverged = [index for index, member in enumerate(members) if not is_finite(member)]
    if len(diverged) == len(members):
        raise NonFiniteError(
            f"{caller}: training diverged in all {len(members)} members: their weights are "
            "not finite. Lower 'lr' or scale X."
        )
    if diverged:
        warnings.warn(
            f"{caller}: training diverged in member{'s' * (len(diverged) > 1)} "
            f"{', '.join(map(str, diverged))} of {len(members)}: the weights are not finite. "
            "Predictions leave these members out; lower 'lr' or scale X to keep them.",
            DivergedMemberWarning,
            stacklevel=3,
        )
    return diverged


def is_finite(member) -> bool:
    """Say whether all weights of a net are finite; what is no net passes."""
    module = getattr(inner_net(member), "module_", None)
    if not isinstance(module, nn.Module):
        return True
    return all_finite(module.state_dict().values())
