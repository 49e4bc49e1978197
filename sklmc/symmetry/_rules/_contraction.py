"""Products that sum over an index: linear layers, matrix products, einsum, attention."""

from __future__ import annotations

from collections.abc import Sequence

from sklmc.symmetry._rules._registry import Labelled, Operation, pair, register_aten, register_rule
from sklmc.symmetry._rules._shapes import diagonal_of


def contract(op: Operation, operands: Sequence[tuple[Labelled | None, Sequence]], out: Sequence):
    """Unify batch and contracted roles of the operands and carry the rest.

    The result takes part as an operand: what is summed over is not there to depend on. An operand
    that is None (a bias) is left out.
    """
    named = [tensor.roles(names) for tensor, names in operands if tensor is not None]
    axes = op.join(*named)
    result = op.result(out, axes)
    op.join(*named, result.roles(out))
    return result


def _ending(ndim: int, *last) -> list:
    """Name the last dimensions; those before, which broadcast, are counted from there."""
    return [*range(len(last) - ndim, 0), *last]


@register_aten("linear")
def linear(op: Operation):
    """x (..., i) with weight (o, i) and bias (o,)."""
    x, weight = op["input"], op["weight"]
    made = ["out"][: weight.ndim - 1]
    operands = [(x, _ending(x.ndim, "in")), (weight, [*made, "in"]), (op["bias"], made)]
    return contract(op, operands, _ending(x.ndim - 1 + len(made), *made))


@register_aten("matmul mm bmm mv dot vdot addmm addbmm baddbmm addmv")
def matmul(op: Operation):
    """Matrix product with broadcast batch dimensions, plus a term; vectors lose their dimension."""
    given = op.arguments
    a = next(op[name] for name in ("mat1", "batch1", "mat", "self") if name in given)
    b = next(op[n] for n in ("batch2", "vec", "mat2", "other", "tensor") if n in given)
    left, right = ["m"][: a.ndim - 1], ["n"][: b.ndim - 1]
    operands = [(a, _ending(a.ndim, *left, "k")), (b, _ending(b.ndim, "k", *right))]
    out = [*range(2 - max(a.ndim, b.ndim, 2), 0), *left, *right]
    if op["self"] is not a:
        out = ["m", "n"] if op.name == "aten::addbmm" else out
        term = op["self"]
        operands.append((term, out[len(out) - term.ndim :]))
    return contract(op, operands, out)


@register_aten("outer ger addr")
def outer(op: Operation):
    """Every entry of one vector times every entry of the other, plus a term."""
    term = op["self"] if op.name == "aten::addr" else None
    names = ["m", "n"]
    operands = [(op.get("vec1", op["self"]), ["m"]), (op["vec2"], ["n"])]
    if term is not None:
        operands.append((term, names[2 - term.ndim :]))
    return contract(op, operands, names)


@register_aten("inner")
def inner(op: Operation):
    """The last dimensions are summed over, all others are carried."""
    a, b = op["self"], op["other"]
    if a.ndim == 0 or b.ndim == 0:
        return op.fix_all("a product with a number")
    first = [("a", d) for d in range(a.ndim - 1)]
    second = [("b", d) for d in range(b.ndim - 1)]
    return contract(op, [(a, [*first, "k"]), (b, [*second, "k"])], [*first, *second])


@register_aten("tensordot")
def tensordot(op: Operation):
    """Chosen dimensions are summed over, all others are carried."""
    a, b = op["self"], op["other"]
    first: list = [("a", d) for d in range(a.ndim)]
    second: list = [("b", d) for d in range(b.ndim)]
    for k, (i, j) in enumerate(zip(op["dims_self"], op["dims_other"], strict=True)):
        first[i] = second[j] = k
    kept = [role for role in (*first, *second) if isinstance(role, tuple)]
    return contract(op, [(a, first), (b, second)], kept)


@register_aten("kron")
def kronecker(op: Operation):
    """Every dimension is a product: that of the first operand outside, that of the second inside.

    Roles are (operand, dimension), counted from the last.
    """
    tensors = (op["self"], op["other"])
    axes = op.join(*(t.roles([(k, d) for d in range(-t.ndim, 0)]) for k, t in enumerate(tensors)))
    found = []
    for d in range(-len(op.shape()), 0):
        factors = [(axes.get((k, d)), t.shape[d]) for k, t in enumerate(tensors) if d >= -t.ndim]
        found.append(op.merge(*factors))
    return Labelled(tuple(found), op.shape())


@register_aten("bilinear")
def bilinear(op: Operation):
    """x (..., i) and y (..., j) with weight (o, i, j)."""
    x, y = op["input1"], op["input2"]
    operands = [
        (x, _ending(x.ndim, "i")),
        (y, _ending(y.ndim, "j")),
        (op["weight"], ["out", "i", "j"]),
        (op["bias"], ["out"]),
    ]
    return contract(op, operands, _ending(x.ndim, "out"))


@register_aten("einsum")
def einsum(op: Operation):
    """Roles are the letters; a letter twice in one operand names a diagonal."""
    left, arrow, right = op["equation"].replace(" ", "").partition("->")
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        right = ("..." if "..." in left else "") + "".join(
            sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        )
    operands = [
        diagonal_of(op, tensor, _letters(term, tensor.ndim))
        for term, tensor in zip(left.split(","), op["tensors"], strict=True)
    ]
    return contract(op, operands, _letters(right, len(op.shape())))


def _letters(term: str, ndim: int) -> list:
    """Return the roles of one term of an einsum equation; those of `...` broadcast."""
    before, _, after = term.partition("...")
    return [*before, *range(len(before) + len(after) - ndim, 0), *after]


@register_aten("cdist")
def cdist(op: Operation):
    """Distances between rows: the features are summed over."""
    x, y = op["x1"], op["x2"]
    operands = [(x, _ending(x.ndim, "m", "k")), (y, _ending(y.ndim, "n", "k"))]
    return contract(op, operands, _ending(max(x.ndim, y.ndim), "m", "n"))


@register_aten("pairwise_distance cosine_similarity")
def compare(op: Operation):
    """Broadcast and summed over one dimension, by default the last."""
    x, y = op["x1"], op["x2"]
    ndim = max(x.ndim, y.ndim)
    summed = op.get("dim", -1) % ndim - ndim
    kept = [d for d in range(-ndim, 0) if op.get("keepdim") or d != summed]
    return contract(op, [(x, _ending(x.ndim)), (y, _ending(y.ndim))], kept)


@register_rule("aten::_grouped_mm", "transformers::grouped_mm_fallback")
def grouped_product(op: Operation):
    """Rows of x (n, i), sorted by expert, with weights (e, i, o): experts and rows are fixed."""
    x, weight = op.tensors[:2]
    if x.ndim != 2 or weight.ndim != 3:
        return op.fix_all("rows are sorted by expert")
    rows = op.held(x.axes[0], x.shape[0], "rows are sorted by expert")
    op.fix(weight.axes[0], "rows are sorted by expert")
    x = Labelled((rows, x.axes[1]), x.shape)
    return contract(op, [(x, ["row", "in"]), (weight, ["expert", "in", "out"])], ["row", "out"])


@register_aten("scaled_dot_product_attention")
def attention(op: Operation):
    """q (..., t, d), k (..., s, d), v (..., s, e); heads among the leading dimensions.

    With fewer key-value heads than query heads the query heads are (key-value head, repeat).
    """
    query, key, value, mask = op["query"], op["key"], op["value"], op.get("attn_mask")
    batch, heads = list(range(2 - query.ndim, 0)), -1
    q = query.roles([*batch, "t", "d"])
    m = mask.roles([*batch, "t", "s"][query.ndim - mask.ndim :]) if mask is not None else {}
    ordered = {}
    if op.get("is_causal"):
        kind = "later places are masked"
        ordered = {
            "t": op.held(query.axes[-2], query.shape[-2], kind),
            "s": op.held(key.axes[-2], key.shape[-2], kind),
        }
    grouped = op.get("enable_gqa") and query.shape[-3] != key.shape[-3]
    if grouped:
        n_heads, repeats = key.shape[-3], query.shape[-3] // key.shape[-3]
        for operand in (q, m):
            operand |= pair(op.labels, operand.pop(heads, None), n_heads, repeats, heads, "repeat")
    operands = [q, key.roles([*batch, "s", "d"]), value.roles([*batch, "s", "e"]), m, ordered]
    axes = op.join(*operands)
    inside = [*batch, *(["repeat"] if grouped else []), "t", "e"]
    op.join(*operands, {role: axes[role] for role in inside if role in axes})
    if grouped:
        axes[heads] = op.merge((axes.get(heads), n_heads), (axes.get("repeat"), repeats))
    return op.result([*batch, "t", "e"], axes)


@register_aten("_native_multi_head_attention _transformer_encoder_layer_fwd")
def fused_attention(op: Operation):
    """A fused layer does not show its heads: fixed."""
    return op.fix_all("a fused layer hides its heads")
