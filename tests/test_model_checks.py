"""What every estimator over models keeps to, in place of scikit-learn's checks on X and y.

An aligner takes models where scikit-learn's estimators take arrays. Each one enters ALIGNERS
once; the checks are then the same for all.
"""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags

from sklmc import PermutationAligner
from sklmc.nets import MLP

ALIGNERS = [
    PermutationAligner(),
    PermutationAligner(n_init=3, random_state=0, n_jobs=2),
    PermutationAligner("activation"),
    PermutationAligner("activation", statistic="moment", refine=True),
    PermutationAligner("straight_through", max_iter=2, random_state=0),
    PermutationAligner("auto", random_state=0),
]

DATA = (
    np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32),
    np.random.default_rng(1).integers(3, size=40),
)

aligners = pytest.mark.parametrize("aligner", ALIGNERS, ids=repr)


def nets(n=2, **arguments):
    """Batch norm brings buffers along, dropout of its statistics would show."""
    options = {"n_features": 4, "n_outputs": 3, "width": 6, "depth": 2, "norm": "batch"}
    made = []
    for seed in range(n):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made.append(MLP(**options | arguments))
            made[-1](torch.randn(20, 4))  # running statistics that are not their initial value
    return made


def fingerprint(model):
    flags = [part.training for part in model.modules()]
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()]
    return {k: v.numpy().tobytes() for k, v in model.state_dict().items()}, flags, hooks


def same_weights(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@aligners
def test_init_only_stores(aligner):
    params = aligner.get_params()
    assert type(aligner)(**params).get_params() == params
    assert not [name for name in vars(aligner) if name.endswith("_")]


@aligners
def test_fit_returns_self_and_leaves_parameters_alone(aligner):
    aligner = clone(aligner)
    before = aligner.get_params()
    assert aligner.fit(*nets(), *DATA) is aligner
    assert aligner.get_params() == before


@aligners
def test_fitted_attributes_end_in_an_underscore(aligner):
    aligner = clone(aligner)
    before = set(vars(aligner))
    aligner.fit(*nets(), *DATA)
    assert all(n.endswith("_") or n.startswith("_") for n in set(vars(aligner)) - before)


@aligners
def test_models_handed_in_stay_as_they_are(aligner):
    models = [model.train(index == 0) for index, model in enumerate(nets())]
    before = [fingerprint(model) for model in models]
    clone(aligner).fit_transform(*models, *DATA)
    assert [fingerprint(model) for model in models] == before


@aligners
def test_fit_transform_is_fit_then_transform(aligner):
    a, b = nets()
    both = clone(aligner).fit_transform(a, b, *DATA)
    assert same_weights(both, clone(aligner).fit(a, b, *DATA).transform(b))


@aligners
def test_transform_then_inverse_is_the_identity(aligner):
    a, b = nets()
    aligner = clone(aligner).fit(a, b, *DATA)
    assert same_weights(aligner.inverse_transform(aligner.transform(b)), b)


@aligners
def test_aligned_model_computes_the_same_function(aligner):
    a, b = (model.double() for model in nets())
    moved = clone(aligner).fit_transform(a, b, *DATA)
    x = torch.randn(30, 4, dtype=torch.float64)
    assert torch.allclose(moved.eval()(x), b.eval()(x), rtol=1e-12, atol=1e-12)


@aligners
def test_fitting_twice_gives_the_same(aligner):
    a, b, c = nets(3)
    once, twice = clone(aligner).fit(a, b, *DATA), clone(aligner).fit(b, c, *DATA).fit(a, b, *DATA)
    assert once.permutation_ == twice.permutation_


@aligners
def test_global_generators_are_left_alone(aligner):
    a, b = nets()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    clone(aligner).fit(a, b, *DATA)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@aligners
def test_fitted_aligner_survives_a_pickle(aligner):
    a, b = nets()
    aligner = clone(aligner).fit(a, b, *DATA)
    again = pickle.loads(pickle.dumps(aligner))
    assert same_weights(again.transform(b), aligner.transform(b))


@aligners
def test_clone_of_a_fitted_aligner_is_unfitted(aligner):
    a, b = nets()
    with pytest.raises(NotFittedError):
        clone(clone(aligner).fit(a, b, *DATA)).transform(b)


@aligners
def test_tags_say_that_no_array_is_taken(aligner):
    tags = get_tags(aligner)
    assert not tags.input_tags.two_d_array
    assert tags.no_validation


@aligners
@pytest.mark.parametrize("model", [None, 0, "net", np.zeros(3), MLP, [1]])
def test_what_is_no_model_is_refused_by_name(aligner, model):
    a, b = nets()
    for args, name in (((model, b), "model_a"), ((a, model), "model_b")):
        with pytest.raises(TypeError, match=f"{type(aligner).__name__}: '{name}'"):
            clone(aligner).fit(*args, *DATA)


@aligners
def test_wrong_parameter_values_are_named(aligner):
    a, b = nets()
    for name in aligner.get_params():
        wrong = clone(aligner).set_params(**{name: object()})
        with pytest.raises((ValueError, TypeError), match=f"'{name}'"):
            wrong.fit(a, b, *DATA)
