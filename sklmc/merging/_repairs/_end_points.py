"""The aligned nets that a merge lies between: their tensors, weights, and what each has seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from sklmc.models import State, average_states


@dataclasses.dataclass(frozen=True)
class EndPoints:
    """Aligned nets of one architecture.

    Where they were trained on different classes, a class counts for those alone that have seen it:
    the others' rows of the head are placeholders.
    """

    states: Sequence[State]
    weights: np.ndarray  # (n_nets,), sum to one
    known: torch.Tensor | None = None  # (n_nets, n_classes), which have seen which; None: all all
    heads: tuple[str, ...] = ()  # the tensors whose first axis is the classes, if not all know all

    def used(self) -> Iterator[tuple[int, State, float]]:
        """Yield the nets that have weight, with their numbers."""
        for index, (state, weight) in enumerate(zip(self.states, self.weights, strict=True)):
            if weight > 0:
                yield index, state, float(weight)

    def class_shares(self) -> torch.Tensor | None:
        """Return each net's share in each class, (n_nets, n_classes); None where all know all."""
        if self.known is None:
            return None
        weights = torch.from_numpy(self.weights)[:, None]
        shares = weights * self.known
        total = shares.sum(dim=0)
        # nobody with weight knows the class: the mean of placeholders, which nobody predicts
        return torch.where(total > 0, shares / total, weights)

    def mean(self) -> State:
        """Return the weighted mean; of the head, class by class, over those that have seen it."""
        mean = average_states(self.states, self.weights)
        shares = self.class_shares()
        for name in self.heads if shares is not None else ():
            stacked = torch.stack([state[name].double() for state in self.states])
            own = shares.reshape(*shares.shape, *[1] * (stacked.ndim - 2)).to(stacked.device)
            mean[name] = (own * stacked).sum(dim=0).to(mean[name].dtype)
        return mean

    def mean_output(self, outputs: Sequence[torch.Tensor], by_class: bool) -> torch.Tensor:
        """Return the weighted mean, in float64, of what the nets that have weight give.

        With `by_class`, the last axis is the classes: each is the mean over those that know it.
        """
        shares = self.class_shares() if by_class else None
        total = torch.zeros((), dtype=torch.float64)
        for (index, _, weight), one in zip(self.used(), outputs, strict=True):
            total = total + one.double() * (weight if shares is None else shares[index])
        return total

    def mean_probability(self, logits: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return their mean probabilities (..., n_classes), likewise."""
        return self.mean_log_probability(logits).exp()

    def mean_log_probability(self, logits: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the logarithms of these, which do not underflow."""
        shares = self.class_shares()
        parts = []
        for (index, _, weight), one in zip(self.used(), logits, strict=True):
            share = torch.tensor(weight, dtype=torch.float64) if shares is None else shares[index]
            parts.append(torch.log_softmax(one.double(), dim=-1) + share.to(one.device).log())
        total = torch.logsumexp(torch.stack(parts), dim=0)
        return total if shares is None else torch.log_softmax(total, dim=-1)

    @classmethod
    def alike(cls, states: Sequence[State], known=None, heads: tuple[str, ...] = ()) -> EndPoints:
        """Return nets of equal weight."""
        return cls(states, np.full(len(states), 1.0 / len(states)), known, heads)
