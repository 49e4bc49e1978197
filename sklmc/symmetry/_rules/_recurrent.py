"""Recurrent layers: all gates share the hidden units."""

from __future__ import annotations

from sklmc.symmetry._algebra._leaves import UNIT, Axis
from sklmc.symmetry._rules._registry import Labelled, Operation, register_rule

_GATES = {"aten::lstm": 4, "aten::gru": 3, "aten::rnn_tanh": 1, "aten::rnn_relu": 1}
_CELLS = {"aten::lstm_cell": 4, "aten::gru_cell": 3, "aten::rnn_tanh_cell": 1}


@register_rule(*_GATES)
def recurrent(op: Operation):
    """Layers of W_ih, W_hh (and biases, and a projection), one or two directions."""
    n_gates = _GATES[op.name]
    x, params = op["input"], op["params"]
    biases, n_layers, two_ways = op["has_biases"], op["num_layers"], op["bidirectional"]
    directions = 2 if two_ways else 1
    hidden_states = op["hx"] if isinstance(op["hx"], list) else [op["hx"]]
    per_cell = len(params) // (n_layers * directions)
    projected = n_gates == 4 and per_cell == (5 if biases else 3)
    time = 1 if op.get("batch_first") else 0
    if x.ndim == 2:
        time = 0
    steps = op.held(x.axes[time], x.shape[time], "time has an order")
    op.mix(x, [time, x.ndim - 1])
    feature = x.axes[-1]
    states: list[tuple[Axis, Axis]] = []
    for layer in range(n_layers):
        outputs = []
        for direction in range(directions):
            start = (layer * directions + direction) * per_cell
            cell = params[start : start + per_cell]
            hidden, cell_state = _cell(op, n_gates, feature, cell, projected)
            outputs.append(hidden)
            states.append((hidden, cell_state))
        feature = tuple(segment for axis in outputs for segment in axis)
    kinds = [0, 1] if n_gates == 4 else [0]
    finals = [_states(op, states, kind) for kind in kinds]
    batch = [axis for d, axis in enumerate(x.axes[:-1]) if d != time]
    samples = {d: axis for d, axis in enumerate(batch) if axis != UNIT}
    for final, given in zip(finals, hidden_states, strict=False):
        names = ["layer", *range(given.ndim - 2), "unit"]
        units = {"layer": final[0], "unit": final[1]}
        op.join(given.roles(names), samples, {r: a for r, a in units.items() if a != UNIT})
    lead = [steps if d == time else axis for d, axis in enumerate(x.axes[:-1])]
    result = Labelled((*lead, feature), op.shape(0))
    rest = []
    for place, (index, unit) in enumerate(finals):
        shape = op.shape(1 + place)
        rest.append(Labelled((index if shape[0] > 1 else UNIT, *batch, unit), shape))
    return [result, *rest]


def _cell(op: Operation, n_gates: int, feature, params: list, projected: bool):
    """Label one layer in one direction; return the axes of its output and of its cell state."""
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


def _states(op: Operation, states: list, kind: int) -> tuple[Axis, Axis]:
    """Label final states (layer, ..., unit): each layer's units are their own."""
    parts = [state[kind] for state in states]
    if len(parts) == 1:
        return UNIT, parts[0]
    whole = tuple(segment for part in parts for segment in part)
    size = sum(leaf.size for leaf in parts[0][0]) if parts[0] != UNIT else 1
    layer, unit = op.labels.split(whole, [len(parts), size])
    return layer, unit


@register_rule("aten::lstm_cell", "aten::gru_cell", "aten::rnn_tanh_cell", "aten::rnn_relu_cell")
def cell(op: Operation):
    """One step of a recurrent layer."""
    n_gates = _CELLS.get(op.name, 1)
    x = op["input"]
    given = op["hx"] if isinstance(op["hx"], list) else [op["hx"]]
    vectors = [op[name] for name in ("b_ih", "b_hh") if op.get(name) is not None]
    params = [op["w_ih"], op["w_hh"], *vectors]
    hidden, _ = _cell(op, n_gates, x.axes[-1], params, False)
    roles = ["batch", "unit"][2 - x.ndim :]
    axes = op.join({"unit": hidden}, *(state.roles(roles) for state in given), {"batch": x.axes[0]})
    if isinstance(op.outputs, (list, tuple)):
        return [op.result(roles, axes, index) for index in range(len(op.outputs))]
    return op.result(roles, axes)
