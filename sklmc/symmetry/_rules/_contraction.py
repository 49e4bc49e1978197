"""Products that sum over an index: linear layers, matrix products, einsum."""

from __future__ import annotations

from collections.abc import Sequence

from sklmc.symmetry._algebra._leaves import Axis
from sklmc.symmetry._rules._position import everything_fixed
from sklmc.symmetry._rules._registry import Labelled, Operation, register_rule
from sklmc.symmetry._rules._shapes import diagonal_of


def contract(op: Operation, operands: Sequence[tuple[Labelled, Sequence]], out: Sequence):
    """Unify batch and contracted roles of the operands and carry the rest.

    The result takes part as an operand: what is summed over is not there to depend on.
    """
    named = [tensor.roles(names) for tensor, names in operands]
    axes = op.join(*named)
    result = op.result(out, axes)
    op.join(*named, result.roles(out))
    return result


@register_rule("aten::linear")
def linear(op: Operation):
    """x (..., i) with weight (o, i) and bias (o,)."""
    x, weight, bias = op["input"], op["weight"], op["bias"]
    batch = [("batch", d) for d in range(x.ndim - 1)]
    out = [*batch, "out"] if weight.ndim == 2 else batch
    weights = ["out", "in"] if weight.ndim == 2 else ["in"]
    operands: list[tuple[Labelled, list]] = [(x, [*batch, "in"]), (weight, weights)]
    if bias is not None:
        operands.append((bias, ["out"][: bias.ndim]))
    return contract(op, operands, out)


@register_rule("aten::matmul", "aten::mm", "aten::bmm", "aten::mv", "aten::dot", "aten::vdot")
def matmul(op: Operation):
    """Matrix product with broadcast batch dimensions; vectors lose their dimension."""
    a = op["self"]
    b = next(op[name] for name in ("other", "mat2", "vec", "tensor") if name in op.arguments)
    return contract(op, *_product(a, b))


def _product(a: Labelled, b: Labelled):
    """Return the operands of a matrix product with their roles, and the roles of the result."""
    n_batch = max(a.ndim, b.ndim, 2) - 2
    batch = [("batch", d) for d in range(n_batch)]
    a_names = ["k"] if a.ndim == 1 else [*batch[n_batch - (a.ndim - 2) :], "m", "k"]
    b_names = ["k"] if b.ndim == 1 else [*batch[n_batch - (b.ndim - 2) :], "k", "n"]
    out = [*batch, *(["m"] if a.ndim > 1 else []), *(["n"] if b.ndim > 1 else [])]
    return [(a, a_names), (b, b_names)], out


@register_rule("aten::addmm", "aten::addbmm", "aten::baddbmm", "aten::addmv")
def add_product(op: Operation):
    """A product plus a term that broadcasts against it."""
    names = [("mat1", "mat2"), ("batch1", "batch2"), ("mat", "vec")]
    a, b = next((op[x], op[y]) for x, y in names if x in op.arguments)
    operands, out = _product(a, b)
    if op.name == "aten::addbmm":
        out = ["m", "n"]
    term = op["self"]
    return contract(op, [*operands, (term, out[len(out) - term.ndim :])], out)


@register_rule("aten::addr")
def add_outer(op: Operation):
    """An outer product plus a term that broadcasts against it."""
    term = op["self"]
    roles = ["m", "n"]
    operands = [(op["vec1"], ["m"]), (op["vec2"], ["n"]), (term, roles[2 - term.ndim :])]
    return contract(op, operands, roles)


@register_rule("aten::inner")
def inner(op: Operation):
    """The last dimensions are summed over, all others are carried."""
    a, b = op["self"], op["other"]
    if a.ndim == 0 or b.ndim == 0:
        return everything_fixed(op, "a product with a number")
    first = [("a", d) for d in range(a.ndim - 1)]
    second = [("b", d) for d in range(b.ndim - 1)]
    return contract(op, [(a, [*first, "k"]), (b, [*second, "k"])], [*first, *second])


@register_rule("aten::tensordot")
def tensordot(op: Operation):
    """Chosen dimensions are summed over, all others are carried."""
    a, b = op["self"], op["other"]
    first: list = [("a", d) for d in range(a.ndim)]
    second: list = [("b", d) for d in range(b.ndim)]
    for k, (i, j) in enumerate(zip(op["dims_self"], op["dims_other"], strict=True)):
        first[i] = second[j] = k
    kept = [role for role in (*first, *second) if isinstance(role, tuple)]
    return contract(op, [(a, first), (b, second)], kept)


@register_rule("aten::kron")
def kronecker(op: Operation):
    """Every dimension is a product: that of the first operand outside, that of the second inside.

    Roles are (operand, dimension), counted from the last.
    """
    a, b, shape = op["self"], op["other"], op.shape()
    named = [
        tensor.roles([(k, d - tensor.ndim) for d in range(tensor.ndim)])
        for k, tensor in enumerate((a, b))
    ]
    axes = op.join(*named)
    found: list[Axis | None] = []
    for d in range(-len(shape), 0):
        factors = [(axes[k, d], t.shape[d]) for k, t in enumerate((a, b)) if (k, d) in axes]
        if factors and all(axis is None for axis, _ in factors):
            found.append(None)
        else:
            found.append(
                op.labels.merge([op.fresh(n) if axis is None else axis for axis, n in factors])
            )
    return Labelled(tuple(found), shape)


@register_rule("aten::outer", "aten::ger")
def outer(op: Operation):
    """Every entry of one vector times every entry of the other."""
    return contract(op, [(op["self"], ["m"]), (op["vec2"], ["n"])], ["m", "n"])


@register_rule("aten::bilinear")
def bilinear(op: Operation):
    """x (..., i) and y (..., j) with weight (o, i, j)."""
    x, y, weight, bias = op["input1"], op["input2"], op["weight"], op["bias"]
    batch = [("batch", d) for d in range(x.ndim - 1)]
    operands: list[tuple[Labelled, list]] = [
        (x, [*batch, "i"]),
        (y, [*batch, "j"]),
        (weight, ["out", "i", "j"]),
    ]
    if bias is not None:
        operands.append((bias, ["out"]))
    return contract(op, operands, [*batch, "out"])


@register_rule("aten::einsum")
def einsum(op: Operation):
    """Roles are the letters; a letter twice in one operand names a diagonal."""
    tensors = op["tensors"]
    equation = op["equation"].replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    wide = max((t.ndim - len(s.replace("...", "")) for s, t in zip(terms, tensors, strict=True)))
    dots = [("batch", d) for d in range(wide)]
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        right = ("..." if "..." in left else "") + "".join(
            sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        )
    operands = []
    for term, tensor in zip(terms, tensors, strict=True):
        names = _letters(term, dots, tensor.ndim)
        operands.append(diagonal_of(op, tensor, names))
    return contract(op, operands, _letters(right, dots, len(op.shape())))


def _letters(term: str, dots: list, ndim: int) -> list:
    """Return the roles of one term of an einsum equation."""
    before, ellipsis, after = term.partition("...")
    middle = ndim - len(before) - len(after)
    return [*before, *(dots[len(dots) - middle :] if ellipsis else []), *after]


@register_rule("aten::cdist")
def cdist(op: Operation):
    """Distances between rows: the features are summed over."""
    x, y = op["x1"], op["x2"]
    n_batch = max(x.ndim, y.ndim) - 2
    batch = [("batch", d) for d in range(n_batch)]
    operands = [
        (x, [*batch[n_batch - (x.ndim - 2) :], "m", "k"]),
        (y, [*batch[n_batch - (y.ndim - 2) :], "n", "k"]),
    ]
    return contract(op, operands, [*batch, "m", "n"])


@register_rule("aten::pairwise_distance")
def pairwise_distance(op: Operation):
    """Broadcast and summed over the last dimension."""
    x, y = op["x1"], op["x2"]
    ndim = max(x.ndim, y.ndim)
    names = list(range(ndim))
    operands = [(x, names[ndim - x.ndim :]), (y, names[ndim - y.ndim :])]
    return contract(op, operands, names if op["keepdim"] else names[:-1])


@register_rule("aten::cosine_similarity")
def cosine_similarity(op: Operation):
    """Broadcast and summed over one dimension."""
    x, y = op["x1"], op["x2"]
    ndim = max(x.ndim, y.ndim)
    names = list(range(ndim))
    dim = op["dim"] % ndim
    operands = [(x, names[ndim - x.ndim :]), (y, names[ndim - y.ndim :])]
    return contract(op, operands, [name for name in names if name != dim])


@register_rule("aten::_grouped_mm", "transformers::grouped_mm_fallback")
def grouped_product(op: Operation):
    """Rows of x (n, i), sorted by expert, with weights (e, i, o): experts and rows are fixed."""
    x, weight = op.tensors[:2]
    if x.ndim != 2 or weight.ndim != 3:
        return everything_fixed(op, "rows are sorted by expert")
    rows = op.held(x.axes[0], x.shape[0], "rows are sorted by expert")
    op.fix(weight.axes[0], "rows are sorted by expert")
    x = Labelled((rows, x.axes[1]), x.shape)
    return contract(op, [(x, ["row", "in"]), (weight, ["expert", "in", "out"])], ["row", "out"])
