"""The matching methods by name: the function of each, and what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sklmc.alignment._activation import match_by_activation
from sklmc.alignment._auto import match_by_trial
from sklmc.alignment._problem import Match, Problem
from sklmc.alignment._straight_through import match_straight_through
from sklmc.alignment._weight import match_by_weight


@dataclass(frozen=True)
class Method:
    """One way to match the units of two models."""

    name: str
    match: Callable[[Problem], Match]
    reads_data: bool = True  # goes by X (and y) where they are given
    # what it cannot do without ("X", "y"), and the method to use where that is missing
    needs: Mapping[str, str] = field(default_factory=dict)


METHODS = {
    method.name: method
    for method in (
        Method("weight", match_by_weight, reads_data=False),
        Method("activation", match_by_activation, needs={"X": "weight"}),
        Method(
            "straight_through", match_straight_through, needs={"X": "weight", "y": "activation"}
        ),
        Method("auto", match_by_trial),
    )
}
