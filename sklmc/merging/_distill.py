"""A net taught what its parts predict together: a few hundred steps on unlabelled samples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping, LRScheduler, ProgressBar
from skorch.helper import predefined_split
from torch.nn import functional
from torch.utils.data import Dataset

from sklmc._torch import seeded, single_thread, to_device
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._refit import classifies
from sklmc.merging._repairs._repair import distance, own_predictions
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.models import (
    Inputs,
    ModelView,
    State,
    as_logits,
    pick_output,
    predict_outputs,
    view,
)

MOST_STEPS = 300
RATE = 1e-3  # of Adam, falling linearly to zero
BATCH_ROWS = 128
PATIENCE = 5  # epochs without gain on samples kept back


def distill(
    look: ModelView,
    parts: Mapping[str, State],
    merged: State,
    ends: EndPoints,
    samples: SampleSet,
    seed: int,
    verbose: int = 0,
) -> dict[str, State]:
    """Return the best part (under its name) and "merged" after the same steps.

    They are taught what the end points predict. A fifth of the samples is kept back: it says which
    part is best and when to stop, and a start that gains nothing there comes back as it was.
    Running statistics and dropout are as for predictions.
    """
    fitted, kept = samples.weighted(ends.weights).split()
    goals = [own_predictions(look, ends, part) for part in (fitted, kept)]

    classifier = classifies(look, samples.labels)

    def badness(state: State) -> float:
        return distance(predict_outputs(look, kept.inputs, state), goals[1], classifier)

    best = min(parts, key=lambda name: badness(parts[name]))
    taught = {}
    for name, state in {best: parts[best], "merged": merged}.items():
        after = _taught(look, state, fitted, kept.inputs, goals, seed, verbose)
        taught[name] = after if badness(after) < badness(state) else state
    return taught


def _taught(
    look: ModelView,
    state: State,
    fitted: SampleSet,
    kept: Inputs,
    goals: list[torch.Tensor],
    seed: int,
    verbose: int,
) -> State:
    """Return a state after training."""
    model = look.rebuild(state)
    steps_an_epoch = math.ceil(len(fitted) / BATCH_ROWS)
    n_epochs = max(1, round(MOST_STEPS / steps_an_epoch))
    n_steps = n_epochs * steps_an_epoch
    callbacks = [
        EarlyStopping(patience=PATIENCE, load_best=True, sink=lambda _: None),
        LRScheduler(
            torch.optim.lr_scheduler.LambdaLR,
            lr_lambda=lambda step: max(0.0, 1.0 - step / n_steps),
            step_every="batch",
        ),
        *([ProgressBar()] if verbose else []),
    ]
    own = view(model, caller=look.caller, name=look.name)
    net = _Student(
        own.original, look=own, classifier=classifies(look, fitted.labels),
        criterion=torch.nn.Module, optimizer=torch.optim.Adam, lr=RATE, max_epochs=n_epochs,
        batch_size=BATCH_ROWS, iterator_train=_Passes, iterator_valid=_Passes,
        train_split=predefined_split(_Taught(kept, goals[1], None)), callbacks=callbacks,
        verbose=0, device=str(look.device),
    )  # fmt: skip
    with seeded(seed), single_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a loss that runs away ends the training, and is told
        net.fit(_Taught(fitted.inputs, goals[0], np.random.default_rng(seed)))
    return dict(view(model, caller=look.caller).state)


class _Taught(Dataset):
    """Samples with the predictions that they should have."""

    def __init__(self, inputs: Inputs, goals: torch.Tensor, rng: np.random.Generator | None):
        self.inputs, self.goals, self.rng = inputs, goals, rng

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, row):
        raise TypeError("samples are read batch by batch")


class _Passes:
    """Forward passes over samples, in an order of their own each time; what skorch iterates."""

    def __init__(self, dataset: _Taught, batch_size: int, **_):
        self.dataset, self.batch_size = dataset, batch_size

    def __iter__(self) -> Iterator[tuple]:
        data = self.dataset
        rows = np.arange(len(data)) if data.rng is None else data.rng.permutation(len(data))
        for start in range(0, len(rows), self.batch_size):
            chosen = torch.from_numpy(rows[start : start + self.batch_size])
            for block in data.inputs[chosen].passes(self.batch_size):
                yield block.args, (block.outputs, data.goals[chosen][block.samples])


class _Student(NeuralNet):
    """A net whose loss is its distance to probabilities or to values."""

    def __init__(self, module, *, look: ModelView, classifier: bool, **kwargs):
        self.look = look
        self.classifier = classifier
        super().__init__(module, **kwargs)

    def initialize_module(self):
        """Train the module itself."""
        self.module_ = self.module
        return self

    def infer(self, x, **fit_params):
        """Call the module with all of its arguments."""
        return self.module_(*to_device(x, self.look.device))

    def train_step_single(self, batch, **fit_params):
        """Take one gradient, with statistics and dropout as in predictions."""
        self._set_training(False)
        args, goal = batch
        output = self.infer(args)
        loss = self.get_loss(output, goal)
        loss.backward()
        return {"loss": loss, "y_pred": output}

    def validation_step(self, batch, **fit_params):
        """Return the loss of one batch."""
        self._set_training(False)
        args, goal = batch
        with torch.no_grad():
            output = self.infer(args)
            return {"loss": self.get_loss(output, goal), "y_pred": output}

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        """Return the cross entropy to probabilities, or the squared distance to values."""
        rows, goal = y_true
        outputs = pick_output(self.look, y_pred)[rows]
        goal = goal.to(outputs.device, outputs.dtype)
        if not self.classifier:
            return functional.mse_loss(outputs, goal.reshape(outputs.shape))
        logs = torch.log_softmax(as_logits(outputs), dim=-1)
        return -(goal * logs).sum(dim=-1).mean()
