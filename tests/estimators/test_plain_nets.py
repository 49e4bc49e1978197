"""skorch's own nets in grids, caches and searches, as scikit-learn's GridSearchCV takes them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sklmc import DeepEnsemble, GreedySoup, ModelGrid, NetClassifier, WidthSearchCV

X = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.a, self.b = nn.Linear(6, width), nn.Linear(width, 2)

    def forward(self, x):
        return self.b(self.a(x).relu())


PLAIN = NeuralNetClassifier(
    Net, criterion=nn.CrossEntropyLoss, max_epochs=2, train_split=None, verbose=0
)
OURS = NetClassifier(Net, optimizer=torch.optim.SGD, max_epochs=2)
nets = pytest.mark.parametrize("net", [PLAIN, OURS], ids=["plain", "ours"])


@nets
def test_grids_know_parameters_that_nobody_has_set(net):
    grid = {"optimizer__momentum": [0.0, 0.9], "module__width": [3]}
    cells = ModelGrid(net, grid, n_estimators=2, random_state=0).fit(X, Y).cells_
    assert [cell.estimators[0].optimizer_.param_groups[0]["momentum"] for cell in cells] == [0, 0.9]
    assert cells[0].estimators[0].module_.a.out_features == 3
    soup = GreedySoup(net, {"optimizer__momentum": [0.0, 0.9]}, random_state=0).fit(X, Y)
    assert len(soup.estimators_) == 2


@nets
def test_grids_know_them_behind_a_pipeline_too(net):
    pipe = make_pipeline(StandardScaler(), net)
    name = pipe.steps[-1][0]
    grid = ModelGrid(pipe, {f"{name}__module__width": [3]}, n_estimators=2, random_state=0)
    members = grid.fit(X, Y).cells_[0].estimators
    widths = [next(member[-1].module_.parameters()).shape[0] for member in members]
    assert widths == [3, 3]


@nets
@pytest.mark.parametrize(
    "name, said",
    [
        ("module__widht", "Net takes no argument 'widht'.*mean 'width'"),
        ("optimizer__momentun", "SGD takes no argument 'momentun'.*mean 'momentum'"),
        ("modul__width", "'modul__width' is no parameter of the net.*mean 'module__width'"),
    ],
)
def test_misspelt_names_are_refused_with_the_nearest(net, name, said):
    with pytest.raises((TypeError, ValueError), match=f"(?s)ModelGrid: .*{said}"):
        ModelGrid(net, {name: [3]}, n_estimators=2, random_state=0).fit(X, Y)


@pytest.mark.parametrize("labels", [Y, np.where(Y, 7, 3)])
def test_plain_nets_are_stored_and_come_back_the_same(labels, tmp_path):
    net = PLAIN if labels is Y else OURS
    ensemble = DeepEnsemble(net, 2, random_state=0, cache_dir=tmp_path)
    first = ensemble.fit(X, labels)
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(net), "fit", lambda *_: pytest.fail("a stored net was trained"))
        second = DeepEnsemble(net, 2, random_state=0, cache_dir=tmp_path).fit(X, labels)
    assert torch.equal(torch.rand(1), wanted)
    for a, b in zip(first.estimators_, second.estimators_):
        assert a.history[:, "train_loss"] == b.history[:, "train_loss"]
        assert list(a.classes_) == list(b.classes_)
        np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X))


def test_nets_of_two_modules_are_not_stored(tmp_path):
    class Two(NeuralNetClassifier):
        def initialize_module(self):
            super().initialize_module()
            self.second_ = nn.Linear(2, 2)
            return self

    two = Two(**PLAIN.get_params(deep=False))
    with pytest.raises(ValueError, match=r"one module and one optimizer, but Two has .*'second'"):
        DeepEnsemble(two, 2, random_state=0, cache_dir=tmp_path).fit(X, Y)


@pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning")
@nets
@pytest.mark.parametrize("outside", [True, False])
def test_width_search_finds_the_net_in_a_pipeline(net, outside):
    scaler = StandardScaler()
    if outside:
        population = make_pipeline(scaler, DeepEnsemble(net, 2, random_state=0))
    else:
        population = DeepEnsemble(make_pipeline(scaler, net), 2, random_state=0)
    search = WidthSearchCV(population, start=3, max_width=3, cv=2).fit(X, Y)
    assert next(iter(search.best_params_)).endswith("__module__width")


@nets
def test_width_search_of_one_net_names_the_remedy(net):
    for one in (net, make_pipeline(StandardScaler(), net)):
        with pytest.raises(TypeError, match=r"must be a population of nets.*pass a DeepEnsemble"):
            WidthSearchCV(one).fit(X, Y)
    with pytest.raises(TypeError, match="WidthSearchCV: 'module__w' is set, but Net takes no"):
        WidthSearchCV(DeepEnsemble(net), param_name="estimator__module__w").fit(X, Y)


SCRIPT = """
import numpy as np
from skorch import NeuralNetClassifier
from torch import nn

from sklmc import DeepEnsemble, LMCScorer, NetClassifier, merge_models

SCALE = 1.5


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.a, self.b = nn.Linear(6, width), nn.Linear(width, 2)

    def forward(self, x):
        return self.b((SCALE * self.a(x)).relu())


class Mine(NetClassifier):
    pass


if __name__ == "__main__":
    X = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    plain = {"criterion": nn.CrossEntropyLoss, "train_split": None, "verbose": 0}
    for net in (NetClassifier(Net), Mine(Net), NeuralNetClassifier(Net, **plain)):
        net.set_params(max_epochs=1)
        ensemble = DeepEnsemble(net, 3, vectorize=False, n_jobs=2, random_state=0).fit(X, y)
        alone = DeepEnsemble(net, 3, vectorize=False, random_state=0).fit(X, y)
        assert (ensemble.predict_proba(X) == alone.predict_proba(X)).all()
        scorer = LMCScorer(aligner="weight", n_jobs=2)
        print(scorer.pairwise(ensemble, X, y).n_models, type(merge_models(ensemble)).__name__)
"""


@pytest.mark.slow
def test_modules_of_a_script_go_to_other_processes_and_back(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == ["3 NetClassifier", "3 Mine", "3 NeuralNetClassifier"]
