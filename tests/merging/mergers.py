"""Small fitted nets, and mergers of them."""

import functools

import numpy as np
import torch

from sklmc import EnsembleMerger, NetClassifier, NetRegressor

N = 150
_rng = np.random.default_rng(0)
X = _rng.normal(size=(N, 3)).astype(np.float32)
CODES = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(np.int64) + (X[:, 2] > 0.7)
Y = np.array(["a", "b", "c"])[CODES]
VALUES = (X[:, 0] - 2 * X[:, 1]).astype(np.float32)
CUTS = (0, 60, 110, N)  # of the samples of three parts


def by_part(values):
    """Return the values of each of three parts."""
    return [values[a:b] for a, b in zip(CUTS, CUTS[1:])]


def net(seed=0, y=Y, **parameters):
    kind = NetRegressor if y.dtype.kind == "f" else NetClassifier
    return kind(module__width=8, max_epochs=5, random_state=seed, **parameters).fit(X, y)


@functools.cache
def fitted(kind="labels"):
    """Return three nets that are fitted on labels, on codes or on values; not to be changed."""
    y = {"labels": Y, "codes": CODES, "values": VALUES}[kind]
    return [net(seed, y) for seed in range(3)]


def merger(estimators=None, **parameters):
    """Return a merger that takes little time."""
    estimators = fitted() if estimators is None else estimators
    return EnsembleMerger(estimators, **{"aligner": "weight", "random_state": 0, **parameters})


def tensors_of(model):
    """Return the tensors of a net or module."""
    module = model if isinstance(model, torch.nn.Module) else model.module_
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_equal_nets(one, other, atol=0.0):
    first, second = tensors_of(one), tensors_of(other)
    for name, tensor in first.items():
        np.testing.assert_allclose(tensor, second[name], rtol=atol, atol=atol, err_msg=name)
