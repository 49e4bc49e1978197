"""Base calls of what takes models: averages, merges, aligners, scores, features, symmetry."""

from __future__ import annotations

import numpy as np

import sklmc
from sklmc import connectivity, features, merging, symmetry
from tests.hostile.calls import add, add_methods, nothing

FITS = ("fit", "fit_transform")


def pair(w):
    return {"model_a": w.a, "model_b": w.b, "X": w.X}


def labelled(w):
    return pair(w) | {"y": w.y}


def group(w):
    return {"models": w.nets, "X": w.X, "y": w.y}


# -- averages and merges -------------------------------------------------------------------

add(
    "sklmc.average_models",
    sklmc.average_models,
    lambda w: {"models": w.nets},
    may_pass={"models": {"a list of one", "other input", "too many", "the same twice"}},
)
add(
    "sklmc.interpolate_models",
    sklmc.interpolate_models,
    lambda w: {"model_a": w.a, "model_b": w.b, "alpha": 0.5},
    may_pass={"alpha": {"zero"}},
)
add(
    "sklmc.merge_models",
    sklmc.merge_models,
    group,
    may_pass={"models": {"a list of one", "too many"}, "repair": {"None"}},
)
add(
    "sklmc.repair",
    merging.repair,
    lambda w: {"model": w.a, "models": w.nets, "X": w.X},
    may_pass={"X": {"fewer rows"}, "models": {"a list of one", "too many"}},
)
add(
    "sklmc.select_output",
    sklmc.select_output,
    lambda w: {"model": w.a, "field": "logits"},
    field="text",
    may_pass={
        "model": {"another architecture", "nan weights", "no values", "lazy"},
        "field": {"a number", "no such name"},
    },
)

# -- alignment ------------------------------------------------------------------------------


def align(**options):
    return lambda model_a, model_b, X=None, y=None: sklmc.PermutationAligner(**options).fit(
        model_a, model_b, X, y
    )


def read_again(w):
    """Return a symmetry that was read from a dict: it has no samples of its own."""
    return symmetry.PermutationSymmetry.from_dict(w.symmetry.to_dict())


def fitted_multi(w):
    return sklmc.MultiAligner(random_state=0).fit(w.nets)


def fitted_aligner(w):
    return sklmc.PermutationAligner().fit(w.a, w.b)


def straight_through(w):
    return sklmc.PermutationAligner("straight_through", max_iter=2, random_state=0)


add(
    "sklmc.PermutationAligner",
    lambda world, **options: align(**options)(world.a, world.b, world.X, world.y),
    lambda w: {"world": w},
    signature=sklmc.PermutationAligner,
    symmetry="result",
    init="arrays",
    method="callable",
    may_pass={"freeze": {"no layers"}},
)
add_methods(sklmc.PermutationAligner, straight_through, dict.fromkeys(FITS, labelled))
add_methods(
    sklmc.PermutationAligner,
    fitted_aligner,
    dict.fromkeys(["transform", "inverse_transform"], lambda w: {"model": w.b}),
    may_pass={"model": {"nan weights"}},
)
add(
    "sklmc.MultiAligner",
    lambda world, **options: sklmc.MultiAligner(**{"random_state": 0} | options).fit(world.nets),
    lambda w: {"world": w},
    signature=sklmc.MultiAligner,
    may_pass={"reference": {"zero"}},
)
add_methods(
    sklmc.MultiAligner,
    lambda w: sklmc.MultiAligner("reference", aligner=straight_through(w).set_params(max_iter=1)),
    dict.fromkeys(FITS, group),
    may_pass={"models": {"too many"}},
)
add_methods(
    sklmc.MultiAligner,
    fitted_multi,
    dict.fromkeys(["transform", "inverse_transform", "compare"], lambda w: {"models": w.nets}),
    may_pass={"models": {"nan weights"}},
)

# -- paths ----------------------------------------------------------------------------------


def short_scorer(w):
    return sklmc.LMCScorer(n_alphas=3)


add(
    "sklmc.LMCScorer",
    lambda world, **options: sklmc.LMCScorer(**{"n_alphas": 3} | options).grid(
        world.grid, world.X, world.y
    ),
    lambda w: {"world": w},
    signature=sklmc.LMCScorer,
    may_pass={"error_score": {"a number", "nan"}, "cache_dir": {"no such file", "a folder"}},
)
add_methods(sklmc.LMCScorer, short_scorer, {"path": labelled}, may_pass={"model_a": {"a Pipeline"}})
add_methods(sklmc.LMCScorer, short_scorer, {"pairwise": group}, may_pass={"models": {"too many"}})
add_methods(
    sklmc.LMCScorer,
    short_scorer,
    {"grid": lambda w: {"model_grid": w.grid, "X": w.X, "y": w.y}},
    model_grid="result",
)
add(
    "sklmc.loss_plane",
    connectivity.loss_plane,
    lambda w: group(w) | {"n_points": 2},
    may_pass={"margin": {"zero", "two"}, "repair": {"None"}},
)
add(
    "sklmc.connectivity.path_controls",
    connectivity.path_controls,
    lambda w: labelled(w) | {"n_repeats": 1, "scorer": short_scorer(w), "random_state": 0},
)
curves = {
    "alphas": "curve",
    "loss": "curve",
    "error": "curve",
    "calibrated_loss": "curve",
    "inverse_temperature": "curve",
}
add(
    "sklmc.PathScore",
    lambda **arguments: (lambda s: (s.barrier, s.to_frame()))(sklmc.PathScore(**arguments)),
    lambda w: {"alphas": w.path.alphas, "loss": w.path.loss, "error": w.path.error},
    signature=sklmc.PathScore,
    **curves,
)
add_methods(
    sklmc.PathScore,
    lambda w: w.path,
    dict.fromkeys(["values", "barrier_for", "midpoint", "to_frame"], nothing)
    | {"is_connected": lambda w: {"epsilon": 0.1}},
    may_pass={"epsilon": {"zero", "two", "inf", "1e300"}},
)
add(
    "sklmc.PairwiseScore",
    lambda **arguments: (lambda s: (s.barrier, s.to_frame()))(sklmc.PairwiseScore(**arguments)),
    lambda w: {
        "n_models": 3,
        "alphas": w.pairs.alphas,
        "loss": w.pairs.loss,
        "error": w.pairs.error,
    },
    signature=sklmc.PairwiseScore,
    n_models="count",
    failures="result",
    error_score="real",
    **curves,
    may_pass={
        "failures": {"a dict"},
        "error_score": {"nan", "negative", "inf", "1e300", "zero", "two"},
    },
)
few = {"n_resamples": 20, "random_state": 0}
add_methods(
    sklmc.PairwiseScore,
    lambda w: w.pairs,
    dict.fromkeys(["barrier_for", "midpoints", "cluster", "to_frame"], nothing)
    | {
        "path": lambda w: {"i": 0, "j": 1},
        "interval": lambda w: few,
        "compare": lambda w: few | {"other": w.pairs},
    },
    may_pass={"i": {"zero"}, "j": {"zero", "a boolean"}, "n_resamples": set()},
)
add(
    "sklmc.connectivity.ModelClusters",
    lambda **arguments: connectivity.ModelClusters(**arguments).labels(0.5),
    lambda w: {"linkage": w.clusters.linkage, "matrix": w.clusters.matrix},
    signature=connectivity.ModelClusters,
    linkage="matrix",
)
add_methods(
    connectivity.ModelClusters,
    lambda w: w.clusters,
    {"labels": lambda w: {"height": 0.5}},
    may_pass={"height": {"zero", "two", "1e300", "inf", "negative"}},
)
add_methods(connectivity.LossPlane, lambda w: w.plane, {"to_frame": nothing})

# -- features -------------------------------------------------------------------------------

for name in (
    "commutativity",
    "layerwise_exponential_connectivity",
    "weak_additivity",
    "layerwise_linear_connectivity",
    "reciprocal_orthogonality",
    "variance_ratio",
):
    add(f"sklmc.features.{name}", getattr(features, name), pair, may_pass={"X": {"fewer rows"}})
add("sklmc.explain_barrier", sklmc.explain_barrier, labelled)
for name in ("error_bound", "inverse_temperatures"):
    add(f"sklmc.features.{name}", getattr(features, name), labelled)
add(
    "sklmc.features.feature_similarity",
    features.feature_similarity,
    lambda w: pair(w) | {"on": "activation"},
    may_pass={"X": {"fewer rows"}},
)
add(
    "sklmc.features.linear_regions",
    features.linear_regions,
    lambda w: {"model": w.a, "bounds": ((-1.0, 1.0), (-1.0, 1.0))},
    may_pass={"model": {"another architecture"}},
)
add_methods(features.LinearRegions, lambda w: w.regions, {"to_frame": nothing})
add_methods(
    features.BarrierReport,
    lambda w: features.explain_barrier(**labelled(w)),
    {"to_frame": nothing},
)
add(
    "sklmc.features.preactivation_scale",
    features.preactivation_scale,
    lambda w: {"model": w.a, "X": w.X},
    may_pass={"X": {"fewer rows"}, "model": {"another architecture"}},
)
add(
    "sklmc.features.stable_rank",
    features.stable_rank,
    lambda w: {"model": w.a},
    may_pass={"model": {"another architecture"}},
)
add(
    "sklmc.features.stitch_models",
    features.stitch_models,
    lambda w: pair(w) | {"layer": "layers.0"},
    may_pass={"X": {"fewer rows"}},
)
add(
    "sklmc.features.RedundancyReducer",
    lambda world, **options: features.RedundancyReducer(**options).fit(world.a),
    lambda w: {"world": w},
    signature=features.RedundancyReducer,
    may_pass={"tol": {"zero", "two"}},
)
add_methods(
    features.RedundancyReducer,
    lambda w: features.RedundancyReducer(),
    dict.fromkeys(FITS, lambda w: {"model": w.a, "X": w.X}),
    may_pass={"model": {"another architecture"}, "X": {"fewer rows"}},
)
add_methods(
    features.RedundancyReducer,
    lambda w: features.RedundancyReducer().fit(w.a),
    {"transform": lambda w: {"model": w.a}},
)

# -- files ----------------------------------------------------------------------------------

add(
    "sklmc.save_model",
    sklmc.save_model,
    lambda w: {"model": w.a, "path": w.folder / "another.safetensors"},
    may_pass={"model": {"another architecture", "nan weights", "an ensemble"}},
)
add("sklmc.load_model", sklmc.load_model, lambda w: {"path": w.saved_model}, module="text")

# -- symmetry -------------------------------------------------------------------------------

add(
    "sklmc.discover_symmetry",
    symmetry.discover_symmetry,
    lambda w: {"model": w.a, "X": w.X},
    may_pass={"model": {"another architecture", "nan weights"}, "X": {"fewer rows"}},
)
add(
    "sklmc.symmetry.register_rule",
    lambda names: symmetry.register_rule(names),
    lambda w: {"names": "hostile_operation"},
    names="text",
    may_pass={"names": {"no such name"}},
)
add(
    "sklmc.Permutation",
    sklmc.Permutation,
    lambda w: {"arrays": dict(w.permutation), "groups": w.symmetry.groups},
    groups="result",
    record="result",
    may_pass={"groups": {"an empty list"}, "record": {"a dict"}},
)
add_methods(
    sklmc.Permutation,
    lambda w: w.permutation,
    {
        "compose": lambda w: {"other": w.permutation},
        "inverse": nothing,
        "save": lambda w: {"path": w.folder / "again.safetensors"},
        "load": lambda w: {"path": w.saved},
    },
)
strangers = {"record": {"a dict"}, "X": {"fewer rows"}, "model": {"nan weights"}}
unnamed = dict.fromkeys(["state", "spec", "record"], "result")
add_methods(
    symmetry.PermutationSymmetry,
    read_again,
    {
        **dict.fromkeys(["identity", "random_permutation", "to_dict", "to_axes_to_perm"], nothing),
        "to_frame": nothing,
        "group": lambda w: {"name": w.group.name},
        "permutation": lambda w: {"arrays": dict(w.permutation)},
        "apply": lambda w: {"model": w.a, "permutation": w.permutation},
        "apply_state": lambda w: {
            "state": dict(w.a.state_dict()),
            "permutation": w.permutation,
        },
        "check": lambda w: {"model": w.a},
        "verify": lambda w: {"model": w.a},
        "from_dict": lambda w: {"spec": w.symmetry.to_dict()},
    },
    may_pass=strangers,
    **unnamed,
)
add_methods(
    symmetry.PermutationSymmetry,
    read_again,
    {"from_axes_to_perm": lambda w: {"spec": w.symmetry.to_axes_to_perm(), "model": w.a}},
    may_pass=strangers | {"model": {"nan weights", "another architecture"}},
    **unnamed,
)
add_methods(
    symmetry.PermutationGroup,
    lambda w: w.group,
    {
        "identity": nothing,
        "draw": lambda w: {"random_state": np.random.RandomState(0)},
        "check": lambda w: {"perm": w.permutation[w.group.name]},
    },
    perm="curve",
)
