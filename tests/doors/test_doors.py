"""Each kind of samples through each verb: what comes out is what the plain kind gives."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from sklmc import (
    EnsembleMerger,
    LMCScorer,
    MultiAligner,
    PathDisplay,
    PermutationAligner,
    discover_symmetry,
    explain_barrier,
    loss_plane,
    merge_models,
    repair,
)
from sklmc.features import (
    RedundancyReducer,
    commutativity,
    error_bound,
    feature_similarity,
    inverse_temperatures,
    layerwise_exponential_connectivity,
    layerwise_linear_connectivity,
    preactivation_scale,
    reciprocal_orthogonality,
    stitch_models,
    variance_ratio,
    weak_additivity,
)
from sklmc.merging._repairs._parts import is_by_part
from tests.doors.kinds import DOORS, REFERENCE, Door

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def trained(net: type[nn.Module], seed: int) -> nn.Module:
    """Return a net with weights and statistics of its own."""
    module = net(seed)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.named_buffers():
        if name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return module.eval()


def state_of(model) -> dict:
    return {name: tensor.double() for name, tensor in model.state_dict().items()}


def aligned(method, a, b, X, y):
    aligner = PermutationAligner(method, max_iter=3, random_state=0)
    return state_of(aligner.fit_transform(a, b, X, y))


def all_aligned(a, b, X, y):
    models = [a, b, trained(type(a), 3)]
    moved = (
        MultiAligner("reference", aligner="activation", random_state=0)
        .fit(models, X, y)
        .transform(models)
    )
    return {f"{k}.{n}": t for k, model in enumerate(moved) for n, t in state_of(model).items()}


def merged(method, a, b, X, y):
    return state_of(merge_models([a, b], X, y, aligner="activation", repair=method))


def repaired(method, a, b, X, y):
    return state_of(repair(copy.deepcopy(a), [a, b], X, y=y, method=method))


def one_of_many(a, b, X, y):
    merger = EnsembleMerger([a, b], aligner="activation", repair="refit", random_state=0)
    return state_of(merger.fit(X, y).estimator_)


def fidelity(a, b, X, y):
    merger = EnsembleMerger([a, b], aligner=None, repair="batch_norm", random_state=0)
    return merger.fit(X, y).fidelity_


def groups(a, b, X, y):
    symmetry = discover_symmetry(a, X)
    return pd.DataFrame({"size": [group.size for group in symmetry.groups]})


def path(a, b, X, y, **options):
    return LMCScorer(n_alphas=4, **options).path(a, b, X, y).to_frame()


def pairs(a, b, X, y):
    return LMCScorer(n_alphas=4).pairwise([a, b, trained(type(a), 3)], X, y).to_frame()


def plane(a, b, X, y):
    models = [a, b, trained(type(a), 3)]
    return loss_plane(models, X, y, n_points=3, repair="batch_norm").to_frame()


def explained(a, b, X, y):
    return explain_barrier(a, b, X, y).rises


def reduced(a, b, X, y):
    return state_of(RedundancyReducer(shrink=False).fit(a, X).transform(a))


def stitched(a, b, X, y):
    layer = next(n for n, part in a.named_modules() if isinstance(part, nn.BatchNorm1d))
    return state_of(stitch_models(a, b, layer, X))


def drawn(a, b, X, y):
    display = PathDisplay.from_models([a, b], X, y, scorer=LMCScorer(n_alphas=4))
    return display.curves["path"]


VERBS = {
    "discover_symmetry": groups,
    "align: weight": functools.partial(aligned, "weight"),
    "align: activation": functools.partial(aligned, "activation"),
    "align: straight_through": functools.partial(aligned, "straight_through"),
    "align: auto": functools.partial(aligned, "auto"),
    "MultiAligner": all_aligned,
    "merge": functools.partial(merged, None),
    "merge: batch_norm": functools.partial(merged, "batch_norm"),
    "merge: renormalize": functools.partial(merged, "renormalize"),
    "merge: refit": functools.partial(merged, "refit"),
    "merge: auto": functools.partial(merged, "auto"),
    "EnsembleMerger": one_of_many,
    "EnsembleMerger: fidelity": fidelity,
    "repair: batch_norm": functools.partial(repaired, "batch_norm"),
    "repair: auto": functools.partial(repaired, "auto"),
    "path": path,
    "path: calibrated": functools.partial(path, calibration="crossfit"),
    "path: aligned": functools.partial(path, aligner="activation"),
    "path: repaired": functools.partial(path, repair="batch_norm"),
    "pairwise": pairs,
    "plane": plane,
    "explain_barrier": explained,
    "LLFC": lambda a, b, X, y: layerwise_linear_connectivity(a, b, X),
    "LEWC": lambda a, b, X, y: layerwise_exponential_connectivity(a, b, X),
    "commutativity": lambda a, b, X, y: commutativity(a, b, X),
    "weak_additivity": lambda a, b, X, y: weak_additivity(a, b, X),
    "orthogonality": lambda a, b, X, y: reciprocal_orthogonality(a, b, X),
    "variance_ratio": lambda a, b, X, y: variance_ratio(a, b, X),
    "similarity": lambda a, b, X, y: feature_similarity(a, b, X, on="activation"),
    "preactivations": lambda a, b, X, y: preactivation_scale(a, X),
    "temperatures": lambda a, b, X, y: inverse_temperatures(a, b, X, y),
    "error_bound": lambda a, b, X, y: error_bound(a, b, X, y),
    "RedundancyReducer": reduced,
    "stitch_models": stitched,
    "PathDisplay": drawn,
}


def numbers(result) -> list[np.ndarray]:
    """Return all numbers in what a verb returned, to be compared in order."""
    if isinstance(result, dict):
        return [np.asarray(result[name], dtype=float) for name in sorted(result)]
    if isinstance(result, pd.DataFrame):
        return [result.select_dtypes("number").to_numpy(dtype=float)]
    frame = result.to_frame() if hasattr(result, "to_frame") else result
    if isinstance(frame, pd.DataFrame):
        return numbers(frame)
    return [np.asarray(result, dtype=float)]


@functools.cache
def outcome(verb: str, door: str) -> list[np.ndarray]:
    """Run a verb on the samples of a door."""
    through: Door = DOORS[door]
    a, b = trained(through.net, 0), trained(through.net, 1)
    before = [copy.deepcopy(model.state_dict()) for model in (a, b)]
    found = numbers(VERBS[verb](a, b, through.X, through.y))
    for model, state in zip((a, b), before):
        assert all(torch.equal(model.state_dict()[name], state[name]) for name in state)
    return found


# a list of batches is to EnsembleMerger a list of the samples of each net's owner
CASES = [
    (verb, name)
    for verb in VERBS
    for name, door in DOORS.items()
    if not (verb.startswith("EnsembleMerger") and is_by_part(door.X))
]


@pytest.mark.parametrize("verb, door", CASES)
def test_every_kind_of_samples_goes_through_every_verb(verb, door):
    found = outcome(verb, door)
    expected = outcome(verb, REFERENCE[DOORS[door].net])
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
