"""Base calls of what fits data, of data sets and of modules."""

from __future__ import annotations

import torch

import sklmc
from sklmc import datasets, nets
from sklmc.merging import ExponentialMovingAverage, StochasticWeightAveraging
from tests.hostile.calls import add
from tests.hostile.world import net

SMALL = {"module__width": 3, "max_epochs": 1, "batch_size": 20, "random_state": 0}
CONSTRUCTORS = {  # class -> options that make it quick
    sklmc.NetClassifier: SMALL,
    sklmc.NetRegressor: SMALL,
    sklmc.DeepEnsemble: {"n_estimators": 2, "random_state": 0},
    sklmc.WeightAverager: {"random_state": 0},
    sklmc.SWAEnsembler: {"n_snapshots": 1, "random_state": 0},
    sklmc.GreedySoup: {"random_state": 0, "param_grid": {"lr": [0.01, 0.02]}},
    sklmc.ModelGrid: {"random_state": 0, "param_grid": {"lr": [0.01]}, "n_estimators": 1},
    sklmc.WidthSearchCV: {"start": 2, "max_width": 2, "cv": 2},
}
# skorch's own parameters: what it does with them is its own affair, but for their kind
SKORCH = dict.fromkeys(
    [
        "module",
        "criterion",
        "optimizer",
        "iterator_train",
        "iterator_valid",
        "dataset",
        "train_split",
        "callbacks",
        "predict_nonlinearity",
        "classes",
        "device",
        "use_caching",
        "torch_load_kwargs",
    ],
    "factory",
)
OTHERS = {
    sklmc.NetClassifier: SKORCH | {"class_weight": "option"},
    sklmc.NetRegressor: SKORCH,
    sklmc.WidthSearchCV: {"scoring": "callable", "refit": "option", "cv": "factory"},
    sklmc.GreedySoup: {"scoring": "callable"},
    sklmc.WeightAverager: {"scoring": "callable"},
}
MAY_PASS = {
    "lr": {"zero", "two"},
    "swa_lr": {"two"},
    "batch_size": {"negative"},
    "cv": {"a number"},
    "repair": {"None"},
    "validation_fraction": {"None"},
    "cache_dir": {"no such file", "a folder"},
    "max_epochs": {"zero"},
    "classes": {"a list"},
    "refit": {"a boolean"},
    "factor": {"two", "inf", "1e300"},
    "target_barrier": {"zero", "two", "inf", "1e300"},
    "min_skill": {"zero"},
    "error_score": {"nan", "a number"},
}


def make(cls, **options):
    """Return an estimator; those that wrap a net get a small one."""
    options = {**CONSTRUCTORS[cls], **options}
    if cls in (sklmc.NetClassifier, sklmc.NetRegressor):
        return cls(**options)
    inner = sklmc.DeepEnsemble(net(), 2, random_state=0) if _searches(cls) else net()
    return cls(**{"estimator": inner, **options})


def _searches(cls):
    return cls is sklmc.WidthSearchCV


def build(cls, world, **options):
    """Make an estimator of these options and fit it."""
    return make(cls, **options).fit(world.X, world.y)


_fitted: dict = {}


def fitted(cls, w):
    """Return a fitted estimator, made once."""
    if cls not in _fitted:
        _fitted[cls] = make(cls).fit(w.X, w.y)
    return _fitted[cls]


def labelled(w):
    return {"X": w.X, "y": w.y}


for cls in CONSTRUCTORS:
    path = f"sklmc.{cls.__name__}"
    regresses = cls is sklmc.NetRegressor
    # classifiers take any labels; a regressor takes any numbers
    y_passes = {"out of range", "negative", "huge", "texts", "mixed"}
    if regresses:
        y_passes = {"out of range", "negative", "huge", "1e300", "fractions", "two columns"}
    x_passes = {"too wide", "too narrow", "three axes"}
    add(
        path,
        lambda world, kind=cls, **options: build(kind, world, **options),
        lambda w: {"world": w},
        signature=cls,
        may_pass=MAY_PASS,
        keywords=cls in (sklmc.NetClassifier, sklmc.NetRegressor),
        **OTHERS.get(cls, {}),
    )
    add(
        f"{path}.fit",
        lambda kind=cls, **arguments: make(kind).fit(**arguments),
        labelled,
        signature=cls.fit,
        may_pass={"X": x_passes, "y": y_passes},
        keywords=True,
    )
    if hasattr(cls, "predict") and not _searches(cls):
        add(
            f"{path}.predict",
            lambda world, kind=cls, **arguments: fitted(kind, world).predict(**arguments),
            lambda w: {"world": w, "X": w.X},
            signature=cls.predict,
            may_pass={"X": {"fewer rows"}},
        )
    if not regresses and cls is not sklmc.ModelGrid and not _searches(cls):
        add(
            f"{path}.predict_proba",
            lambda world, kind=cls, **arguments: fitted(kind, world).predict_proba(**arguments),
            lambda w: {"world": w, "X": w.X},
            signature=lambda X: None,
            may_pass={"X": {"fewer rows"}},
        )
    if "score" in dir(cls):
        passes = y_passes if regresses else set()
        add(
            f"{path}.score",
            lambda world, kind=cls, **arguments: fitted(kind, world).score(**arguments),
            lambda w: {"world": w, **labelled(w)},
            signature=cls.score,
            may_pass={
                "y": {"out of range", "negative", "huge"} | (y_passes if regresses else set())
            },
        )
for cls in (sklmc.NetClassifier, sklmc.NetRegressor):
    path = f"sklmc.{cls.__name__}"
    passes = (
        {"fractions", "two columns", "1e300"} if cls is sklmc.NetRegressor else {"texts", "mixed"}
    )
    add(
        f"{path}.partial_fit",
        lambda kind=cls, **arguments: make(kind).partial_fit(**arguments),
        labelled,
        signature=cls.partial_fit,
        classes="any" if cls is sklmc.NetRegressor else "factory",
        keywords=True,
        may_pass={
            "X": {"too wide", "too narrow"},
            "y": {"out of range", "negative", "huge"} | passes,
        },
    )
    add(
        f"{path}.set_params",
        lambda kind=cls, **arguments: make(kind).set_params(**arguments),
        lambda w: {},
        signature=cls.set_params,
    )
add(
    "sklmc.ModelGrid.spawn",
    lambda **arguments: make(sklmc.ModelGrid).spawn(**arguments),
    lambda w: {"n_epochs": 1},
    signature=sklmc.ModelGrid.spawn,
    may_pass={"n_epochs": {"zero"}},
)
add(
    "sklmc.ModelGrid.cell",
    lambda world, **arguments: world.grid.cell(**arguments),
    lambda w: {"world": w, "lr": 0.01},
    signature=lambda lr: None,
    may_pass={"lr": set()},
)
add(
    "sklmc.ModelGrid.summary",
    lambda world, **arguments: world.grid.summary(**arguments),
    lambda w: {"world": w, **labelled(w)},
    signature=sklmc.ModelGrid.summary,
)
add(
    "sklmc.ModelGrid.to_frame",
    lambda world, **arguments: world.grid.to_frame(**arguments),
    lambda w: {"world": w},
    signature=sklmc.ModelGrid.to_frame,
)
LEAST = {StochasticWeightAveraging: {"start": 0.5}, ExponentialMovingAverage: {}}
for averaging, least in LEAST.items():
    path = f"sklmc.merging.{averaging.__name__}"
    add(
        path,
        lambda world, cls=averaging, **options: net(callbacks=[cls(**options)], max_epochs=2).fit(
            world.X, world.y
        ),
        lambda w, least=least: {"world": w, **least},
        signature=averaging,
        start="real",
        may_pass={
            "start": {"zero", *([] if least else ["two"])},
            "swa_lr": {"zero", "two"},
            "decay": {"zero"},
        },
    )
    add(
        f"{path}.state_dict",
        lambda world, cls=averaging: cls().state_dict(),
        lambda w: {"world": w},
        signature=lambda: None,
    )
    add(
        f"{path}.load_state_dict",
        lambda world, state, cls=averaging: cls().load_state_dict(state),
        lambda w, cls=averaging: {"world": w, "state": cls().state_dict()},
        signature=lambda state: None,
        state="arrays",
    )

# -- data sets and modules --------------------------------------------------------------------


def built(cls, **options):
    """Build a module; it draws its weights from torch's own generator."""
    with torch.random.fork_rng():
        return cls(**options)


add(
    "sklmc.datasets.load_moons",
    datasets.load_moons,
    lambda w: {"n_train": 10, "n_test": 10},
    may_pass={"noise": {"zero", "two", "inf", "1e300"}},
)
add("sklmc.show_versions", sklmc.show_versions, lambda w: {})
add("sklmc.datasets.load_digits_split", datasets.load_digits_split, lambda w: {})
add(
    "sklmc.datasets.load_images",
    datasets.load_images,
    lambda w: {"name": "mnist", "data_home": w.images},
    data_home="folder",
    may_pass={"data_home": {"a folder"}},
)
add(
    "sklmc.nets.MLP",
    lambda **options: built(nets.MLP, **options),
    lambda w: {"n_features": 2, "n_outputs": 2},
    signature=nets.MLP,
    may_pass={"depth": {"zero"}, "norm": {"None"}},
)
for cls in (nets.VGG11, nets.ResNet20):
    add(
        f"sklmc.nets.{cls.__name__}",
        lambda kind=cls, **options: built(kind, **options),
        lambda w: {"width_multiplier": 0.05},
        signature=cls,
        may_pass={"width_multiplier": {"two"}, "norm": {"None"}},
    )
