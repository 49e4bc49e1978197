"""Losses: elementwise, with or without a sum over everything."""

from __future__ import annotations

from sklmc.symmetry._rules._registry import Operation, register_rule


@register_rule(
    "aten::binary_cross_entropy",
    "aten::binary_cross_entropy_with_logits",
    "aten::hinge_embedding_loss",
    "aten::huber_loss",
    "aten::kl_div",
    "aten::l1_loss",
    "aten::margin_ranking_loss",
    "aten::mse_loss",
    "aten::poisson_nll_loss",
    "aten::smooth_l1_loss",
    "aten::soft_margin_loss",
)
def elementwise_loss(op: Operation):
    """Prediction, target and weights broadcast; the order of summands does not count."""
    ndim = max(tensor.ndim for tensor in op.tensors)
    names = list(range(ndim))
    axes = op.join(*(tensor.roles(names[ndim - tensor.ndim :]) for tensor in op.tensors))
    return op.result(names if op["reduction"] == 0 else [], axes)
