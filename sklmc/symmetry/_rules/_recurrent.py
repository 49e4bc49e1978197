"""Recurrent layers: all gates share the hidden units."""

from __future__ import annotations

from sklmc.symmetry._algebra._leaves import UNIT, Axis
from sklmc.symmetry._rules._registry import Labelled, Operation, register_aten

_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


@register_aten("lstm gru rnn_tanh rnn_relu")
def recurrent(op: Operation):
    """Layers of W_ih, W_hh (and biases, and a projection), one or two directions."""
    x, params, n_layers = op["input"], op["params"], op["num_layers"]
    directions = 2 if op["bidirectional"] else 1
    per_cell = len(params) // (n_layers * directions)
    projected = per_cell == (5 if op["has_biases"] else 3)
    time = 1 if op.get("batch_first") and x.ndim > 2 else 0
    steps = op.held(x.axes[time], x.shape[time], "time has an order")
    op.mix(x, [time, x.ndim - 1])
    feature = x.axes[-1]
    states: list[tuple[Axis, Axis]] = []
    for layer in range(n_layers):
        for direction in range(directions):
            start = (layer * directions + direction) * per_cell
            cell = params[start : start + per_cell]
            states.append(_cell(op, feature, cell, projected))
        feature = tuple(segment for hidden, _ in states[-directions:] for segment in hidden)
    # an lstm has a hidden state and a cell state, others a hidden state only
    finals = [_states(op, list(parts)) for parts in list(zip(*states))[: len(op.outputs) - 1]]
    batch = [axis for d, axis in enumerate(x.axes[:-1]) if d != time]
    samples = {d: axis for d, axis in enumerate(batch) if axis != UNIT}
    for final, given in zip(finals, _given_states(op), strict=False):
        names = ["layer", *range(given.ndim - 2), "unit"]
        own = {role: axis for role, axis in zip(("layer", "unit"), final) if axis != UNIT}
        op.join(given.roles(names), samples, own)
    lead = [steps if d == time else axis for d, axis in enumerate(x.axes[:-1])]
    found = [Labelled((*lead, feature), op.shape(0))]
    for first, last in finals:
        found.append(Labelled((first, *batch, last), op.shape(len(found))))
    return found


def _given_states(op: Operation) -> list[Labelled]:
    """Return the states that a recurrent layer begins with: hidden, and of an lstm the cell's."""
    return op["hx"] if isinstance(op["hx"], list) else [op["hx"]]


def _cell(op: Operation, feature, params: list, projected: bool) -> tuple[Axis, Axis]:
    """Label one layer in one direction; return the axes of its output and of its cell state."""
    n_gates = _GATES[op.name.removeprefix("aten::").partition("_")[0]]
    w_ih, w_hh, *others = params
    projection = others.pop() if projected else None
    size = w_ih.shape[0] // n_gates
    unit = op.fresh(size)
    hidden = unit if projection is None else op.fresh(w_hh.shape[1])
    gates = tuple(segment for _ in range(n_gates) for segment in unit)
    read = {"in": feature} if w_ih.shape[1] > 1 else {}
    biases = [bias.roles(["gates"]) for bias in others]
    op.join({"gates": gates}, read, w_ih.roles(["gates", "in"]), *biases)
    op.join({"gates": gates, "h": hidden}, {"gates": w_hh.axes[0], "h": w_hh.axes[1]})
    if projection is not None:
        op.join({"h": hidden, "unit": unit}, projection.roles(["h", "unit"]))
    return hidden, unit


def _states(op: Operation, parts: list[Axis]) -> tuple[Axis, Axis]:
    """Label final states (layer, ..., unit): each layer's units are their own."""
    if len(parts) == 1:
        return UNIT, parts[0]
    whole = tuple(segment for part in parts for segment in part)
    size = sum(leaf.size for leaf in parts[0][0]) if parts[0] != UNIT else 1
    layer, unit = op.labels.split(whole, [len(parts), size])
    return layer, unit


@register_aten("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell")
def cell(op: Operation):
    """One step of a recurrent layer."""
    x = op["input"]
    vectors = [op[name] for name in ("b_ih", "b_hh") if op.get(name) is not None]
    hidden, _ = _cell(op, x.axes[-1], [op["w_ih"], op["w_hh"], *vectors], projected=False)
    roles = ["batch", "unit"][2 - x.ndim :]
    states = (state.roles(roles) for state in _given_states(op))
    axes = op.join({"unit": hidden}, *states, {"batch": x.axes[0]})
    return op.each(lambda index: op.result(roles, axes, index))
