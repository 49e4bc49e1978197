"""Torch modules with a width: classes to hand to a net, or to use as they are."""

from sklmc.nets._image_nets import VGG11, ResNet20
from sklmc.nets._mlp import MLP

__all__ = ["MLP", "ResNet20", "VGG11"]
