"""Losses and gradients of many members at once: chains by hand, other modules by torch.func."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.func import functional_call, vmap

from sklmc.estimators._sample_weights import shares
from sklmc.estimators._vectorized._state import VectorizedState

Layers = list[tuple[str, nn.Module]]  # prefix of a layer's tensors, and the layer


def vectorize_net(
    lead, state: VectorizedState, chain: Layers | None
) -> VectorizedChain | VectorizedModule:
    """Return what computes losses and gradients of all members that are like `lead`."""
    return VectorizedModule(lead, state) if chain is None else VectorizedChain(lead, state, chain)


class VectorizedModule:
    """Members of one module, mapped over by torch; gradients by autograd."""

    def __init__(self, net, state: VectorizedState):
        self.module, self.net = copy.deepcopy(net.module_), net
        self.parameters, self.buffers = state.parameters, state.buffers
        self._map = vmap(self._one, randomness="error")

    def _one(self, parameters, buffers, x, target, *weights):
        """Return the loss and the outputs of one member."""
        outputs = functional_call(self.module, (parameters, buffers), (x,))
        training = self.module.training
        with self.net._weighing(*weights):
            return self.net.get_loss(outputs, target, X=x, training=training), outputs

    def step(self, x: torch.Tensor, target: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        """Compute the gradients of one batch per member and return the losses (M,)."""
        self.module.train()
        losses, _ = self._map(self.parameters, self.buffers, x, target, *weights)
        for parameter in self.parameters.values():
            parameter.grad = None
        losses.sum().backward()
        return losses.detach()

    @torch.no_grad()
    def evaluate(self, x: torch.Tensor, target: torch.Tensor, *weights: torch.Tensor):
        """Return losses (M,) and outputs (M, n_samples, ...) in evaluation mode."""
        self.module.eval()
        return self._map(self.parameters, self.buffers, x, target, *weights)


# Letters of the comments below: m members, b samples of a batch, i units that go into a layer, o
# units that come out. Activations are rows, mbi; the outputs of the last layer alone are columns,
# mob: with few outputs the loss, which sums and sorts over o, is many times cheaper when each o
# is one long run of memory.
#
# Why by hand: each layer is one or two batched products over all members, and autograd's graph,
# its saved tensors and its fresh memory cost more than those products for nets this small. Every
# layer has `forward(x, training)`, which keeps what its gradient needs, and `backward(grad)`,
# which takes dL/d(output), writes dL/d(parameter) into `parameter.grad` and returns dL/d(input).
# L is the sum of the members' losses: no member's loss depends on another's weights, so that each
# slice [m] of a gradient is what the member would get by itself.


class _Linear:
    """Linear layers; `first` needs no gradient of its input, `last` returns columns.

    ``y = einsum("moi,mbi->mbo", weight, x) + bias``, and with g = dL/dy, backwards::

        dL/dweight = einsum("mbo,mbi->moi", g, x)
        dL/dbias   = einsum("mbo->mo", g)
        dL/dx      = einsum("mbo,moi->mbi", g, weight)
    """

    def __init__(self, weight, bias, first: bool, last: bool):
        self.weight, self.bias = weight, bias  # (M, n_out, n_in), (M, n_out)
        self.first, self.last = first, last
        # views once and for all: the optimizer writes in place
        self.matrix = weight.detach()
        self.turned = self.matrix.transpose(1, 2)
        self.shift = None if bias is None else bias.detach().unsqueeze(2 if last else 1)
        self.spaces: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def _space(self, n_samples: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return memory for the outputs and for the gradient of the inputs of one batch."""
        if n_samples not in self.spaces:
            n_members, n_outputs, n_inputs = self.weight.shape
            shape = (n_outputs, n_samples) if self.last else (n_samples, n_outputs)
            self.spaces[n_samples] = (
                self.weight.new_empty((n_members, *shape)),
                self.weight.new_empty((n_members, n_samples, 0 if self.first else n_inputs)),
            )
        return self.spaces[n_samples]

    def forward(self, x: torch.Tensor, training: bool) -> torch.Tensor:
        """Return weight @ x + bias; in training into memory that the next step uses again."""
        self.x = x if training else None
        out = self._space(x.shape[1])[0] if training else None
        left, right = (self.matrix, x.transpose(1, 2)) if self.last else (x, self.turned)
        if self.shift is None:
            return torch.bmm(left, right, out=out)
        return torch.baddbmm(self.shift, left, right, out=out)

    def backward(self, grad: torch.Tensor) -> torch.Tensor | None:
        """Store the gradients of the parameters and return that of the input."""
        # one gradient in two views: mob for the product with x, mbo for that with the weights
        columns, rows = (grad, None) if self.last else (grad.transpose(1, 2), grad)
        torch.bmm(columns, self.x, out=self.weight.grad)
        if self.bias is not None:
            torch.sum(grad, 2 if self.last else 1, out=self.bias.grad)
        if self.first:
            return None
        if rows is None:
            rows = grad.transpose(1, 2)
        return torch.bmm(rows, self.matrix, out=self._space(self.x.shape[1])[1])


class _ReLU:
    """Rectified linear units, in place."""

    def __init__(self):
        self.out = None

    def forward(self, x: torch.Tensor, training: bool) -> torch.Tensor:
        """Clamp in place."""
        self.out = x.relu_()
        return self.out

    def backward(self, grad: torch.Tensor) -> torch.Tensor:
        """Clear the gradient where the output is zero, in place.

        The output alone says where: it is zero exactly where the input was not positive. The
        layer that made the input needs its own input for its gradient, never its output, and may
        lose it; the norms make `normed` anew, apart from what they return.
        """
        return torch.ops.aten.threshold_backward.grad_input(grad, self.out, 0, grad_input=grad)


class _Norm:
    """What both norms share: scale and shift per member and unit.

    ``y = normed * weight + bias``, and with g = dL/dy, backwards::

        dL/dbias   = einsum("mbi->mi", g)
        dL/dweight = einsum("mbi,mbi->mi", g, normed)
        dL/dnormed = g * weight

    Each norm then takes dL/dnormed to dL/dx.
    """

    def __init__(self, layer, weight, bias):
        self.weight, self.bias, self.eps = weight, bias, layer.eps  # (M, n_units)

    def _scale(self, normed: torch.Tensor) -> torch.Tensor:
        """Return the scaled and shifted units."""
        self.normed = normed
        return torch.addcmul(
            self.bias.detach().unsqueeze(1), normed, self.weight.detach().unsqueeze(1)
        )

    def _scale_backward(self, grad: torch.Tensor) -> torch.Tensor:
        """Store the gradients of scale and shift and return that of the normed units."""
        torch.sum(grad, 1, out=self.bias.grad)
        torch.sum(grad * self.normed, 1, out=self.weight.grad)
        return grad * self.weight.detach().unsqueeze(1)


class _LayerNorm(_Norm):
    """Layer norm: every sample of every member has mean zero and variance one over its units."""

    def forward(self, x: torch.Tensor, training: bool) -> torch.Tensor:
        """Normalize over the units."""
        normed, self.mean, self.rstd = torch.native_layer_norm(
            x, (x.shape[2],), None, None, self.eps
        )
        self.x = x
        return self._scale(normed)

    def backward(self, grad: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the input."""
        grad = self._scale_backward(grad)
        return torch.ops.aten.native_layer_norm_backward(
            grad, self.x, (grad.shape[2],), self.mean, self.rstd, None, None, [True, False, False]
        )[0]


class _BatchNorm(_Norm):
    """Batch norm: every unit of every member has mean zero and variance one over the batch."""

    def __init__(self, layer, weight, bias, buffers: Mapping[str, torch.Tensor], prefix: str):
        super().__init__(layer, weight, bias)
        self.momentum = layer.momentum
        self.running_mean, self.running_var, self.n_batches = (
            buffers[f"{prefix}{name}"]
            for name in ("running_mean", "running_var", "num_batches_tracked")
        )

    def forward(self, x: torch.Tensor, training: bool) -> torch.Tensor:
        """Normalize over the samples of the batch; in evaluation by the running statistics."""
        if training:
            var, mean = torch.var_mean(x, 1, correction=0)  # (M, n_units)
            self._remember(mean, var, x.shape[1])
        else:
            mean, var = self.running_mean, self.running_var
        self.rstd = (var + self.eps).rsqrt_().unsqueeze(1)
        return self._scale((x - mean.unsqueeze(1)).mul_(self.rstd))

    def _remember(self, mean: torch.Tensor, var: torch.Tensor, n_samples: int) -> None:
        """Move the running statistics towards those of the batch."""
        count = self.n_batches.add_(1)
        momentum = 1.0 / float(count[0]) if self.momentum is None else self.momentum
        unbiased = var * (n_samples / (n_samples - 1))  # what torch stores
        for running, value in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.mul_(1 - momentum).add_(value, alpha=momentum)

    def backward(self, grad: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the input.

        Mean and variance depend on x, so that two directions drop out of the gradient: shifting
        and scaling a unit over the batch leaves ``normed`` as it is. With g = dL/dnormed and
        means over b::

            dL/dx = (g - mean(g) - normed * mean(g * normed)) / sqrt(var + eps)
        """
        grad = self._scale_backward(grad)
        along = (grad * self.normed).mean(1, keepdim=True)
        mean = grad.mean(1, keepdim=True)
        return grad.sub_(mean).addcmul_(self.normed, along, value=-1).mul_(self.rstd)


class VectorizedChain:
    """Members of one chain, trained step by step; gradients land in ``parameters[...].grad``."""

    def __init__(self, net, state: VectorizedState, layers: Layers):
        self.loss = _column_loss(net)
        parameters = state.parameters
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        weighty = [name for name, layer in layers if type(layer) is nn.Linear]
        self.layers: list = []
        for name, layer in layers:
            weight, bias = parameters.get(f"{name}weight"), parameters.get(f"{name}bias")
            made: _Linear | _ReLU | _Norm
            if type(layer) is nn.Linear:
                made = _Linear(weight, bias, name == weighty[0], name == weighty[-1])
            elif type(layer) is nn.ReLU:
                made = _ReLU()
            elif type(layer) is nn.LayerNorm:
                made = _LayerNorm(layer, weight, bias)
            else:
                made = _BatchNorm(layer, weight, bias, state.buffers, name)
            self.layers.append(made)

    def _forward(self, x: torch.Tensor, training: bool) -> torch.Tensor:
        """Return the outputs of all members as columns."""
        if x.ndim > 3:
            x = x.flatten(2)
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    @torch.no_grad()
    def step(self, x: torch.Tensor, target: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        """Compute the gradients of one batch per member and return the losses (M,)."""
        loss, grad = self.loss(self._forward(x, True), target, True, *weights)
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        return loss

    @torch.no_grad()
    def evaluate(self, x: torch.Tensor, target: torch.Tensor, *weights: torch.Tensor):
        """Return losses (M,) and outputs (M, n_samples, n_outputs) in evaluation mode."""
        outputs = self._forward(x, False)
        return self.loss(outputs, target, False, *weights)[0], outputs.transpose(1, 2)


def _column_loss(net) -> Callable:
    """Return the loss of a net as a function of columns (M, n_outputs, n_samples) and targets.

    After them comes whether the gradient is wanted, and weights (M, n_samples) if there are any. It
    returns the losses (M,) and, if asked, the gradient of their sum. The two usual criteria
    are written out; any other goes through the net's own ``get_loss`` and autograd.
    """
    criterion = net.criterion_
    plain = getattr(criterion, "reduction", None) == "mean"
    if type(criterion) is nn.MSELoss and plain:
        return _squared_error
    if type(criterion) is nn.CrossEntropyLoss and plain:
        changed = criterion.label_smoothing != 0 or criterion.ignore_index != -100
        if criterion.weight is None and not changed:
            return _cross_entropy
    return _through_autograd(net)


def _cross_entropy(outputs: torch.Tensor, target: torch.Tensor, want_grad: bool, weights=None):
    """Return mean cross entropies of logits and their gradient."""
    log_p = torch.log_softmax(outputs, 1)  # (M, n_classes, n_samples)
    target = target.unsqueeze(1)  # (M, 1, n_samples)
    losses = log_p.gather(1, target)
    if weights is None:
        loss = losses.mean((1, 2)).neg_()
    else:
        share = _fractions(weights, outputs)
        loss = (losses * share).sum((1, 2)).neg_()
    if not want_grad:
        return loss, None
    minus = log_p.new_full((1, 1, 1), -1.0).expand(target.shape)
    grad = log_p.exp_().scatter_add_(1, target, minus)
    return loss, grad.div_(target.shape[2]) if weights is None else grad.mul_(share)


def _squared_error(outputs: torch.Tensor, target: torch.Tensor, want_grad: bool, weights=None):
    """Return mean squared errors and their gradient."""
    difference = outputs - target.transpose(1, 2)
    if weights is None:
        loss = difference.square().mean((1, 2))
        n_values = difference.shape[1] * difference.shape[2]
        return loss, difference.mul_(2 / n_values) if want_grad else None
    share = _fractions(weights, outputs) / difference.shape[1]
    loss = (difference.square() * share).sum((1, 2))
    return loss, difference.mul_(2 * share) if want_grad else None


def _fractions(weights: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """Return weights of samples that sum to one in each member, (M, 1, n_samples)."""
    share = shares(weights, outputs)
    return (share / share.sum(1, keepdim=True)).unsqueeze(1)


def _through_autograd(net) -> Callable:
    """Return a loss that asks the net itself, for all members at once."""

    def one(outputs, target, *weights):
        with net._weighing(*weights):
            return net.get_loss(outputs, target, X=None, training=True)

    def loss(outputs: torch.Tensor, target: torch.Tensor, want_grad: bool, *weights):
        rows = outputs.transpose(1, 2).contiguous()
        with torch.set_grad_enabled(want_grad):
            rows.requires_grad_(want_grad)
            losses = torch.func.vmap(one)(rows, target, *weights)
            if not want_grad:
                return losses, None
            (grad,) = torch.autograd.grad(losses.sum(), rows)
        return losses.detach(), grad.transpose(1, 2).contiguous()

    return loss
