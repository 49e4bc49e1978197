"""One loss per member, and its gradient where that can be written down."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def column_loss(net) -> Callable:
    """Return the loss of a net as a function of columns (M, n_outputs, n_samples) and targets.

    It returns the losses (M,) and, if asked, the gradient of their sum. The two usual criteria
    are written out; any other goes through the net's own ``get_loss`` and autograd.
    """
    criterion = net.criterion_
    plain = getattr(criterion, "reduction", None) == "mean"
    if type(criterion) is nn.MSELoss and plain:
        return _squared_error
    usual = getattr(criterion, "weight", None) is None and plain
    if type(criterion) is nn.CrossEntropyLoss and usual and _is_usual(criterion):
        return _cross_entropy
    return _through_autograd(net)


def _is_usual(criterion: nn.CrossEntropyLoss) -> bool:
    """Say whether a cross entropy has no other setting than torch's own."""
    return criterion.label_smoothing == 0 and criterion.ignore_index == -100


def _cross_entropy(outputs: torch.Tensor, target: torch.Tensor, want_grad: bool):
    """Return mean cross entropies of logits and their gradient."""
    log_p = torch.log_softmax(outputs, 1)  # (M, n_classes, n_samples)
    target = target.unsqueeze(1)  # (M, 1, n_samples)
    loss = log_p.gather(1, target).mean((1, 2)).neg_()
    if not want_grad:
        return loss, None
    minus = log_p.new_full((1, 1, 1), -1.0).expand(target.shape)
    return loss, log_p.exp_().scatter_add_(1, target, minus).div_(target.shape[2])


def _squared_error(outputs: torch.Tensor, target: torch.Tensor, want_grad: bool):
    """Return mean squared errors and their gradient."""
    difference = outputs - target.transpose(1, 2)
    loss = difference.square().mean((1, 2))
    n_values = difference.shape[1] * difference.shape[2]
    return loss, difference.mul_(2 / n_values) if want_grad else None


def _through_autograd(net) -> Callable:
    """Return a loss that asks the net itself, for all members at once."""

    def one(outputs, target):
        return net.get_loss(outputs, target, X=None, training=True)

    def loss(outputs: torch.Tensor, target: torch.Tensor, want_grad: bool):
        rows = outputs.transpose(1, 2).contiguous()
        with torch.set_grad_enabled(want_grad):
            rows.requires_grad_(want_grad)
            losses = torch.func.vmap(one)(rows, target)
            if not want_grad:
                return losses, None
            (grad,) = torch.autograd.grad(losses.sum(), rows)
        return losses.detach(), grad.transpose(1, 2).contiguous()

    return loss
