import joblib
import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from sklmc import MultiAligner, PermutationAligner
from sklmc.exceptions import ArchitectureMismatchError, NonFiniteError
from sklmc.nets import MLP
from sklmc.symmetry import discover_symmetry

METHODS = ("merge_many", "reference")


def nets(n, width=10, **arguments):
    options = {"n_features": 6, "n_outputs": 3, "width": width, "depth": 2}
    with torch.random.fork_rng():
        made = []
        for seed in range(n):
            torch.manual_seed(seed)
            made.append(MLP(**options | arguments))
    return made


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


@pytest.mark.parametrize("norm", [None, "layer", "batch"])
@pytest.mark.parametrize("method", METHODS)
def test_planted_copies_come_back_to_the_reference(method, norm):
    """Nothing to gain: merge_many leaves the reference's frame as it is."""
    a = nets(1, norm=norm)[0]
    symmetry = discover_symmetry(a)
    copies = [a, *(symmetry.apply(a, symmetry.random_permutation(s)) for s in range(4))]
    aligned = MultiAligner(method, random_state=0).fit_transform(copies)
    assert all(same(model, a) for model in aligned)


@pytest.mark.parametrize("method", METHODS)
def test_round_trip_over_any_cycle_is_the_identity(method):
    models = nets(4)
    p = MultiAligner(method, random_state=0).fit(models).permutations_

    def step(i, j):
        return p[i].inverse().compose(p[j])

    cycle = step(0, 2).compose(step(2, 3)).compose(step(3, 1)).compose(step(1, 0))
    assert cycle.n_moved == 0


def test_reference_is_the_pairwise_alignment_to_one_model():
    models = nets(4)
    aligner = MultiAligner("reference", reference=2).fit(models)
    assert aligner.permutations_[2].n_moved == 0
    for index in (0, 1, 3):
        alone = PermutationAligner().fit(models[2], models[index])
        assert aligner.permutations_[index] == alone.permutation_
    assert aligner.n_iter_ == 0


def test_merge_many_is_never_farther_apart_than_its_start():
    for seed in range(5):
        models = nets(6)[seed % 2 :]
        start = MultiAligner("reference").fit(models)
        many = MultiAligner(random_state=seed).fit(models)
        assert many.objective_path_[0] == pytest.approx(start.objective_)
        assert (np.diff(many.objective_path_) > 0).all()
        assert many.objective_ > start.objective_


def test_merge_many_ends_where_no_model_gains_by_moving():
    models = nets(5)
    aligner = MultiAligner(random_state=0).fit(models)
    aligned = aligner.transform(models)
    states = [model.state_dict() for model in aligned]
    for index in range(5):
        others = MLP(n_features=6, n_outputs=3, width=10, depth=2)
        rest = [state for i, state in enumerate(states) if i != index]
        others.load_state_dict({n: sum(s[n] for s in rest) / 4 for n in states[0]})
        # from its place, without the one-sided start that may find another optimum
        local = PermutationAligner(_stay).fit(others, aligned[index])
        assert local.permutation_.n_moved == 0


def _stay(model_a, model_b, symmetry, X, y):
    from sklmc.alignment._weight import match_weights

    result = match_weights(
        model_a.state_dict(),
        model_b.state_dict(),
        symmetry,
        one_sided=False,
    )
    return result.perms


def test_objective_is_the_mean_inner_product_of_pairs():
    models = nets(3)
    aligner = MultiAligner(random_state=0).fit(models)
    frame = aligner.compare(models)
    assert frame["common"].mean() == pytest.approx(aligner.objective_)
    assert list(zip(frame["model_a"], frame["model_b"])) == [(0, 1), (0, 2), (1, 2)]
    assert (frame["pairwise"] >= frame["identity"]).all()
    moved = aligner.transform(models)
    skipped = ("layers.4.bias",)  # no group moves the last bias
    truth = sum(
        (p * q).sum().item()
        for (name, p), q in zip(moved[0].named_parameters(), moved[1].parameters())
        if name not in skipped
    )
    assert frame["common"][0] == pytest.approx(truth, rel=1e-5)


def test_pairs_of_planted_copies_are_matched_in_full():
    """Weights between two groups are so large that a descent from the identity is led astray."""
    a = nets(1)[0]
    with torch.no_grad():
        a.layers[2].weight *= 10
    symmetry = discover_symmetry(a)
    copies = [symmetry.apply(a, symmetry.random_permutation(seed)) for seed in range(3)]
    frame = MultiAligner("reference").fit(copies).compare(copies)
    whole = sum(float(t.square().sum()) for n, t in a.state_dict().items() if n != "layers.4.bias")
    assert frame["pairwise"].tolist() == pytest.approx([whole] * 3, rel=1e-5)
    assert frame["common"].tolist() == pytest.approx([whole] * 3, rel=1e-5)
    assert (frame["identity"] < whole / 2).all()


def test_compared_models_are_checked():
    models = nets(3)
    aligner = MultiAligner("reference").fit(models)
    with torch.no_grad():
        models[1].layers[0].weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"models\[1\]"):
        aligner.compare(models)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_shown_unless_asked_for(method, capsys):
    MultiAligner(method, random_state=0).fit(nets(2))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("method", METHODS)
def test_inverse_undoes_transform_and_inputs_stay(method):
    models = nets(3, norm="batch")
    before = [{n: t.clone() for n, t in m.state_dict().items()} for m in models]
    aligner = MultiAligner(method, random_state=0).fit(models)
    back = aligner.inverse_transform(aligner.transform(models))
    assert all(same(a, b) for a, b in zip(back, models))
    for model, state in zip(models, before):
        assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_result_does_not_depend_on_n_jobs(method):
    models = nets(4)
    one = MultiAligner(method, random_state=0).fit(models)
    two = MultiAligner(method, random_state=0, n_jobs=2).fit(models)
    assert one.permutations_ == two.permutations_


def test_frozen_groups_of_the_aligner_stay():
    models = nets(3)
    name = discover_symmetry(models[0]).groups[0].name
    fit = MultiAligner(aligner=PermutationAligner(freeze=[name]), random_state=0).fit(models)
    for permutation in fit.permutations_:
        assert list(permutation[name]) == list(range(10))


def test_reference_takes_any_method_of_the_aligner():
    models = nets(3)
    X = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    aligner = PermutationAligner("activation")
    fit = MultiAligner("reference", aligner=aligner).fit(models, X)
    assert fit.permutations_[1] == PermutationAligner("activation").fit(*models[:2], X).permutation_


def test_aligner_by_name_is_that_method():
    models = nets(3)
    X = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    named = MultiAligner("reference", aligner="activation").fit(models, X)
    given = MultiAligner("reference", aligner=PermutationAligner("activation")).fit(models, X)
    assert named.permutations_ == given.permutations_


def test_without_an_aligner_models_start_as_they_are():
    models = nets(4)
    still = MultiAligner("reference", aligner=None).fit(models)
    assert all(permutation.n_moved == 0 for permutation in still.permutations_)
    many = MultiAligner(aligner=None, random_state=0).fit(models)
    assert many.objective_path_[0] == still.objective_
    assert many.objective_ > still.objective_


# -- messages --------------------------------------------------------------------------------


def test_what_cannot_be_aligned_is_refused_in_words():
    models = nets(3)
    with pytest.raises(ValueError, match="'models' must hold at least 2 models, got 1"):
        MultiAligner().fit(models[:1])
    with pytest.raises(TypeError, match="'models' must be a list of models, got MLP"):
        MultiAligner().fit(models[0])
    with pytest.raises(ValueError, match=r"'reference' must be the index of one of the 3 models"):
        MultiAligner(reference=3).fit(models)
    with pytest.raises(ValueError, match="the 'aligner' has method='auto'"):
        MultiAligner(aligner="auto").fit(models)
    with pytest.raises(ValueError, match="has an 'init', which belongs to one pair"):
        MultiAligner(aligner=PermutationAligner(init={})).fit(models)
    with pytest.raises(ArchitectureMismatchError, match=r"'models\[0\]' and 'models\[3\]'"):
        MultiAligner().fit([*models, nets(1, width=7)[0]])
    with torch.no_grad():
        models[1].layers[0].bias[0] = float("inf")
    with pytest.raises(NonFiniteError, match=r"'layers.0.bias' of 'models\[1\]'"):
        MultiAligner().fit(models)


def test_transform_wants_the_models_of_the_fit():
    models = nets(3)
    with pytest.raises(NotFittedError):
        MultiAligner().transform(models)
    with pytest.raises(ValueError, match="must be the 3 models of the fit"):
        MultiAligner("reference").fit(models).transform(models[:2])


@pytest.mark.parametrize(
    "params", [{"method": "universe"}, {"aligner": "wieght"}, {"reference": -1}, {"max_iter": 0}]
)
def test_bad_parameters_are_named(params):
    with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter of MultiAligner"):
        MultiAligner(**params).fit(nets(2))


@pytest.mark.parametrize("backend", ["threading", "multiprocessing", "loky"])
def test_surrounding_backend_does_not_matter(backend):
    """What runs at the same time shares memory: it must not be sent to processes."""
    models = nets(3)
    alone = MultiAligner("reference", aligner=PermutationAligner(n_init=2, random_state=0))
    alone.fit(models)
    with joblib.parallel_config(backend, n_jobs=2):
        inside = MultiAligner("reference", aligner=PermutationAligner(n_init=2, random_state=0))
        inside.fit(models)
    assert inside.permutations_ == alone.permutations_
