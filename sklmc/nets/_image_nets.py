"""VGG11 and ResNet20 in the shape that CIFAR needs."""

from __future__ import annotations

import torch
from torch import nn

from sklmc._validation import check_integer, check_number, check_option

MOST_TIMES = 1e4  # of a multiplier: a layer of five million channels fits into no memory

_RESNET_WIDTHS = (16, 32, 64)
_RESNET_BLOCKS = 3  # of each stage
_VGG_WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))
_VGG_HIDDEN = 512


class ConvolutionalNet(nn.Module):
    """What nets for images share: sizes, norms over channels, initial weights."""

    def __init__(
        self,
        n_channels: int = 3,
        n_outputs: int = 10,
        *,
        width_multiplier: float = 1.0,
        norm: str | None = "batch",
    ):
        super().__init__()
        caller = type(self).__name__
        self.n_channels = check_integer(n_channels, caller, "n_channels", 1)
        self.n_outputs = check_integer(n_outputs, caller, "n_outputs", 1)
        self.width_multiplier = _check_multiplier(width_multiplier, caller)
        self.norm = check_option(norm, (None, "batch", "layer"), caller, "norm")
        self._build()
        self._draw()

    def _build(self) -> None:
        """Make the layers."""
        raise NotImplementedError

    @torch.no_grad()
    def _draw(self) -> None:
        """Draw convolutions and linear layers with the gain of ReLU; biases start at zero."""
        for part in self.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def _scale(self, width: int) -> int:
        """Return a number of channels, at least one."""
        return max(1, round(width * self.width_multiplier))


def _check_multiplier(value, caller: str) -> float:
    """Return a positive width multiplier."""
    multiplier = check_number(value, caller, "width_multiplier")
    if not 0 < multiplier <= MOST_TIMES:
        raise ValueError(
            f"{caller}: 'width_multiplier' must be positive and at most {MOST_TIMES:g}, got "
            f"{value!r}."
        )
    return multiplier


def channel_norm(norm: str | None, n_channels: int) -> nn.Module:
    """Return a norm over channels; "layer" takes all channels and positions of a sample as one."""
    if norm == "batch":
        return nn.BatchNorm2d(n_channels)
    return nn.GroupNorm(1, n_channels) if norm == "layer" else nn.Identity()


def convolution(n_in: int, n_out: int, norm: str | None, stride: int = 1) -> nn.Conv2d:
    """Return a 3 x 3 convolution that keeps the size; norms make its bias superfluous."""
    return nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=norm is None)


class VGG11(ConvolutionalNet):
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

    def _build(self) -> None:
        layers: list[nn.Module] = []
        n_in = self.n_channels
        for stage, widths in enumerate(_VGG_WIDTHS):
            if stage > 0:
                layers.append(nn.MaxPool2d(2))
            for width in widths:
                n_out = self._scale(width)
                layers.append(convolution(n_in, n_out, self.norm))
                if self.norm is not None:
                    layers.append(channel_norm(self.norm, n_out))
                layers.append(nn.ReLU())
                n_in = n_out
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        hidden = self._scale(_VGG_HIDDEN)
        self.classifier = nn.Sequential(
            nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, self.n_outputs)
        )

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


class ResNet20(ConvolutionalNet):
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

    def _build(self) -> None:
        widths = [self._scale(width) for width in _RESNET_WIDTHS]
        self.stem = nn.Sequential(
            convolution(self.n_channels, widths[0], self.norm),
            channel_norm(self.norm, widths[0]),
            nn.ReLU(),
        )
        blocks: list[ResidualBlock] = []
        n_in = widths[0]
        for stage, width in enumerate(widths):
            for place in range(_RESNET_BLOCKS):
                stride = 2 if stage > 0 and place == 0 else 1
                blocks.append(ResidualBlock(n_in, width, stride, self.norm))
                n_in = width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(n_in, self.n_outputs)

    @torch.no_grad()
    def _draw(self) -> None:
        super()._draw()
        if self.norm is None:
            for block in self.blocks:
                block.conv2.weight /= len(self.blocks) ** 0.5

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
