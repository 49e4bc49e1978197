"""Scaled dot-product attention."""

from __future__ import annotations

from sklmc.symmetry._rules._position import everything_fixed
from sklmc.symmetry._rules._registry import Operation, register_rule


@register_rule("aten::scaled_dot_product_attention")
def attention(op: Operation):
    """q (..., t, d), k (..., s, d), v (..., s, e); heads among the leading dimensions.

    With fewer key-value heads than query heads the query heads are (key-value head, repeat).
    """
    query, key, value, mask = op["query"], op["key"], op["value"], op.get("attn_mask")
    n_batch = query.ndim - 2
    batch = [("batch", d) for d in range(n_batch)]
    masked: dict = {}
    if op.get("is_causal"):
        kind = "later places are masked"
        masked = {
            "t": op.held(query.axes[-2], query.shape[-2], kind),
            "s": op.held(key.axes[-2], key.shape[-2], kind),
        }
    grouped = op.get("enable_gqa") and query.shape[-3] != key.shape[-3]
    names = [*batch, "t", "d"]
    q = query.roles(names)
    m = {}
    if mask is not None:
        scores = [*batch, "t", "s"]
        m = mask.roles(scores[len(scores) - mask.ndim :])
    if grouped:
        role, repeats = batch[-1], query.shape[-3] // key.shape[-3]
        for operand in (q, m):
            axis = operand.pop(role, None)
            if axis is not None:
                outer, inner = op.labels.split(axis, [key.shape[-3], repeats])
                operand.update({"repeat": inner})
                operand.update({role: outer} if key.shape[-3] > 1 else {})
    operands = [q, key.roles([*batch, "s", "d"]), value.roles([*batch, "s", "e"]), m, masked]
    axes = dict(op.join(*operands))
    out_roles = [*batch, *(["repeat"] if grouped else []), "t", "e"]
    op.join(*operands, {role: axes[role] for role in out_roles if role in axes})
    if grouped:
        heads = [axes[r] for r in (batch[-1], "repeat") if axes.get(r) is not None]
        axes[batch[-1]] = op.labels.merge(heads) if heads else None
    return op.result([*batch, "t", "e"], axes)


@register_rule("aten::_native_multi_head_attention", "aten::_transformer_encoder_layer_fwd")
def fused_attention(op: Operation):
    """A fused layer does not show its heads: fixed."""
    return everything_fixed(op, "a fused layer hides its heads")
