"""Which members can be vectorized, in chunks of what size, and when it pays."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.base import clone
from torch import nn

from sklmc._torch import module_device, seeded, single_thread, torch_defaults
from sklmc.estimators._classifier import NetClassifier
from sklmc.estimators._net import BATCH_NORM
from sklmc.estimators._net_data import ArrayBatches, goes_untouched
from sklmc.estimators._regressor import NetRegressor
from sklmc.estimators._vectorized._callbacks import is_followed
from sklmc.estimators._vectorized._detection import chain_layers, check_alike, generator_states
from sklmc.estimators._vectorized._modules import vectorize_net
from sklmc.estimators._vectorized._state import ELEMENTWISE, VectorizedState
from sklmc.estimators._vectorized._training import adopt, split_batches
from sklmc.models import Call, Watcher, view

# The rule of vectorize="auto", from timing both ways on one core (Sapphire Rapids, 2 MB of L2,
# Adam, torch 2.13; microseconds per step and member, one by one -> vectorized):
#
#   chains (by hand)        members  2           5           10          25
#   2-8-2, batch 32         521 ->   108         49          22          10
#   2-32-2, batch 128       580 ->   110         54          37          23
#   2-128-2                 709 ->   125         88          67          56
#   2-512-2                 895 ->   251         199         139         187
#   2-512-512-512-2        6146 ->  3764        4024        4464        4533
#   784-32-10               942 ->   366         287         274         254
#   784-128-10             1574 ->   774         593         607         751
#   784-512-10             3542 ->  2121        2129        2294        2320
#   other modules (vmap)
#   tanh 2-32-2             563 ->   528                     135          67
#   tanh 2-512-2            936 ->   802                     542         576
#   tanh 784-128-2         1463 ->  1360                     937        1144
#   tanh 784-512-512-2     6306 ->  5832                    5180        6987
#   conv 1x8x8, width 8    1934 ->  1717                     733
#   conv 1x8x8, width 32   2855 ->  2976                    2333
#   conv 1x28x28, width 8  5920 ->  6962                    5567
#
# So: a chain is vectorized from two members on. Another module is vectorized from five members on
# while its layers put out at most _MOST_OUTPUTS numbers per step and it has at most _MOST_WEIGHTS
# weights; beyond that it gains less than a quarter or loses. On a CUDA device, where every step
# of a small net is launching kernels, both are vectorized as long as several members fit.
_LEAST_MEMBERS = 5
_MOST_OUTPUTS = 200_000
_MOST_WEIGHTS = 200_000

# The working set of a chunk stays in cache; more members than that only add to what is lost when
# a run is cut off, and leave less to run in parallel. Four members share what a step costs.
_CPU_BYTES = 6_000_000
_CPU_MEMBERS = (4, 50)
_CUDA_SHARE = 8  # a chunk takes one part in eight of the device's memory
_CUDA_MEMBERS = (1, 64)


@dataclass(frozen=True)
class TrainingPlan:
    """How members are trained: vectorized in chunks, or (`chunk` None) one by one."""

    chunk: int | None

    def spans(self, n_members: int) -> list[range]:
        """Return the members that are trained together; they depend on positions alone."""
        size = self.chunk or 1
        return [range(start, min(start + size, n_members)) for start in range(0, n_members, size)]


def plan_training(
    estimator, X, y, n_members: int, vectorize, caller: str, sample_weight=None
) -> TrainingPlan:
    """Choose by shapes, optimizer and device alone; with True, refuse what cannot be vectorized."""
    auto = vectorize == "auto"
    if vectorize is False or (auto and n_members < 2):
        return TrainingPlan(None)
    obstacle = _find_setting(estimator, X)
    if obstacle is None:
        probe = _Probe(estimator, X, y, sample_weight)
        if auto and not probe.enough(n_members):
            return TrainingPlan(None)
        with torch_defaults(probe.net._torch_dtype()):
            obstacle = probe.find_obstacle()
        if obstacle is None and (not auto or probe.pays()):
            return TrainingPlan(probe.chunk_size())
    if auto:
        return TrainingPlan(None)
    raise ValueError(
        f"{caller}: 'vectorize' is True, but training cannot be vectorized: "
        f"{obstacle}. Use vectorize='auto' to train them one by one."
    )


def _find_setting(estimator, X) -> str | None:
    """Name the first setting that vectorized training cannot follow."""
    if type(estimator) not in (NetClassifier, NetRegressor):
        return (
            f"'estimator' is a {type(estimator).__name__}; only a NetClassifier or a "
            "NetRegressor itself can be vectorized"
        )
    if goes_untouched(X):
        return f"'X' is a {type(X).__name__}, not an array"
    if estimator.compile:
        return "'compile' is set"
    kind = estimator.optimizer
    if kind not in ELEMENTWISE:
        name = getattr(kind, "__name__", repr(kind))
        return f"'optimizer' is {name}, which is not known to treat every weight by itself"
    for name, value in estimator.get_params_for("optimizer").items():
        if name in ("capturable", "differentiable") and value:
            return f"'optimizer__{name}' is set"
    return None


class _Probe:
    """One member, built and sent through one step on a few samples."""

    def __init__(self, estimator, X, y, sample_weight):
        self.net = clone(estimator).set_params(verbose=0, random_state=0)
        self.net._check_parameters()
        self.X, self.y, _ = self.net._take_training_data(X, y, True, sample_weight=sample_weight)
        self.net.initialize()
        self.chain = chain_layers(self.net.module_, self.X)
        self.on_cuda = module_device(self.net.module_).type == "cuda"
        self.n_weights = sum(part.numel() for part in self.net.module_.parameters())

    def find_obstacle(self) -> str | None:
        """Say what stands in the way; let the net itself complain of modules that do not fit."""
        net = self.net
        foreign = [name for name, callback in net.callbacks_ if not is_followed(callback)]
        if foreign:
            return f"'callbacks' holds {foreign[0]!r}, which must see each net by itself"
        if list(net.criterion_.parameters()):
            return "'criterion' has weights of its own"
        splits = [split_batches(net, self.X, self.y, seed) for seed in (0, 1)]
        for split in splits:
            for batches, which in zip(split, ("iterator_train", "iterator_valid")):
                if not isinstance(batches, ArrayBatches | None):
                    return f"'{which}' (or 'dataset', or 'train_split') makes batches of its own"
        sizes = [[len(part.indices) for part in split if part is not None] for split in splits]
        if sizes[0] != sizes[1]:
            return "'train_split' cuts pieces of different sizes"
        self.batches = splits[0][0]
        return self._try_step()

    def _try_step(self) -> str | None:
        """Run a member by itself, then two vectorized, on a few samples."""
        net, n_samples = self.net, min(4, len(self.batches.indices))
        device = module_device(net.module_)
        rows = self.batches.indices[:n_samples]
        x = torch.from_numpy(self.X[rows])
        target = torch.from_numpy(self.y[rows]).to(device)
        weights = [] if self.batches.weights is None else [torch.ones(2, n_samples)]
        with single_thread(), torch.no_grad(), seeded(0):
            net._set_training(False)
            outputs = net.infer(x)
            net.get_loss(outputs, target, X=x, training=False)
        per_batch = min(self.batches.batch_size, len(self.batches.indices))
        self.n_outputs = _count_outputs(net.module_, x) // n_samples * per_batch
        if net._has_batch_norm() and min(n_samples, self.batches.batch_size) < 2:
            return "'batch_size' leaves batch norm a single sample"
        other = clone(net).set_params(random_state=1, verbose=0)
        adopt(other, net)
        try:
            check_alike([net.module_, other.initialize().module_])
            with single_thread(), seeded(0), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pair = vectorize_net(net, VectorizedState([net, net]), self.chain)
                both = x.to(device).expand(2, *x.shape).contiguous()
                before = generator_states()
                pair.step(both, target.expand(2, *target.shape).contiguous(), *weights)
                if generator_states() != before:
                    return f"'module' {type(net.module_).__name__} draws random numbers"
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            reason = str(error).split("\n")[0][:200].rstrip(". ")
            return f"'module' {type(net.module_).__name__} cannot be vectorized ({reason})"
        return None

    def enough(self, n_members: int) -> bool:
        """Say whether there are enough members to gain from, by the rule above."""
        return n_members >= (2 if self.chain is not None or self.on_cuda else _LEAST_MEMBERS)

    def pays(self) -> bool:
        """Say whether vectorizing gains, by the rule above, and ends in the same nets.

        It does not where weights without a gradient move all the same, by rounding alone: so does
        a bias in front of batch norm, where the optimizer divides by the gradient's size.
        """
        small = self.n_outputs <= _MOST_OUTPUTS and self.n_weights <= _MOST_WEIGHTS
        if not (small or self.chain is not None or self.on_cuda):
            return False
        leaves = [part for part in self.net.module_.modules() if not list(part.children())]
        return self.net.optimizer is torch.optim.SGD or not any(
            getattr(layer, "bias", None) is not None and isinstance(norm, BATCH_NORM)
            for layer, norm in itertools.pairwise(leaves)
        )

    def chunk_size(self) -> int:
        """Return how many members are trained together."""
        itemsize = next(self.net.module_.parameters(), torch.zeros(1)).element_size()
        batch = min(self.batches.batch_size, len(self.batches.indices))
        inputs = batch * int(np.prod(self.X.shape[1:]))
        # outputs and their gradients; weights, gradients and two moments
        per_member = itemsize * (inputs + 2 * self.n_outputs + 4 * self.n_weights)
        room, (least, most) = _CPU_BYTES, _CPU_MEMBERS
        if self.on_cuda:
            device = torch.cuda.get_device_properties(module_device(self.net.module_))
            room, (least, most) = device.total_memory // _CUDA_SHARE, _CUDA_MEMBERS
        return int(np.clip(room // max(per_member, 1), least, most))


def _count_outputs(module: nn.Module, x: torch.Tensor) -> int:
    """Count the numbers that layers without children put out (ReLU takes no room) for a batch."""
    counts: list[int] = []

    def after(call: Call, output) -> None:
        if isinstance(output, torch.Tensor) and not isinstance(call.module, nn.ReLU):
            counts.append(output.numel())

    leaves = [path for path, part in module.named_modules() if not list(part.children())]
    with Watcher(view(module, caller="fit"), after=after, modules=leaves) as watcher:
        watcher.run((x,))
    return sum(counts)
