"""Classes in a file come from the list of known ones or from the caller."""

import json
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import NetClassifier, load_model, save_model
from sklmc._persistence._known import find_known, name_of
from sklmc.exceptions import ArchitectureMismatchError, SklmcWarning
from sklmc.models import write_record
from sklmc.nets import MLP, VGG11
from tests.estimators.modules import Convolutional, Softmax
from tests.persistence.models import X, net, y


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return x + self.linear(x).relu()


class Residual(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.block = Block(n_features)
        self.last = nn.Linear(n_features, n_outputs)

    def forward(self, x):
        return self.last(self.block(x))


def from_source(source, module):
    """Return the class Net that source defines in a module, as a script or an edit would."""
    place = types.ModuleType(module)
    exec(source, vars(place))
    return place.Net


NET = """
from torch import nn
class Net(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.first = nn.Linear(n_features, 5)
        self.last = nn.Linear(5, n_outputs)
    def forward(self, x):
        return self.last(self.first(x).relu())
"""


def forged(path, content, tensors=()):
    """Write a file with a good digest around any content."""
    write_record(
        path,
        {**dict(tensors), "model.json": torch.tensor(list(json.dumps(content).encode())).byte()},
        {"format": "sklmc.model", "version": 1, "versions": {}, "foreign": {}},
    )


def test_own_classes_must_be_brought_all_of_them_and_no_others(tmp_path):
    model = NetClassifier(Residual, max_epochs=2, random_state=0).fit(X, y)
    save_model(model, tmp_path / "m")
    loaded = load_model(tmp_path / "m", module=[Residual, Block])
    assert np.array_equal(loaded.predict_proba(X), model.predict_proba(X))
    for wrong in (None, Residual, [Residual, Softmax], [Residual, Block, Softmax]):
        with pytest.raises(ArchitectureMismatchError, match=r"'module' does not fit .*Residual"):
            load_model(tmp_path / "m", module=wrong)


def test_class_that_the_file_does_not_hold_is_refused(tmp_path):
    save_model(net().fit(X, y), tmp_path / "m")
    assert isinstance(load_model(tmp_path / "m", module=MLP).module_, MLP)
    for wrong in (Convolutional, VGG11):
        with pytest.raises(ArchitectureMismatchError, match="needs no class of your own; got"):
            load_model(tmp_path / "m", module=wrong)


@pytest.mark.parametrize("wrong", [Residual(3, 2), "Residual", 3, [Residual, None]])
def test_what_is_no_class_is_refused(wrong, tmp_path):
    save_model(Residual(3, 2), tmp_path / "m")
    with pytest.raises(TypeError, match="load_model: 'module' must be a class, a function"):
        load_model(tmp_path / "m", module=wrong)


def test_class_may_move_to_another_module(tmp_path):
    model = NetClassifier(from_source(NET, "script"), max_epochs=2, random_state=0).fit(X, y)
    save_model(model, tmp_path / "m")
    loaded = load_model(tmp_path / "m", module=from_source(NET, "package"))
    assert np.array_equal(loaded.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(
    "old, new",
    [(".relu()", ".tanh()"), ("self.last(", "self.end("), ("(x).relu())", "(x).relu())[:, :1]")],
)
def test_class_that_computes_something_else_is_another_architecture(old, new, tmp_path):
    model = NetClassifier(from_source(NET, "script"), max_epochs=2, random_state=0).fit(X, y)
    save_model(model, tmp_path / "m")
    with pytest.raises(ArchitectureMismatchError, match="'module' is another architecture: 'Net'"):
        load_model(tmp_path / "m", module=from_source(NET.replace(old, new), "script"))


def test_changed_class_that_cannot_be_tried_is_a_warning(tmp_path):
    source = NET.replace("self.first(x)", "self.first(self.scale(x))").replace(
        "super().__init__()", "super().__init__(); self.scale = nn.Conv1d(1, 1, 1)"
    )
    save_model(from_source(source, "script")(3, 2), tmp_path / "m")
    load_model(tmp_path / "m", module=from_source(source, "script"))
    with pytest.warns(SklmcWarning, match=r"the code of 'script\.Net' is not what it was"):
        load_model(tmp_path / "m", module=from_source(source + "    size = 3\n", "script"))


def test_functions_of_torch_are_known_and_own_ones_are_brought(tmp_path):
    module = nn.Linear(3, 2)
    module.act, module.norm = torch.relu, nn.functional.gelu
    save_model(module, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert loaded.act is torch.relu
    assert loaded.norm is nn.functional.gelu
    module.act = from_source
    save_model(module, tmp_path / "m")
    assert load_model(tmp_path / "m", module=from_source).act is from_source


@pytest.mark.parametrize(
    "name",
    [
        *("os.system", "builtins.eval", "torch.load", "torch.hub.load", "subprocess.Popen"),
        *("torch.from_file", "torch.set_num_threads", "torch.nn.functional.torch"),
        *("skorch.net.torch", "sklearn.utils.os", "sklearn.utils.fixes.os.system"),
        *("torch.nn.modules.module.torch.load", "numpy.load", "sklmc.models._storage.os"),
        *("sklearn.tests.test_base.K", "sklearn.datasets.load_files", "pathlib.Path", ""),
        *("skorch.cli.parse_args", "torch.fx.graph_module.GraphModule", "sklearn..base"),
        *("torch.nn.functional.os", "torch.jit.load"),
    ],
)
def test_names_off_the_list_are_not_found_and_refused_in_a_forged_file(name, tmp_path):
    assert find_known(name) is None
    forged(tmp_path / "m", {"object": name, "called": True, "arguments": ["ls"]})
    with pytest.raises(ValueError, match="cannot be made again here"):
        load_model(tmp_path / "m")


def test_modules_of_no_known_package_are_not_imported(tmp_path):
    assert "antigravity" not in sys.modules
    forged(tmp_path / "m", {"object": "antigravity.x"})
    with pytest.raises(ValueError, match="is on no list of known classes"):
        load_model(tmp_path / "m")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "content",
    [
        *({"again": 3}, {"tensor": {"name": "x"}}, {"nothing": 1}, {"dtype": "torch.load"}),
        {"method": [{"object": "sklmc.nets._mlp.MLP"}, "load_state_dict"]},
        {"object": "skorch.net.NeuralNet", "called": True, "arguments": [None, None]},
        *({"object": "builtins.print", "called": True}, {"array": {"shape": [3]}}, {"list": 3}),
        {"object": "sklmc.nets._mlp.MLP", "state": {"dict": [["training", True], [1]]}},
    ],
)
def test_forged_content_is_refused_in_one_sentence(content, tmp_path, capsys):
    forged(tmp_path / "m", content)
    with pytest.raises(ValueError, match="load_model: 'path' holds a model that cannot be made"):
        load_model(tmp_path / "m")
    assert capsys.readouterr().out == ""


def test_known_names_are_found_again():
    for value in (MLP, nn.Linear, torch.optim.Adam, NetClassifier, dict, print, np.float32):
        name, known = name_of(value)
        assert known
        assert find_known(name) is value
