"""Hidden units that a net can do without: merged where they point one way, cleared where dead."""

from sklmc.features._redundancy._reducer import RedundancyReducer

__all__ = ["RedundancyReducer"]
