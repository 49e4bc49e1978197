"""Nothing is frozen without need: exchanging two frozen indices changes the output."""

from __future__ import annotations

import pytest

from tests.symmetry.probe import idle_exchanges
from tests.symmetry.zoo import ZOO

# net -> (number of exchanges that change nothing, why they are not found)
EXCEPTIONS = {
    "flipped": (1, "h + flip(h) is symmetric under mirrored pairs, which are not claimed"),
}


@pytest.mark.parametrize("name", list(ZOO))
def test_exchanging_frozen_indices_changes_the_output(name):
    net, inputs = ZOO[name].make()
    idle = list(idle_exchanges(net, inputs if len(inputs) > 1 else inputs[0]))
    allowed, _ = EXCEPTIONS.get(name, (0, ""))
    assert len(idle) == allowed, idle
