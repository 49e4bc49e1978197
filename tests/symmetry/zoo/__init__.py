"""Small nets of every kind, each with arguments for forward and the groups that it must have.

Importing a part registers its nets in ZOO.
"""

from tests.symmetry.zoo import (
    _attention as _attention,
)
from tests.symmetry.zoo import (
    _chains as _chains,
)
from tests.symmetry.zoo import (
    _channels as _channels,
)
from tests.symmetry.zoo import (
    _deep as _deep,
)
from tests.symmetry.zoo import (
    _frozen as _frozen,
)
from tests.symmetry.zoo import (
    _recurrent as _recurrent,
)
from tests.symmetry.zoo import (
    _shapes as _shapes,
)
from tests.symmetry.zoo import (
    _uniform as _uniform,
)
from tests.symmetry.zoo import (
    _weights as _weights,
)
from tests.symmetry.zoo._deep import small_resnet
from tests.symmetry.zoo._entries import ZOO, Net

__all__ = ["ZOO", "Net", "small_resnet"]
