"""A layer's linear map without its bias."""

from __future__ import annotations

import torch
from torch import nn


def linear_part(layer: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Return what a linear or convolutional layer makes of its inputs, less its bias."""
    with torch.no_grad():
        outputs = layer(inputs)
        if layer.bias is None:
            return outputs
        if isinstance(layer, nn.Linear):
            return outputs - layer.bias
        return outputs - layer.bias.reshape(-1, *[1] * len(layer.kernel_size))


def weight_matrix(layer: nn.Module) -> torch.Tensor:
    """Return a layer's weights in float64 with one row per output unit."""
    weight = layer.weight.detach().double().cpu()
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        n_in, per_group = weight.shape[:2]
        kernel = weight.shape[2:]
        groups = layer.groups
        weight = weight.reshape(groups, n_in // groups, per_group, *kernel).transpose(1, 2)
        weight = weight.flatten(0, 1)  # (n_out, n_in / groups, *kernel)
    return weight.flatten(1)
