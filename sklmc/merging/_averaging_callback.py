"""What callbacks share that average weights along a skorch training."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np
from skorch.callbacks import Callback
from skorch.history import History

from sklmc._torch import seeded
from sklmc._validation import check_flag, check_option
from sklmc.exceptions import SklmcWarning
from sklmc.merging._repairs._batch_norm import reestimate_statistics, tracked_norms
from sklmc.merging._running_average import RunningAverage, on_cpu, write_tensors
from sklmc.merging._training_samples import training_samples
from sklmc.models import BLOCK_ROWS, named_tensors, view

SCORE = "valid_loss_avg"
BEST = f"{SCORE}_best"
STATISTICS_ROWS = BLOCK_ROWS  # samples behind batch-norm statistics in mid-training: one pass


class AveragingCallback(Callback):
    """Base of callbacks whose net holds an average from the end of each epoch to the next.

    A subclass has the parameters `start`, `cycle`, `unit` and `update_batch_norm`, and says in
    `_new_average` what it takes.
    """

    _average: RunningAverage | None = None
    _dataset = None  # what is trained on, while it is
    _n_due = 0  # epochs or steps since averaging began
    _best_loss = np.inf
    last_state_ = None
    _least_start = 0

    start: float
    cycle: int
    unit: str
    update_batch_norm: bool

    def _new_average(self) -> RunningAverage:
        """Return an average of nothing yet."""
        raise NotImplementedError

    @property
    def n_averaged_(self) -> int:
        """Number of snapshots in the average."""
        return 0 if self._average is None else self._average.n_averaged

    def initialize(self):
        """Forget what was averaged; skorch calls this when a net is built anew.

        Returns
        -------
        self
            The callback.
        """
        self._check()
        self._average, self.last_state_ = None, None
        self._n_due, self._best_loss = 0, np.inf
        return self

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Look whether the other callbacks stand in the right order.

        Parameters
        ----------
        net : skorch net
            The net in training.
        X : object, default=None
            Not used.
        y : object, default=None
            Not used.
        **kwargs : object
            Not used.
        """
        self._check_others(net)
        if self._average is not None and not self._average.fits(net.module_):
            warnings.warn(
                f"{type(self).__name__}: the net's module has other tensors than those that were "
                "averaged (built anew?); averaging begins anew.",
                SklmcWarning,
                stacklevel=2,
            )
            self.initialize()

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Put the net back to where training had ended.

        Weights that somebody else has written since (``load_params``, the best ones of a
        Checkpoint, a merge) stay: training goes on from them, and averaging begins anew.

        Parameters
        ----------
        net : skorch net
            The net in training.
        dataset_train : object, default=None
            What batch-norm statistics will be taken from.
        dataset_valid : object, default=None
            Not used.
        **kwargs : object
            Not used.
        """
        self._dataset = dataset_train
        if self.last_state_ is None:
            return
        if self._average.is_in(net.module_):
            write_tensors(net.module_, self.last_state_)
        else:
            self._average, self._n_due = None, 0
        self.last_state_ = None

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Let the weights enter the average, where it counts steps.

        Parameters
        ----------
        net : skorch net
            The net in training.
        batch : object, default=None
            Not used.
        training : bool, default=False
            Whether this was a step of the training.
        **kwargs : object
            Not used.
        """
        if training and self.unit == "step":
            self._take(net)

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Let the weights enter the average, where it counts epochs; validate with the average.

        Parameters
        ----------
        net : skorch net
            The net in training; it holds the average from here on, until the next epoch begins.
        dataset_train : object, default=None
            Not used.
        dataset_valid : object, default=None
            What to validate on; None where there is no validation set.
        **kwargs : object
            Not used.
        """
        if self.unit == "epoch":
            self._take(net)
        self._hand_over(net, STATISTICS_ROWS)
        if dataset_valid is None:
            return
        pass_ = net.history if self._average is None else _validation_pass(net, dataset_valid)
        loss = _mean_valid_loss(pass_)
        is_best = loss < self._best_loss
        if is_best:
            self._best_loss = loss
        net.history.record(SCORE, loss)
        net.history.record(BEST, bool(is_best))

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Give the net the average, and batch-norm statistics that belong to it.

        Parameters
        ----------
        net : skorch net
            The net in training.
        X : object, default=None
            Not used.
        y : object, default=None
            Not used.
        **kwargs : object
            Not used.
        """
        if self._dataset is not None:
            self._hand_over(net)
        self._dataset = None

    def state_dict(self) -> dict:
        """Return what goes on in a later training: for ``torch.save``, beside the net's own files.

        Returns
        -------
        dict
            Numbers and tensors: the average, the weights that training had reached, counts.
        """
        state = {
            "average": None if self._average is None else self._average.tensors,
            "n_averaged": self.n_averaged_,
            "last_state": self.last_state_,
            "n_due": self._n_due,
            "best_loss": float(self._best_loss),
        }
        return copy.deepcopy(state)  # the average goes on in the same tensors

    def load_state_dict(self, state):
        """Take over what `state_dict` returned, after ``net.initialize()``.

        Parameters
        ----------
        state : dict
            What `state_dict` returned.
        """
        if not isinstance(state, Mapping) or not self.state_dict().keys() <= state.keys():
            raise ValueError(
                f"{type(self).__name__}: 'state' must be what state_dict() of such a callback "
                f"returned, got {type(state).__name__}."
            )
        state = copy.deepcopy(dict(state))
        self._average = None
        if state["average"] is not None:
            self._average = self._new_average()
            self._average.tensors = state["average"]
            self._average.n_averaged = state["n_averaged"]
        self.last_state_, self._n_due = state["last_state"], state["n_due"]
        self._best_loss = state["best_loss"]

    def _take(self, net) -> None:
        """Let the weights enter the average, if it is their turn."""
        if len(net.history) <= self._start_epoch(net):
            return
        if self._n_due % self.cycle == 0:
            if self._average is None:
                self._average = self._new_average()
            self._average.update(net.module_)
        self._n_due += 1

    def _hand_over(self, net, most: int | None = None) -> None:
        """Write the average into the net, with batch-norm statistics of the training samples."""
        if self._average is None:
            return
        module = net.module_
        if self.last_state_ is None:
            self.last_state_ = {n: tensor.detach().clone() for n, tensor in named_tensors(module)}
        state = self._average.state_for(module)
        if self.update_batch_norm and tracked_norms(module):
            look = view(module, caller=type(self).__name__, name="the net")
            with seeded(len(net.history)):  # reading may draw random numbers; training must not see
                samples = training_samples(net, look, self._dataset, most)
                state = reestimate_statistics(look, state, samples)
        write_tensors(module, state)

    def _start_epoch(self, net) -> int:
        """Return the number of epochs before the first snapshot's."""
        if isinstance(self.start, Integral):
            return int(self.start)
        return int(self.start * net.max_epochs)

    def _check(self) -> None:
        """Refuse parameters out of range."""
        caller = type(self).__name__
        check_option(self.unit, ["epoch", "step"], caller, "unit")
        whole = isinstance(self.start, Integral) and not isinstance(self.start, bool)
        part = isinstance(self.start, Real) and not whole and 0 < self.start < 1
        if not (part or (whole and self.start >= self._least_start)):
            raise ValueError(
                f"{caller}: 'start' must be a part of max_epochs in (0, 1) or a number of epochs "
                f"from {self._least_start} on, got {self.start!r}."
            )
        if isinstance(self.cycle, bool) or not isinstance(self.cycle, Integral) or self.cycle < 1:
            raise ValueError(
                f"{caller}: 'cycle' must be a number of {self.unit}s from 1 on, got {self.cycle!r}."
            )
        check_flag(self.update_batch_norm, caller, "update_batch_norm")

    def _check_others(self, net) -> None:
        """Refuse a second average, and callbacks that would read scores too early or in vain."""
        caller = type(self).__name__
        callbacks = [callback for _, callback in net.callbacks_]
        others = [cb for cb in callbacks if isinstance(cb, AveragingCallback) and cb is not self]
        if others:
            raise ValueError(
                f"{type(net).__name__}: 'callbacks' holds {caller} and {type(others[0]).__name__}, "
                "but a net can hold one average; train it twice, or leave one out."
            )
        for place, callback in enumerate(callbacks):
            if getattr(callback, "monitor", None) not in (SCORE, BEST):
                continue
            said = (
                f"{type(net).__name__}: 'callbacks' holds {type(callback).__name__}, which "
                f"monitors {callback.monitor!r}, "
            )
            if net.train_split is None:
                raise ValueError(
                    f"{said}but there is no validation set; set "
                    "train_split=skorch.dataset.ValidSplit(5), or monitor='train_loss'."
                )
            if place < callbacks.index(self):
                raise ValueError(f"{said}before {caller} has written it; put it behind {caller}.")

    def _get_param_names(self):
        """Return the names of parameters: skorch would count private attributes as well."""
        return [name for name in super()._get_param_names() if not name.startswith("_")]

    def __getstate__(self):
        """Travel without data, and on the CPU."""
        state = {name: value for name, value in vars(self).items() if name != "_dataset"}
        if self.last_state_ is not None:
            state["last_state_"] = on_cpu(self.last_state_)
        return state


def _validation_pass(net, dataset) -> History:
    """Validate as the net does, unseen by callbacks; return the history of the pass."""
    history = History()
    history.new_epoch()
    kept = {"history_": net.history_, "callbacks_": net.callbacks_}
    vars(net).update(history_=history, callbacks_=[])
    try:
        with seeded(len(kept["history_"])):  # as above
            batches = net.get_iterator(dataset, training=False)
            net.run_single_epoch(
                batches, training=False, prefix="valid", step_fn=net.validation_step
            )
    finally:
        vars(net).update(kept)
    return history


def _mean_valid_loss(history: History) -> float:
    """Return the loss of the validation pass that was recorded last, a mean per sample."""
    sizes, losses = zip(*history[-1, "batches", :, ["valid_batch_size", "valid_loss"]], strict=True)
    return float(np.average(losses, weights=sizes))
