"""Torch modules with a width: classes to hand to a net, or to use as they are."""

from sklmc.nets._mlp import MLP

__all__ = ["MLP"]
