"""Base calls of what takes models: averages, merges, aligners, scores, features, symmetry."""

from __future__ import annotations

import numpy as np

import sklmc
from sklmc import connectivity, features, merging, symmetry
from tests.hostile.calls import add

SCORE_ARGUMENTS = {"is_connected": {"epsilon": 0.1}}


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

# -- alignment ------------------------------------------------------------------------------


def align(**options):
    return lambda model_a, model_b, X=None, y=None: sklmc.PermutationAligner(**options).fit(
        model_a, model_b, X, y
    )


def read_again(w):
    """Return a symmetry that was read from a dict: it has no samples of its own."""
    return symmetry.PermutationSymmetry.from_dict(w.symmetry.to_dict())


def multi(w):
    return sklmc.MultiAligner(random_state=0).fit(w.nets)


def fitted_aligner(w):
    return sklmc.PermutationAligner().fit(w.a, w.b)


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
for name in ("fit", "fit_transform"):
    add(
        f"sklmc.PermutationAligner.{name}",
        lambda method=name, **arguments: getattr(
            sklmc.PermutationAligner("straight_through", max_iter=2, random_state=0), method
        )(**arguments),
        labelled,
        signature=getattr(sklmc.PermutationAligner, name),
    )
for name in ("transform", "inverse_transform"):
    add(
        f"sklmc.PermutationAligner.{name}",
        lambda world, method=name, **arguments: getattr(fitted_aligner(world), method)(**arguments),
        lambda w: {"world": w, "model": w.b},
        signature=getattr(sklmc.PermutationAligner, name),
        may_pass={"model": {"nan weights"}},
    )
add(
    "sklmc.MultiAligner",
    lambda world, **options: sklmc.MultiAligner(**{"random_state": 0} | options).fit(world.nets),
    lambda w: {"world": w},
    signature=sklmc.MultiAligner,
    may_pass={"reference": {"zero"}},
)
for name in ("fit", "fit_transform"):
    add(
        f"sklmc.MultiAligner.{name}",
        lambda method=name, **arguments: getattr(
            sklmc.MultiAligner(
                "reference",
                aligner=sklmc.PermutationAligner("straight_through", max_iter=1, random_state=0),
            ),
            method,
        )(**arguments),
        group,
        signature=getattr(sklmc.MultiAligner, name),
        may_pass={"models": {"too many"}},
    )
for name in ("transform", "inverse_transform", "compare"):
    add(
        f"sklmc.MultiAligner.{name}",
        lambda world, method=name, **arguments: getattr(multi(world), method)(**arguments),
        lambda w: {"world": w, "models": w.nets},
        signature=getattr(sklmc.MultiAligner, name),
        may_pass={"models": {"nan weights"}},
    )

# -- paths ----------------------------------------------------------------------------------

add(
    "sklmc.LMCScorer",
    lambda world, **options: sklmc.LMCScorer(**{"n_alphas": 3} | options).grid(
        world.grid, world.X, world.y
    ),
    lambda w: {"world": w},
    signature=sklmc.LMCScorer,
    may_pass={"error_score": {"a number", "nan"}, "cache_dir": {"no such file", "a folder"}},
)
add(
    "sklmc.LMCScorer.path",
    lambda **arguments: sklmc.LMCScorer(n_alphas=3).path(**arguments),
    labelled,
    signature=sklmc.LMCScorer.path,
    may_pass={"model_a": {"a Pipeline"}},
)
add(
    "sklmc.LMCScorer.pairwise",
    lambda **arguments: sklmc.LMCScorer(n_alphas=3).pairwise(**arguments),
    group,
    signature=sklmc.LMCScorer.pairwise,
    may_pass={"models": {"too many"}},
)
add(
    "sklmc.LMCScorer.grid",
    lambda **arguments: sklmc.LMCScorer(n_alphas=3).grid(**arguments),
    lambda w: {"model_grid": w.grid, "X": w.X, "y": w.y},
    signature=sklmc.LMCScorer.grid,
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
    lambda w: (
        labelled(w) | {"n_repeats": 1, "scorer": sklmc.LMCScorer(n_alphas=3), "random_state": 0}
    ),
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
for name in ("values", "barrier_for", "midpoint", "is_connected", "to_frame"):
    add(
        f"sklmc.PathScore.{name}",
        lambda world, method=name, **arguments: getattr(world.path, method)(**arguments),
        lambda w, method=name: (
            {"world": w} | ({"epsilon": 0.1} if method == "is_connected" else {})
        ),
        signature=getattr(sklmc.PathScore, name),
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
for name, base in {
    "barrier_for": {},
    "midpoints": {},
    "path": {"i": 0, "j": 1},
    "interval": {"n_resamples": 20, "random_state": 0},
    "compare": {"n_resamples": 20, "random_state": 0},
    "cluster": {},
    "to_frame": {},
}.items():
    add(
        f"sklmc.PairwiseScore.{name}",
        lambda world, method=name, **arguments: getattr(world.pairs, method)(**arguments),
        lambda w, method=name, given=base: (
            {"world": w} | given | ({"other": w.pairs} if method == "compare" else {})
        ),
        signature=getattr(sklmc.PairwiseScore, name),
        may_pass={"i": {"zero"}, "j": {"zero", "a boolean"}, "n_resamples": set()},
    )
add(
    "sklmc.connectivity.ModelClusters",
    lambda **arguments: connectivity.ModelClusters(**arguments).labels(0.5),
    lambda w: {"linkage": w.clusters.linkage, "matrix": w.clusters.matrix},
    signature=connectivity.ModelClusters,
    linkage="matrix",
)
add(
    "sklmc.connectivity.ModelClusters.labels",
    lambda world, **arguments: world.clusters.labels(**arguments),
    lambda w: {"world": w, "height": 0.5},
    signature=connectivity.ModelClusters.labels,
    may_pass={"height": {"zero", "two", "1e300", "inf", "negative"}},
)
add(
    "sklmc.connectivity.LossPlane.to_frame",
    lambda world, **arguments: world.plane.to_frame(**arguments),
    lambda w: {"world": w},
    signature=connectivity.LossPlane.to_frame,
)

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
add(
    "sklmc.features.LinearRegions.to_frame",
    lambda world, **arguments: world.regions.to_frame(**arguments),
    lambda w: {"world": w},
    signature=features.LinearRegions.to_frame,
)
add(
    "sklmc.features.BarrierReport.to_frame",
    lambda world, **arguments: features.explain_barrier(**labelled(world)).to_frame(**arguments),
    lambda w: {"world": w},
    signature=features.BarrierReport.to_frame,
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
for name in ("fit", "fit_transform"):
    add(
        f"sklmc.features.RedundancyReducer.{name}",
        lambda method=name, **arguments: getattr(features.RedundancyReducer(), method)(**arguments),
        lambda w: {"model": w.a, "X": w.X},
        signature=getattr(features.RedundancyReducer, name),
        may_pass={"model": {"another architecture"}, "X": {"fewer rows"}},
    )
add(
    "sklmc.features.RedundancyReducer.transform",
    lambda world, **arguments: features.RedundancyReducer().fit(world.a).transform(**arguments),
    lambda w: {"world": w, "model": w.a},
    signature=features.RedundancyReducer.transform,
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
for name in ("compose", "inverse", "save", "load"):
    add(
        f"sklmc.Permutation.{name}",
        lambda world, method=name, **arguments: getattr(world.permutation, method)(**arguments),
        lambda w, method=name: (
            {"world": w}
            | {
                "compose": {"other": w.permutation},
                "inverse": {},
                "save": {"path": w.folder / "again.safetensors"},
                "load": {"path": w.saved},
            }[method]
        ),
        signature=getattr(sklmc.Permutation, name),
    )
for name in (
    "group",
    "identity",
    "permutation",
    "random_permutation",
    "apply",
    "apply_state",
    "check",
    "verify",
    "to_dict",
    "from_dict",
    "to_axes_to_perm",
    "from_axes_to_perm",
    "to_frame",
):
    add(
        f"sklmc.symmetry.PermutationSymmetry.{name}",
        lambda world, method=name, **arguments: getattr(read_again(world), method)(**arguments),
        lambda w, method=name: (
            {"world": w}
            | {
                "group": {"name": w.group.name},
                "permutation": {"arrays": dict(w.permutation)},
                "apply": {"model": w.a, "permutation": w.permutation},
                "apply_state": {"state": dict(w.a.state_dict()), "permutation": w.permutation},
                "check": {"model": w.a},
                "verify": {"model": w.a},
                "from_dict": {"spec": w.symmetry.to_dict()},
                "from_axes_to_perm": {"spec": w.symmetry.to_axes_to_perm(), "model": w.a},
            }.get(method, {})
        ),
        signature=getattr(symmetry.PermutationSymmetry, name),
        state="result",
        spec="result",
        record="result",
        may_pass={
            "record": {"a dict"},
            "X": {"fewer rows"},
            "model": {"nan weights"}
            | ({"another architecture"} if name == "from_axes_to_perm" else set()),
        },
    )
for name in ("identity", "draw", "check"):
    add(
        f"sklmc.symmetry.PermutationGroup.{name}",
        lambda world, method=name, **arguments: getattr(world.group, method)(**arguments),
        lambda w, method=name: (
            {"world": w}
            | {
                "draw": {"random_state": np.random.RandomState(0)},
                "check": {"perm": w.permutation[w.group.name]},
            }.get(method, {})
        ),
        signature=getattr(symmetry.PermutationGroup, name),
        perm="curve",
    )
