"""Base calls of what makes one net of fitted ones, and of what looks at grids and curves."""

from __future__ import annotations

import sklmc
from sklmc import connectivity, features
from tests.hostile.calls import add
from tests.hostile.calls_estimators import fitted


def merger(w, **options):
    return sklmc.EnsembleMerger(**{"estimators": w.nets, "random_state": 0} | options)


add(
    "sklmc.EnsembleMerger",
    lambda world, **options: merger(world, **options).fit(world.X, world.y),
    lambda w: {"world": w},
    signature=sklmc.EnsembleMerger,
    estimators="models",
    scoring="callable",
    polish="option",
    keep="option",
    may_pass={
        "estimators": {"a list of one", "too many", "the same twice"},
        "repair": {"None"},
        "validation_fraction": {"None"},
        "polish": {"None"},
        "scoring": {"None"},
    },
)
METHODS = {  # their arguments beside X, and what users see of them
    "fit": (("y",), sklmc.EnsembleMerger.fit),
    "predict": ((), sklmc.EnsembleMerger.predict),
    "predict_proba": ((), lambda X: None),
    "score": (("y",), lambda X, y: None),
}
for name, (more, signature) in METHODS.items():

    def run(world, name=name, **arguments):
        made = merger(world, estimators=fitted(sklmc.DeepEnsemble, world), aligner="weight")
        made = made if name == "fit" else made.fit(world.X, world.y)
        return getattr(made, name)(**arguments)

    add(
        f"sklmc.EnsembleMerger.{name}",
        run,
        lambda w, more=more: {"world": w, "X": w.X, **{key: getattr(w, key) for key in more}},
        signature=signature,
        may_pass={"X": {"fewer rows"}, "y": {"None"}},
    )
add(
    "sklmc.connectivity.fit_curve",
    connectivity.fit_curve,
    lambda w: {
        "model_a": w.a, "model_b": w.b, "X": w.X, "y": w.y,
        "n_epochs": 1, "n_alphas": 3, "random_state": 0,
    },
    may_pass={"lr": {"zero", "two"}, "repair": {"None"}},
)  # fmt: skip
add(
    "sklmc.features.measure_grid",
    lambda measure, model_grid, X, y=None, **options: features.measure_grid(
        measure, model_grid, X, y, **options
    ),
    lambda w: {
        "measure": features.error_bound, "model_grid": w.grid, "X": w.X, "y": w.y, "alphas": 0.5,
    },
    signature=features.measure_grid,
    measure="callable",
    model_grid="result",
    max_pairs="count",
    may_pass={"max_pairs": {"None", "zero"}, "X": {"fewer rows"}},
)  # fmt: skip
