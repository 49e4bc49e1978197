"""VGG11 in the shape that CIFAR needs."""

from __future__ import annotations

import torch
from torch import nn

from sklmc._validation import check_integer
from sklmc.nets._channels import (
    channel_norm,
    check_multiplier,
    check_norm,
    convolution,
    initialize,
    scaled,
)

_PLAN = ((64,), (128,), (256, 256), (512, 512), (512, 512))
_HIDDEN = 512


class VGG11(nn.Module):
    """VGG with eleven layers [1]_ for small images.

    Eight 3 x 3 convolutions, each followed by `norm` and ReLU, in five stages with 2 x 2 maximum
    pooling between them; the mean over positions; a hidden linear layer; the logits.

    Parameters
    ----------
    n_channels : int, default=3
        Channels of the images. ``NetClassifier`` sets it from the data.
    n_outputs : int, default=10
        Number of logits. ``NetClassifier`` sets it from the data.
    width_multiplier : float, default=1.0
        Factor on all widths (64, 128, 256, 512), rounded, at least one.
    norm : {None, "batch", "layer"}, default="batch"
        After each convolution; "layer" normalizes all channels and positions of a sample as one.

    Attributes
    ----------
    features : torch.nn.Sequential
        Convolutions, norms, ReLU and pooling.
    classifier : torch.nn.Sequential
        Linear, ReLU, Linear.

    See Also
    --------
    ResNet20 : A residual net for the same images.

    Notes
    -----
    Images must be at least 16 x 16. Weights are drawn as He et al. do for ReLU.

    References
    ----------
    .. [1] Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
       recognition", 2015.

    Examples
    --------
    >>> import torch
    >>> from sklmc.nets import VGG11
    >>> module = VGG11(width_multiplier=0.0625)
    >>> module(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        n_channels: int = 3,
        n_outputs: int = 10,
        *,
        width_multiplier: float = 1.0,
        norm: str | None = "batch",
    ):
        super().__init__()
        self.n_channels = check_integer(n_channels, "VGG11", "n_channels", 1)
        self.n_outputs = check_integer(n_outputs, "VGG11", "n_outputs", 1)
        self.width_multiplier = check_multiplier(width_multiplier, "VGG11")
        self.norm = check_norm(norm, "VGG11")

        layers: list[nn.Module] = []
        n_in = self.n_channels
        for stage, widths in enumerate(_PLAN):
            if stage > 0:
                layers.append(nn.MaxPool2d(2))
            for width in widths:
                n_out = scaled(width, self.width_multiplier)
                layers.append(convolution(n_in, n_out, self.norm))
                if self.norm is not None:
                    layers.append(channel_norm(self.norm, n_out))
                layers.append(nn.ReLU())
                n_in = n_out
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        hidden = scaled(_HIDDEN, self.width_multiplier)
        self.classifier = nn.Sequential(
            nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, self.n_outputs)
        )
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch.

        Parameters
        ----------
        x : torch.Tensor of shape (n_samples, n_channels, height, width)
            The images.

        Returns
        -------
        logits : torch.Tensor of shape (n_samples, n_outputs)
            No softmax.
        """
        return self.classifier(self.features(x))
