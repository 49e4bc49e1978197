"""Torch modules with a width: classes to hand to a net, or to use as they are."""

from sklmc.nets._mlp import MLP
from sklmc.nets._resnet import ResNet20
from sklmc.nets._vgg import VGG11

__all__ = ["MLP", "ResNet20", "VGG11"]
