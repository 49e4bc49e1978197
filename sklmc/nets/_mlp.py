"""The multilayer perceptron that the studies of this field begin with."""

from __future__ import annotations

import torch
from torch import nn

from sklmc._validation import check_integer, check_option

_NORMS = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
_INITS = {"kaiming_normal": nn.init.kaiming_normal_, "kaiming_uniform": nn.init.kaiming_uniform_}


class MLP(nn.Module):
    """Multilayer perceptron of equally wide hidden ReLU layers.

    Every hidden layer is Linear, then `norm`, then ReLU; a Linear layer without norm follows.
    What comes out are logits or predicted values: no softmax, no sigmoid.

    Parameters
    ----------
    n_features : int, default=None
        Width of the input. ``NetClassifier`` and ``NetRegressor`` set it from the data; a plain
        module needs a number.
    n_outputs : int, default=None
        Number of logits or of predicted values. Set from the data as `n_features` is.
    width : int, default=64
        Units of each hidden layer.
    depth : int, default=1
        Number of hidden layers; 0 gives a linear model.
    norm : {None, "layer", "batch"}, default=None
        Normalization between each hidden Linear layer and its ReLU.
    bias : bool, default=True
        Whether the Linear layers have biases. Norm layers always have theirs.
    init : {"default", "kaiming_normal", "kaiming_uniform"}, default="default"
        Initialization of the weights. "default" leaves torch's own; the others draw with the
        gain of ReLU over the incoming connections [1]_ and set the biases to zero.

    Attributes
    ----------
    layers : torch.nn.Sequential
        Linear, norm (if any), ReLU, and so on; the last one is Linear.

    See Also
    --------
    sklmc.NetClassifier : Trains this module by default.
    sklmc.NetRegressor : The same for regression.

    Notes
    -----
    Input with more than two axes (images) is flattened behind its first axis.

    References
    ----------
    .. [1] He, Zhang, Ren and Sun, "Delving deep into rectifiers: surpassing human-level
       performance on ImageNet classification", 2015.

    Examples
    --------
    >>> import torch
    >>> from sklmc.nets import MLP
    >>> module = MLP(n_features=4, n_outputs=3, width=8, depth=2, norm="layer")
    >>> module(torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        n_features: int | None = None,
        n_outputs: int | None = None,
        *,
        width: int = 64,
        depth: int = 1,
        norm: str | None = None,
        bias: bool = True,
        init: str = "default",
    ):
        super().__init__()
        self.n_features = _check_size(n_features, "n_features")
        self.n_outputs = _check_size(n_outputs, "n_outputs")
        self.width = check_integer(width, "MLP", "width", 1)
        self.depth = check_integer(depth, "MLP", "depth", 0)
        self.norm = check_option(norm, [None, *_NORMS], "MLP", "norm")
        self.bias = check_option(bias, [True, False], "MLP", "bias")
        self.init = check_option(init, ["default", *_INITS], "MLP", "init")

        layers: list[nn.Module] = []
        n_inputs = self.n_features
        for _ in range(self.depth):
            layers.append(nn.Linear(n_inputs, self.width, bias=self.bias))
            if self.norm is not None:
                layers.append(_NORMS[self.norm](self.width))
            layers.append(nn.ReLU())
            n_inputs = self.width
        layers.append(nn.Linear(n_inputs, self.n_outputs, bias=self.bias))
        self.layers = nn.Sequential(*layers)
        if self.init != "default":
            self.layers.apply(self._initialize)

    def _initialize(self, layer: nn.Module) -> None:
        """Draw the weights of one Linear layer as `init` says, and clear its bias."""
        if isinstance(layer, nn.Linear):
            _INITS[self.init](layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of a batch.

        Parameters
        ----------
        x : torch.Tensor of shape (n_samples, n_features)
            The batch; more axes than two are flattened to n_features.

        Returns
        -------
        torch.Tensor of shape (n_samples, n_outputs)
            Logits or predicted values.
        """
        if x.ndim > 2:
            x = x.flatten(1)
        return self.layers(x)


def _check_size(value, name: str) -> int:
    """Return a size that the data decide on; None has no meaning here."""
    if value is None:
        raise ValueError(
            f"MLP: '{name}' is None. NetClassifier and NetRegressor set it from the data in fit; "
            f"elsewhere pass a number ({name}=..., or module__{name}=... of a net)."
        )
    return check_integer(value, "MLP", name, 1)
