"""The table: one valid call of every public callable, and the kind of each of its parameters."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import sklmc
from tests.hostile.values import ALSO_NAMED, KINDS, MAY_PASS

UNKNOWN = "frobnicate"  # a keyword that nothing takes
KIND_OF = {  # what a parameter of this name usually is
    **dict.fromkeys(["a", "b", "model", "model_a", "model_b"], "model"),
    "models": "models",
    "X": "data",
    "y": "target",
    **dict.fromkeys(
        ["max_iter", "n_points", "n_alphas", "n_estimators", "n_init", "n_bins"], "count"
    ),
    **dict.fromkeys(["width", "depth", "n_features", "n_outputs", "n_channels"], "count"),
    **dict.fromkeys(
        ["max_groups", "n_resamples", "n_snapshots", "max_epochs", "n_epochs"], "count"
    ),
    **dict.fromkeys(["start", "max_width", "cycle", "n_repeats", "n_train", "n_test"], "count"),
    **dict.fromkeys(["batch_size", "n_clusters", "i", "j", "reference"], "count"),
    **dict.fromkeys(["alpha", "tol", "margin", "lr", "validation_fraction", "confidence"], "real"),
    **dict.fromkeys(["swa_lr", "factor", "target_barrier", "min_skill", "noise", "decay"], "real"),
    **dict.fromkeys(["width_multiplier", "height", "epsilon", "vmax", "test_size"], "real"),
    **dict.fromkeys(["color_threshold"], "real"),
    "alphas": "alphas",
    "random_state": "seed",
    "n_jobs": "jobs",
    "verbose": "verbose",
    **dict.fromkeys(["method", "metric", "baseline", "linkage", "on", "quantity"], "option"),
    **dict.fromkeys(["measure", "output", "repair", "average", "norm", "init"], "option"),
    **dict.fromkeys(["unit", "target"], "option"),
    **dict.fromkeys(["dtype", "statistic", "calibration", "error_score", "vectorize"], "option"),
    **dict.fromkeys(
        ["verify", "absolute", "shrink", "balance", "lossy", "refine", "regions"], "flag"
    ),
    **dict.fromkeys(
        ["bias", "log_x", "annotate", "calibrate", "update_batch_norm", "warmup"], "flag"
    ),
    **dict.fromkeys(
        ["warm_start", "iterator_train__shuffle", "compile", "return_train_score"], "flag"
    ),
    **dict.fromkeys(["weights", "sample_weight"], "weights"),
    "aligner": "aligner",
    "freeze": "layers",
    "scorer": "scorer",
    "estimator": "estimator",
    "param_grid": "grid",
    **dict.fromkeys(["path", "data_home", "cache_dir"], "path"),
    **dict.fromkeys(["layer", "name", "x_name", "y_name", "param", "param_name", "label"], "text"),
    "layers": "layers",
    "bounds": "bounds",
    "matrix": "matrix",
    "frame": "table",
    "frames": "table",
    "ax": "axes",
    **dict.fromkeys(["line_kw", "band_kw", "image_kw", "mark_kw", "outline_kw"], "keywords"),
    **dict.fromkeys(["surface_kw", "point_kw", "contour_kw"], "keywords"),
    **dict.fromkeys(["score", "scores", "plane", "clusters", "other", "symmetry"], "result"),
    **dict.fromkeys(["permutation", "arrays"], "arrays"),
}


@dataclass
class Call:
    """A public callable with arguments that it takes."""

    path: str
    run: Callable
    signature: Callable
    arguments: Callable[..., dict]  # of the world
    kinds: dict = field(default_factory=dict)
    may_pass: dict = field(default_factory=dict)
    keywords: bool = False  # takes any keyword

    def parameters(self) -> list[str]:
        """Return the names of the parameters that have values of their own."""
        skipped = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        found = inspect.signature(self.signature).parameters.values()
        return [p.name for p in found if p.name not in ("self", "cls") and p.kind not in skipped]

    def kind(self, parameter: str) -> str:
        """Return the kind of a parameter."""
        return self.kinds.get(parameter) or KIND_OF[parameter]

    def cases(self) -> list[tuple[str, str]]:
        """Return (parameter, name of a bad value) for every bad call."""
        found = []
        for parameter in self.parameters():
            if self.kind(parameter) != "any":
                found += [(parameter, name) for name in KINDS[self.kind(parameter)]]
        if not self.keywords:
            found.append((UNKNOWN, "an unknown keyword"))
        return found

    def allows(self, parameter: str, value: str) -> bool:
        """Say whether a call with this value may return."""
        passing = self.may_pass.get(parameter, ())
        if parameter == UNKNOWN:
            return False
        if value == "None" and self._default(parameter) is None:
            return True
        return value in passing or value in MAY_PASS.get(self.kind(parameter), ())

    def _default(self, parameter: str):
        return inspect.signature(self.signature).parameters[parameter].default

    def named(self, parameter: str) -> set[str]:
        """Return the words of which a refusal must hold one."""
        if parameter == UNKNOWN:
            return {parameter}
        return {parameter} | ALSO_NAMED.get(self.kind(parameter), set())

    def bad(self, world, parameter: str, value: str) -> dict:
        """Return the arguments with one replaced."""
        arguments = dict(self.arguments(world))
        if parameter == UNKNOWN:
            return arguments | {UNKNOWN: 1}
        return arguments | {parameter: KINDS[self.kind(parameter)][value](world)}


CALLS: dict[str, Call] = {}


def add(path, run, arguments, *, signature=None, keywords=False, may_pass=None, **kinds) -> None:
    """Enter a base call; ``kinds`` are those of parameters whose name does not tell."""
    call = Call(path, run, signature or run, arguments, kinds, may_pass or {}, keywords)
    assert path not in CALLS, path
    CALLS[path] = call


def add_methods(owner, thing, bases, *, may_pass=None, **kinds) -> None:
    """Enter methods of a public class; `bases` are name -> arguments of the world.

    `thing` makes the object of the world that they are called on.
    """

    def call(method, world, **arguments):
        return getattr(thing(world), method)(**arguments)

    room = owner.__module__.split("._")[0]
    room = "sklmc" if hasattr(sklmc, owner.__name__) else room
    for name, base in bases.items():
        add(
            f"{room}.{owner.__name__}.{name}",
            partial(call, name),
            lambda w, base=base: {"world": w, **base(w)},
            signature=getattr(owner, name),
            may_pass=may_pass,
            **kinds,
        )


def nothing(w) -> dict:
    """Return no arguments: the method has defaults, or takes none."""
    return {}


def identifier(path: str, parameter: str, value: str) -> str:
    """Return the name of a case in reports."""
    return f"{path.removeprefix('sklmc.')}-{parameter}-{re.sub('[^A-Za-z0-9]+', '_', value)}"
