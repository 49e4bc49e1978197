"""ResNet20 in the shape that CIFAR needs."""

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

_WIDTHS = (16, 32, 64)
_BLOCKS = 3


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; the shortcut is a projection where sizes change."""

    def __init__(self, n_in: int, n_out: int, stride: int, norm: str | None):
        super().__init__()
        self.conv1 = convolution(n_in, n_out, norm, stride)
        self.norm1 = channel_norm(norm, n_out)
        self.conv2 = convolution(n_out, n_out, norm)
        self.norm2 = channel_norm(norm, n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            projection = nn.Conv2d(n_in, n_out, 1, stride, bias=norm is None)
            self.shortcut = nn.Sequential(projection, channel_norm(norm, n_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output: both roads added, then ReLU."""
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet20(nn.Module):
    """Residual net with twenty layers [1]_ for small images.

    A 3 x 3 convolution, three stages of three residual blocks with 16, 32 and 64 channels (times
    `width_multiplier`), the mean over positions, the logits. Where the size changes the shortcut
    is a 1 x 1 convolution with norm.

    Parameters
    ----------
    n_channels : int, default=3
        Channels of the images. ``NetClassifier`` sets it from the data.
    n_outputs : int, default=10
        Number of logits. ``NetClassifier`` sets it from the data.
    width_multiplier : float, default=1.0
        Factor on all widths, rounded, at least one.
    norm : {None, "batch", "layer"}, default="batch"
        After each convolution; "layer" normalizes all channels and positions of a sample as one.

    Attributes
    ----------
    stem : torch.nn.Sequential
        First convolution, norm, ReLU.
    blocks : torch.nn.Sequential
        The nine residual blocks.
    classifier : torch.nn.Linear
        From the mean over positions to the logits.

    See Also
    --------
    VGG11 : A chain of convolutions for the same images.

    Notes
    -----
    Weights are drawn as He et al. do for ReLU. Without norm the last convolution of each block is
    divided by the square root of the number of blocks, so that the sum of nine roads stays of
    the size of one.

    References
    ----------
    .. [1] He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016.

    Examples
    --------
    >>> import torch
    >>> from sklmc.nets import ResNet20
    >>> module = ResNet20(width_multiplier=0.25)
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
        self.n_channels = check_integer(n_channels, "ResNet20", "n_channels", 1)
        self.n_outputs = check_integer(n_outputs, "ResNet20", "n_outputs", 1)
        self.width_multiplier = check_multiplier(width_multiplier, "ResNet20")
        self.norm = check_norm(norm, "ResNet20")

        widths = [scaled(width, self.width_multiplier) for width in _WIDTHS]
        self.stem = nn.Sequential(
            convolution(self.n_channels, widths[0], self.norm),
            channel_norm(self.norm, widths[0]),
            nn.ReLU(),
        )
        blocks: list[ResidualBlock] = []
        n_in = widths[0]
        for stage, width in enumerate(widths):
            for place in range(_BLOCKS):
                stride = 2 if stage > 0 and place == 0 else 1
                blocks.append(ResidualBlock(n_in, width, stride, self.norm))
                n_in = width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(n_in, self.n_outputs)
        initialize(self)
        if self.norm is None:
            with torch.no_grad():
                for block in blocks:
                    block.conv2.weight /= len(blocks) ** 0.5

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
        return self.classifier(self.blocks(self.stem(x)).mean((2, 3)))
