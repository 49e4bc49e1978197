"""Bad values by kind of parameter, and which of them a callable may take all the same.

``MAY_PASS`` holds, by kind, what is unusual and yet can mean something: a call that returns with it
is right, and so is a refusal. Everything else must be refused. ``ALSO_NAMED`` holds what a refusal
may name instead of the parameter.
"""

from __future__ import annotations

from tests.hostile import bad_inputs, bad_settings

NO_KINDS = {"NOT_A_THING", "NOT_A_NUMBER"}
KINDS = {
    name.lower(): values
    for room in (bad_inputs, bad_settings)
    for name, values in vars(room).items()
    if name.isupper() and isinstance(values, dict) and name not in NO_KINDS
}

MAY_PASS = {
    "model": {"other input", "a Pipeline", "no weights"},
    "models": {"the same twice", "of mixed kinds"},
    # a module says itself what it makes of more axes (MLP flattens them)
    "data": {"numbers as objects", "integers", "a list of lists", "one row", "three axes"},
    "target": {"booleans", "one column", "one class"},
    "count": {"a boolean"},
    "real": {"a boolean"},
    "alphas": {"a boolean"},
    "seed": {"a boolean"},
    "jobs": {"a boolean"},
    "verbose": {"a boolean"},
    "layers": {"twice"},
}

# A refusal may name the other side of what does not fit together, or what lies inside.
ALSO_NAMED = {
    "model": {"tensor", "X", "y", "layers"},
    "models": {"tensor", "X", "endpoints"},
    "estimator": {"module", "module__widht", "batch_size"},
    "grid": {"module__widht", "lr", "learning_rate"},
    "data": {"y", "model", "n_features", "batch"},
    "text": {"group", "layers"},
    "curve": {"scores", "curves", "loss", "group"},
    "matrix": {"y"},
    "labels": {"classes"},
    "arrays": {"group", "groups"},
    "layers": {"group", "layer"},
    "target": {"X"},
}
