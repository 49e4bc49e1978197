"""Elementwise operations and creation of constants."""

from __future__ import annotations

from sklmc.symmetry._algebra._leaves import UNIT
from sklmc.symmetry._rules._registry import Labelled, Operation, register_rule


@register_rule(
    "pointwise",
    "aten::copy_",
    "aten::where",
    "aten::masked_fill",
    "aten::broadcast_tensors",
    "aten::isfinite",
    "aten::__and__",
    "aten::__or__",
    "aten::__xor__",
    "aten::square",
    "aten::float_power",
    # elementwise as well, but neither tagged so nor taken apart by the trace
    "aten::absolute",
    "aten::arccos",
    "aten::arccosh",
    "aten::arcsin",
    "aten::arcsinh",
    "aten::arctan",
    "aten::arctan2",
    "aten::arctanh",
    "aten::complex",
    "aten::divide",
    "aten::fill",
    "aten::fix",
    "aten::floor_divide",
    "aten::greater",
    "aten::greater_equal",
    "aten::hardswish",
    "aten::isclose",
    "aten::isreal",
    "aten::less",
    "aten::less_equal",
    "aten::log_sigmoid",
    "aten::multiply",
    "aten::negative",
    "aten::not_equal",
    "aten::polar",
    "aten::special_digamma",
    "aten::special_erf",
    "aten::special_erfc",
    "aten::special_erfinv",
    "aten::special_exp2",
    "aten::special_expit",
    "aten::special_expm1",
    "aten::special_gammainc",
    "aten::special_gammaincc",
    "aten::special_gammaln",
    "aten::special_i0",
    "aten::special_log1p",
    "aten::special_logit",
    "aten::special_multigammaln",
    "aten::special_ndtr",
    "aten::special_polygamma",
    "aten::special_psi",
    "aten::special_round",
    "aten::special_sinc",
    "aten::special_xlogy",
    "aten::subtract",
    "aten::zero",
)
def pointwise(op: Operation):
    """Operands broadcast against each other; equal places move together."""
    several = isinstance(op.outputs, (list, tuple))
    ndim = max((tensor.ndim for tensor in op.tensors), default=0)
    names = list(range(ndim))
    operands = [tensor.roles(names[ndim - tensor.ndim :]) for tensor in op.tensors]
    axes = op.join(*operands)
    if several:
        return [op.result(names, axes, index) for index in range(len(op.outputs))]
    return op.result(names, axes)


@register_rule(
    "aten::dropout",
    "aten::alpha_dropout",
    "aten::feature_dropout",
    "aten::feature_alpha_dropout",
    "aten::to",
    "aten::_to_copy",
    "aten::type_as",
    "aten::clone",
    "aten::contiguous",
    "aten::alias",
    "aten::lift_fresh_copy",
    "aten::lift_fresh",
    "aten::detach",
    "aten::detach_",
    "aten::pin_memory",
    "aten::rrelu",
    "aten::bernoulli",
    "aten::real",
    "aten::imag",
    "aten::conj",
    "aten::_conj",
    "aten::resolve_conj",
    "aten::resolve_neg",
)
def same(op: Operation):
    """The result is the first operand, place by place."""
    return Labelled(op.tensors[0].axes, op.shape())


@register_rule("aten::native_dropout")
def dropout_and_mask(op: Operation):
    """Result and mask are both like the operand."""
    return [Labelled(op.tensors[0].axes, op.shape(index)) for index in range(2)]


@register_rule(
    "aten::zeros",
    "aten::ones",
    "aten::full",
    "aten::empty",
    "aten::scalar_tensor",
    "aten::zeros_like",
    "aten::ones_like",
    "aten::full_like",
    "aten::empty_like",
    "aten::new_zeros",
    "aten::new_ones",
    "aten::new_full",
    "aten::new_empty",
)
def uniform(op: Operation):
    """All values are equal: nothing is imposed, whatever the operand was."""
    shape = op.shape()
    return Labelled(tuple(UNIT if size == 1 else None for size in shape), shape)


@register_rule("aten::eye")
def identity_matrix(op: Operation):
    """Rows and columns move together."""
    rows, columns = op.shape()
    if rows != columns:
        return op.fixed("positions are constants")
    axis = op.fresh(rows)
    return Labelled((axis, axis), (rows, columns))


@register_rule("aten::arange", "aten::linspace", "aten::tril_indices", "aten::range")
def positions(op: Operation):
    """Values that are positions cannot move."""
    return op.fixed("positions are constants")


@register_rule("aten::prelu", "aten::_prelu_kernel")
def prelu(op: Operation):
    """One slope per channel, or one for all."""
    x, weight = op["self"], op["weight"]
    names = list(range(x.ndim))
    if weight.ndim == 1:
        slopes = weight.roles([1 if x.ndim > 1 else 0])
    else:
        slopes = weight.roles(names[x.ndim - weight.ndim :])
    return op.result(names, op.join(x.roles(names), slopes))


@register_rule("aten::glu")
def glu(op: Operation):
    """The two halves of an axis are multiplied."""
    x = op["self"]
    dim = op.dim("dim", x.ndim)
    names = list(range(x.ndim))
    operand = x.roles(names)
    if x.axes[dim] is not None:
        left, right = op.labels.cut(x.axes[dim], [x.shape[dim] // 2])
        axes = op.join({**operand, dim: left}, {**operand, dim: right})
    else:
        axes = op.join(operand)
    return op.result(names, axes)
