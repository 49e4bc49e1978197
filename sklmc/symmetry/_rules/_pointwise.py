"""Elementwise operations and losses, and the creation of constants."""

from __future__ import annotations

from sklmc.symmetry._rules._registry import Labelled, Operation, register_aten, register_rule


# most are tagged as pointwise by torch; those named here are not, nor taken apart by the trace
@register_rule("pointwise")
@register_aten(
    "copy_ where masked_fill broadcast_tensors isfinite __and__ __or__ __xor__ square float_power "
    "absolute arccos arccosh arcsin arcsinh arctan arctan2 arctanh complex divide fill fix "
    "floor_divide greater greater_equal hardswish isclose isreal less less_equal log_sigmoid "
    "multiply negative not_equal polar special_digamma special_erf special_erfc special_erfinv "
    "special_exp2 special_expit special_expm1 special_gammainc special_gammaincc special_gammaln "
    "special_i0 special_log1p special_logit special_multigammaln special_ndtr special_polygamma "
    "special_psi special_round special_sinc special_xlogy subtract zero "
    "_weight_norm"  # directions v and their lengths g, which have size one along the other axes
)
def pointwise(op: Operation):
    """Operands broadcast against each other; equal places move together."""
    names, axes = op.broadcast(op.tensors)
    return op.each(lambda index: op.result(names, axes, index))


@register_aten(
    "binary_cross_entropy binary_cross_entropy_with_logits hinge_embedding_loss huber_loss kl_div "
    "l1_loss margin_ranking_loss mse_loss poisson_nll_loss smooth_l1_loss soft_margin_loss"
)
def elementwise_loss(op: Operation):
    """Prediction, target and weights broadcast; the order of summands does not count."""
    names, axes = op.broadcast(op.tensors)
    return op.result(names if op["reduction"] == 0 else [], axes)


@register_aten(
    "dropout alpha_dropout feature_dropout feature_alpha_dropout native_dropout to _to_copy "
    "type_as clone contiguous alias lift_fresh_copy lift_fresh detach detach_ pin_memory rrelu "
    "bernoulli real imag conj _conj resolve_conj resolve_neg"
)
def same(op: Operation):
    """The result (and a mask of dropout) is the first operand, place by place."""
    return op.each(lambda index: op.like(op.tensors[0], index=index))


@register_aten(
    "zeros ones full empty scalar_tensor zeros_like ones_like full_like empty_like new_zeros "
    "new_ones new_full new_empty"
)
def uniform(op: Operation):
    """All values are equal: nothing is imposed, whatever the operand was."""
    return op.result(range(len(op.shape())), {})


@register_aten("eye")
def identity_matrix(op: Operation):
    """Rows and columns move together."""
    rows, columns = op.shape()
    if rows != columns:
        return op.fixed("positions are constants")
    axis = op.fresh(rows)
    return Labelled((axis, axis), (rows, columns))


@register_aten("arange linspace tril_indices range")
def positions(op: Operation):
    """Values that are positions cannot move."""
    return op.fixed("positions are constants")


@register_aten("prelu _prelu_kernel")
def prelu(op: Operation):
    """One slope per channel, or one for all."""
    x, weight = op["self"], op["weight"]
    channels = [1 - x.ndim] if weight.ndim == 1 else None
    return op.result(range(-x.ndim, 0), op.join(x.roles(), weight.roles(channels)))


@register_aten("glu")
def glu(op: Operation):
    """The two halves of an axis are multiplied."""
    x = op["self"]
    dim = op.dim("dim", x.ndim)
    names, axis = range(x.ndim), x.axes[dim]
    halves = [None] if axis is None else op.labels.cut(axis, [x.shape[dim] // 2])
    return op.result(names, op.join(*({**x.roles(names), dim: half} for half in halves)))
