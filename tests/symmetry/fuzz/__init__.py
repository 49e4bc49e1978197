"""Random nets, and a judge that shares no code with the proof.

``python -m tests.symmetry.fuzz --seeds 0:5000`` hunts; what fails is made small and printed.
"""

from tests.symmetry.fuzz import _axes as _axes
from tests.symmetry.fuzz import _chains as _chains
from tests.symmetry.fuzz import _layers as _layers
from tests.symmetry.fuzz import _packed as _packed
from tests.symmetry.fuzz import _rare as _rare
from tests.symmetry.fuzz import _sequences as _sequences
from tests.symmetry.fuzz import _shapes as _shapes
from tests.symmetry.fuzz import _values as _values
from tests.symmetry.fuzz._judge import Verdict, judge
from tests.symmetry.fuzz._minimise import minimised
from tests.symmetry.fuzz._nets import CHAINS, KINDS, Net, Plan, plan_of, seeds_of

__all__ = ["CHAINS", "KINDS", "Net", "Plan", "Verdict", "judge", "minimised", "plan_of", "seeds_of"]
