"""Base calls of Displays, which draw numbers, and of what makes them."""

from __future__ import annotations

import inspect

import numpy as np
import pandas as pd

import sklmc
from sklmc.features import feature_similarity, layerwise_linear_connectivity, preactivation_scale
from tests.hostile.calls import add


def group(w):
    return {"models": w.nets, "X": w.X, "y": w.y}


def two(w):
    return {"models": [w.a, w.b], "X": w.X}


def quick(w):
    return {"scorer": sklmc.LMCScorer(n_alphas=3)}


def linear(w):
    return layerwise_linear_connectivity(w.a, w.b, w.X)


def scales(w):
    return preactivation_scale(w.a, w.X)


def widths(w):
    return pd.DataFrame({"width": [2, 2, 4], "barrier": [0.3, 0.2, 0.1], "by": ["a", "a", "a"]})


CV_RESULTS = {
    "param_width": [2, 4],
    "mean_test_neg_barrier": np.array([-0.3, -0.1]),
    "std_test_neg_barrier": np.zeros(2),
}
ENTRIES = {  # display -> (classmethod that makes it, its arguments)
    "BarrierMatrixDisplay": ("from_scores", lambda w: {"scores": w.pairs}),
    "ClusterDisplay": ("from_scores", lambda w: {"scores": w.pairs}),
    "DecisionRegionDisplay": (
        "from_model",
        lambda w: {"model": w.a, "bounds": ((-1, 1), (-1, 1)), "X": w.X, "y": w.y, "n_points": 5},
    ),
    "FeatureConnectivityDisplay": ("from_frame", lambda w: {"frame": linear(w)}),
    "FeatureSimilarityDisplay": ("from_models", lambda w: two(w) | {"on": "activation"}),
    "LossPlaneDisplay": ("from_scores", lambda w: {"scores": w.plane}),
    "PathDisplay": ("from_scores", lambda w: {"scores": w.path}),
    "PreactivationDisplay": ("from_frame", lambda w: {"frame": scales(w)}),
    "SymmetryDisplay": ("from_scores", lambda w: {"scores": w.symmetry}),
    "WidthCurveDisplay": ("from_frame", lambda w: {"frame": widths(w), "y": "barrier"}),
}
OTHER_ENTRIES = {
    "BarrierMatrixDisplay.from_models": lambda w: group(w) | quick(w),
    "ClusterDisplay.from_models": lambda w: group(w) | quick(w),
    "FeatureConnectivityDisplay.from_models": two,
    "FeatureSimilarityDisplay.from_frame": lambda w: {"frame": feature_similarity(w.a)},
    "FeatureSimilarityDisplay.from_model": lambda w: {"model": w.a, "X": w.X, "on": "activation"},
    "LossPlaneDisplay.from_models": lambda w: group(w) | {"n_points": 2},
    "PathDisplay.from_models": lambda w: two(w) | {"y": w.y} | quick(w),
    "PreactivationDisplay.from_model": lambda w: {"model": w.a, "X": w.X},
    "PreactivationDisplay.from_models": two,
    "SymmetryDisplay.from_model": lambda w: {"model": w.a},
    "WidthCurveDisplay.from_scores": lambda w: {"scores": CV_RESULTS},
}
KINDS = {
    "BarrierMatrixDisplay": {"labels": "labels", "name": "text", "quantity": "option"},
    "ClusterDisplay": {
        "clusters": "result",
        "vmax": "real",
        "name": "text",
        "labels": "labels",
        "quantity": "option",
    },
    "DecisionRegionDisplay": {
        "x0": "curve",
        "x1": "curve",
        "scores": "curve",
        "classes": "labels",
        "regions": "result",
        "X": "matrix",
        "y": "labels",
    },
    "FeatureConnectivityDisplay": {"frames": "table"},
    "FeatureSimilarityDisplay": {"ends": "labels"},
    "LossPlaneDisplay": {"labels": "labels", "n_levels": "count"},
    "PathDisplay": {"alphas": "curve", "curves": "table", "ends": "labels"},
    "PreactivationDisplay": {},
    "SymmetryDisplay": {"tensors": "labels", "groups": "labels", "places": "table"},
    "WidthCurveDisplay": {
        "x": "curve",
        "curves": "table",
        "y": "text",
        "by": "text",
    },
}
MAY_PASS = {
    **{key: {"no such name"} for key in ("name", "x_name", "y_name", "label")},
    **{key: {"zero", "two", "negative"} for key in ("vmax", "color_threshold")},
    "models": {"too many", "a dict"},
    "model": {"another architecture", "nan weights"},
    "X": {"fewer rows", "1e300"},
    "groups": {"too few", "too many"},
    "tensors": {"too few", "too many"},
}
ALONE = {"models": MAY_PASS["models"] | {"a list of one", "another architecture"}}


def held(cls, entry, arguments):
    """Return what a display holds: the arguments of its constructor."""
    return dict(vars(getattr(cls, entry)(**arguments)))


def taken(cls, entry):
    """Return the kinds of those parameters that a callable has."""
    names = inspect.signature(getattr(cls, entry) if entry else cls).parameters
    kinds = {n: k for n, k in KINDS[cls.__name__].items() if n in names}
    if entry and entry.startswith("from_"):
        for name, kind in {
            "X": "data",
            "y": "target",
            "scores": "result",
            "models": "models",
            "regions": "flag",
            "frames": "table",
        }.items():
            if name in names and not (cls.__name__ == "WidthCurveDisplay" and name == "y"):
                kinds[name] = kind
        if cls.__name__ == "WidthCurveDisplay":
            kinds.update({n: "text" for n in ("x", "y", "by", "quantity") if n in names})
            kinds |= {"scores": "table"} if "scores" in names else {}
    return kinds


for display, (entry, base) in ENTRIES.items():
    cls = getattr(sklmc, display)
    add(
        f"sklmc.{display}.{entry}",
        lambda kind=cls, made_by=entry, **arguments: getattr(kind, made_by)(**arguments),
        base,
        signature=getattr(cls, entry),
        may_pass=MAY_PASS,
        **taken(cls, entry),
    )
    add(
        f"sklmc.{display}.plot",
        lambda world, kind=cls, made_by=entry, given=base, **arguments: getattr(kind, made_by)(
            **given(world)
        ).plot(**arguments),
        lambda w: {"world": w},
        signature=cls.plot,
        may_pass=MAY_PASS,
        **taken(cls, "plot"),
    )
    add(
        f"sklmc.{display}",
        lambda kind=cls, **arguments: kind(**arguments).plot(),
        lambda w, kind=cls, made_by=entry, given=base: held(kind, made_by, given(w)),
        signature=cls,
        may_pass=MAY_PASS,
        **taken(cls, ""),
    )
for path, base in OTHER_ENTRIES.items():
    display, entry = path.split(".")
    cls = getattr(sklmc, display)
    add(
        f"sklmc.{path}",
        lambda kind=cls, made_by=entry, **arguments: getattr(kind, made_by)(**arguments),
        base,
        signature=getattr(cls, entry),
        may_pass=MAY_PASS | (ALONE if display == "PreactivationDisplay" else {}),
        keywords=display in ("FeatureConnectivityDisplay", "LossPlaneDisplay"),
        **taken(cls, entry),
    )
