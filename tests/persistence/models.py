"""One fitted model of each kind, tiny, with what it computes."""

import numpy as np
import torch
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import EarlyStopping, Freezer, LRScheduler
from skorch.dataset import ValidSplit

import sklmc
from sklmc import (
    DeepEnsemble,
    GreedySoup,
    ModelGrid,
    MultiAligner,
    NetClassifier,
    NetRegressor,
    PermutationAligner,
    SWAEnsembler,
    WeightAverager,
    WidthSearchCV,
)
from sklmc._sklearn import FrozenEstimator
from sklmc.merging import ExponentialMovingAverage
from sklmc.nets import MLP

_random = np.random.default_rng(0)
X = _random.normal(size=(48, 3)).astype(np.float32)
y = np.array(["no", "yes", "maybe"])[_random.integers(0, 3, 48)]
CODES = (y == "yes").astype(np.int64)
PLAIN = {"module__n_features": 3, "max_epochs": 1, "verbose": 0, "module__width": 4}


def net(kind=NetClassifier, **changes):
    return kind(**{"module__width": 4, "max_epochs": 2, "random_state": 0} | changes)


def members():
    return [net(random_state=seed).fit(X, y) for seed in range(3)]


def grid():
    return ModelGrid(net(), {"lr": [0.01, 0.02]}, n_estimators=2, random_state=0).fit(X, y)


def modules():
    return [one.module_ for one in members()]


def with_callbacks():
    callbacks = [
        LRScheduler("StepLR", step_size=1),
        EarlyStopping(monitor="train_loss"),
        Freezer("layers.0.*"),
        ExponentialMovingAverage(0.5),
    ]
    return net(callbacks=callbacks, train_split=ValidSplit(3)).fit(X, y)


def ensemble(inner):
    return DeepEnsemble(inner, 2, random_state=0).fit(X, y)


def aligner_with_chance():
    return MultiAligner(random_state=np.random.RandomState(3))


MODELS = {
    "NetClassifier": lambda: net().fit(X, y),
    "NetRegressor": lambda: net(NetRegressor, dtype="float64").fit(X, X[:, 0]),
    "with callbacks": with_callbacks,
    "DeepEnsemble": lambda: ensemble(net()),
    "DeepEnsemble of Pipelines": lambda: ensemble(make_pipeline(StandardScaler(), net())),
    "ModelGrid": grid,
    "WeightAverager": lambda: WeightAverager(net(), aligner=aligner_with_chance()).fit(X, y),
    "GreedySoup": lambda: GreedySoup(net(), {"lr": [0.01, 0.02]}, aligner="weight").fit(X, y),
    "GreedySoup of a grid": lambda: GreedySoup(FrozenEstimator(grid())).fit(X, y),
    "SWAEnsembler": lambda: SWAEnsembler(net(), n_snapshots=2, average="predictions").fit(X, y),
    "PermutationAligner": lambda: PermutationAligner().fit(*members()[:2]),
    "MultiAligner": lambda: MultiAligner().fit(members()),
    "WidthSearchCV": lambda: WidthSearchCV(
        ensemble(net()), start=2, max_width=2, min_skill=0.0, cv=2, target_barrier=9.0
    ).fit(X, y),
    "Pipeline": lambda: make_pipeline(StandardScaler(), net()).fit(X, y),
    "MLPClassifier": lambda: MLPClassifier(4, max_iter=2, random_state=0).fit(X, y),
    "VotingClassifier": lambda: VotingClassifier([("a", net()), ("b", net(lr=0.1))]).fit(X, y),
    "GridSearchCV": lambda: GridSearchCV(net(), {"lr": [0.01, 0.1]}, cv=2).fit(X, y),
    "merged nets": lambda: sklmc.merge_models(members(), X),
    "merged modules": lambda: sklmc.merge_models(modules(), X),
    "skorch classifier": lambda: NeuralNetClassifier(
        MLP, criterion=torch.nn.CrossEntropyLoss, module__n_outputs=2, **PLAIN
    ).fit(X, CODES),
    "skorch regressor": lambda: NeuralNetRegressor(MLP, module__n_outputs=1, **PLAIN).fit(
        X, X[:, :1]
    ),
    "module": lambda: modules()[0],
    "module with hooks": lambda: torch.nn.utils.weight_norm(torch.nn.Linear(3, 2)),
    "recurrent module": lambda: torch.nn.LSTM(3, 4),
    "attention": lambda: torch.nn.TransformerEncoderLayer(3, 1, 5).eval(),
}


def answers(model):
    """Return all that a model computes, as arrays."""
    if isinstance(model, torch.nn.Module):
        with torch.no_grad():
            found = model(torch.from_numpy(X))
        return [found[0] if isinstance(found, tuple) else found]
    if isinstance(model, ModelGrid):
        return [model.summary(X, y).to_numpy().astype(str), model.to_frame().to_numpy().astype(str)]
    if isinstance(model, PermutationAligner):
        moved = model.transform(members()[1])
        return [moved.predict_proba(X), model.similarity_.to_numpy().astype(str)]
    if isinstance(model, MultiAligner):
        return [one.predict_proba(X) for one in model.transform(members())]
    found = [model.predict(X)]
    return [*found, model.predict_proba(X)] if hasattr(model, "predict_proba") else found
