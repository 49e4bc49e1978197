"""The training of many nets of one architecture at once."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Sequence

import numpy as np
import torch

from sklmc._torch import module_device, seeded, single_thread, torch_defaults
from sklmc.estimators._net_data import ArrayBatches
from sklmc.estimators._vectorized._callbacks import Clipping, Pass, Schedules, record_epoch
from sklmc.estimators._vectorized._detection import chain_layers, check_alike
from sklmc.estimators._vectorized._modules import vectorize_net
from sklmc.estimators._vectorized._state import VectorizedState

_GATHERED_BYTES = 1_000_000


def fit_vectorized(nets: list, X, y, sample_weight=None) -> list:
    """Train unfitted nets that differ by their seed only; each ends as its own ``fit`` would.

    The nets must be able to: `plan_training` says so. Initial weights, order of the
    samples and state of the optimizer are those of each net by itself; sums are rounded in
    another order, and an epoch's ``dur`` is the net's share of the epoch's time.
    """
    lead = nets[0]
    X, y, _ = lead._take_training_data(X, y, True, sample_weight=sample_weight)
    for net in nets:
        adopt(net, lead)
        net.initialize()
    check_alike([net.module_ for net in nets])
    with torch_defaults(lead._torch_dtype()), single_thread():
        run = _Run(nets, X, y)
        for epoch in range(lead.max_epochs):
            if not run.nets:
                break
            run.train_epoch(epoch)
        run.finish(range(len(run.nets)))
    for net in nets:
        vars(net).pop("_weights", None)
        if hasattr(lead, "_output_ndim"):  # which a regressor learns in training
            net._output_ndim = lead._output_ndim
    return nets


def adopt(net, lead) -> None:
    """Let a net know of the data what its lead has learned of them."""
    for name, value in vars(lead).items():
        if name not in vars(net):
            vars(net)[name] = copy.copy(value)


class _Feed:
    """The batches of all members: the same data, an order for each."""

    def __init__(self, batches: Sequence[ArrayBatches], device):
        first = batches[0]
        self.X, self.y = (
            torch.from_numpy(part if part.flags.writeable else part.copy()).to(device)
            for part in (first.X, first.y)
        )
        self.weights = None if first.weights is None else torch.from_numpy(first.weights)
        self.indices = torch.from_numpy(np.stack([part.indices for part in batches]))
        self.shuffle = first.shuffle
        n_samples, size = len(first.indices), first.batch_size
        starts = range(0, len(first) * size, size)
        self.bounds = [(start, min(start + size, n_samples)) for start in starts]
        self.sizes = [stop - start for start, stop in self.bounds]

    def keep(self, positions: Sequence[int]) -> None:
        """Drop all members but those at `positions`."""
        self.indices = self.indices[positions]

    def batches(self, seeds: Sequence[int] | None = None):
        """Yield batches (M, n, ...), targets (M, n, ...) and weights (M, n) if there are any.

        Each member's samples are shuffled by its own seed.
        """
        order = self.indices  # (M, n_samples)
        if seeds is not None and self.shuffle:
            generator = torch.Generator()
            shuffled = [
                rows[torch.randperm(len(rows), generator=generator.manual_seed(seed))]
                for rows, seed in zip(order, seeds)
            ]
            order = torch.stack(shuffled)
        order = order.to(self.X.device)
        for bounds in self._blocks(len(order)):
            yield from self._gather(order, bounds)

    def _blocks(self, n_members: int):
        """Yield neighbouring batches of one size whose samples are gathered in one go."""
        per_sample = self.X[:1].numel() * self.X.element_size()
        at_once = max(1, _GATHERED_BYTES // max(1, n_members * per_sample * max(self.sizes)))
        for _, same in itertools.groupby(self.bounds, key=lambda bound: bound[1] - bound[0]):
            batches = list(same)
            for start in range(0, len(batches), at_once):
                yield batches[start : start + at_once]

    def _gather(self, order: torch.Tensor, bounds: Sequence[tuple[int, int]]):
        """Yield the inputs and targets of some batches of one size."""
        size = bounds[0][1] - bounds[0][0]
        rows = order[:, bounds[0][0] : bounds[-1][1]]
        shape = (len(bounds), len(order), size)
        rows = rows.reshape(len(order), len(bounds), size).transpose(0, 1).reshape(-1)
        x = self.X.index_select(0, rows).view(*shape, *self.X.shape[1:])
        y = self.y.index_select(0, rows).view(*shape, *self.y.shape[1:])
        if self.weights is None:
            yield from zip(x, y)
        else:
            yield from zip(x, y, self.weights.index_select(0, rows.cpu()).view(shape))


class _Run:
    """One training of many members; those that stop early leave it."""

    def __init__(self, nets: Sequence, X: np.ndarray, y: np.ndarray):
        self.nets, self.data = list(nets), (X, y)
        lead = self.nets[0]
        splits = [split_batches(net, X, y, net.seed_) for net in self.nets]
        self.feed, self.valid = (
            None if parts[0] is None else _Feed(parts, module_device(lead.module_))
            for parts in zip(*splits)
        )
        for net in self.nets:
            net.notify("on_train_begin", X=X, y=y)
        self.chain = chain_layers(lead.module_, X)
        self.state = VectorizedState(self.nets)
        self.schedules = Schedules(lead, self.state.optimizer, X, y)
        self.clipping = Clipping(lead)
        self.vectorized = vectorize_net(lead, self.state, self.chain)

    def train_epoch(self, epoch: int) -> None:
        """Train all members for one epoch and write their histories."""
        started = time.time()
        optimizer, parameters = self.state.optimizer, list(self.state.parameters.values())
        losses, extras = [], []
        for batch in self.feed.batches([net._epoch_seed(epoch) for net in self.nets]):
            losses.append(self.vectorized.step(*batch))
            self.clipping.apply(parameters)
            optimizer.step()
            extras.append(self.schedules.advance("batch"))
        passes = [Pass("train", self.feed.sizes, torch.stack(losses).cpu().numpy(), extras)]
        if self.valid is not None:
            passes.append(self._validate())
        rates = self.schedules.advance("epoch")
        stopped = record_epoch(self.nets, passes, rates, started, self.state.write_weights)
        if stopped:
            self.finish(stopped)

    def _validate(self) -> Pass:
        """Compute losses (and accuracies) on the members' validation samples."""
        losses, hits = [], []
        classifies = hasattr(self.nets[0], "classes_")
        for x, target, *weights in self.valid.batches():
            loss, outputs = self.vectorized.evaluate(x, target, *weights)
            losses.append(loss)
            if classifies:
                hits.append(_labels(self.nets[0], outputs) == target)
        accuracy = torch.cat(hits, 1).double().mean(1).cpu().numpy() if classifies else None
        values = torch.stack(losses).cpu().numpy()
        return Pass("valid", self.valid.sizes, values, [{}] * len(losses), accuracy)

    def finish(self, positions: Sequence[int]) -> None:
        """Make members at `positions` ordinary fitted nets, and go on without them."""
        X, y = self.data
        for position in positions:
            net = self.nets[position]
            self.state.write_weights(position, net)
            self.state.write_optimizer(position, net)
            self.schedules.write(net)
            net.notify("on_train_end", X=X, y=y)
            net._set_training(False)
        left = [position for position in range(len(self.nets)) if position not in positions]
        self.nets = [self.nets[position] for position in left]
        if self.nets:
            for part in (self.feed, self.valid, self.state):
                if part is not None:
                    part.keep(left)
            self.vectorized = vectorize_net(self.nets[0], self.state, self.chain)


def split_batches(net, X, y, seed: int) -> tuple:
    """Return a net's batches for training, and for validation or None."""
    with seeded(seed):
        parts = net.get_split_datasets(X, y)
    return tuple(
        None if part is None else net.get_iterator(part, training=training)
        for part, training in zip(parts, (True, False))
    )


def _labels(net, outputs: torch.Tensor) -> torch.Tensor:
    """Return the codes that a classifier would predict for outputs (M, n_samples, ...)."""
    shape = outputs.shape[:2]
    probabilities = net._get_predict_nonlinearity()(outputs.flatten(0, 1))
    return probabilities.reshape(len(probabilities), -1).argmax(1).view(shape)
