"""A model that was saved and loaded is the same model."""

import copy
import json
import pickle
import threading

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from safetensors import safe_open
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet
from torch import nn

import sklmc
from sklmc import NetClassifier, load_model, merge_models, save_model
from sklmc.exceptions import SklmcWarning
from sklmc.nets import MLP, VGG11
from sklmc.symmetry._proof._origin import make_of
from tests.persistence.models import MODELS, X, answers, members, net, y


@pytest.fixture
def again(tmp_path):
    """Return a function that sends a model through a file."""

    def there_and_back(model, module=None):
        save_model(model, tmp_path / "model.safetensors")
        return load_model(tmp_path / "model.safetensors", module)

    return there_and_back


def header(path):
    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["sklmc"])


def params_of(model):
    return {
        name: value
        for name, value in model.get_params().items()
        if value is None or isinstance(value, bool | int | str | type | dict)
    } | {name: repr(value) for name, value in model.get_params().items() if type(value) is float}


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_comes_back_the_same_to_the_bit(name, again):
    model = MODELS[name]()
    loaded = again(model)
    assert type(loaded) is type(model)
    for before, after in zip(answers(model), answers(loaded), strict=True):
        assert np.array_equal(np.asarray(before), np.asarray(after))
    if not isinstance(model, BaseEstimator | NeuralNet):
        return
    assert params_of(loaded) == params_of(model)
    assert params_of(clone(loaded)) == params_of(clone(model))
    for attribute in ("classes_", "n_features_in_", "feature_names_in_"):
        assert hasattr(loaded, attribute) == hasattr(model, attribute)
        if hasattr(model, attribute):
            assert np.array_equal(getattr(loaded, attribute), getattr(model, attribute))


def test_saving_leaves_the_model_as_it_was(again):
    model = merge_models(members(), X)
    before = pickle.dumps(model)
    again(model)
    assert pickle.dumps(model) == before


def test_names_of_columns_and_labels_are_kept_and_can_be_read_without_loading(tmp_path):
    frame = pd.DataFrame(X, columns=["a", "b", "ä"])
    model = net().fit(frame, y)
    save_model(model, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert loaded.feature_names_in_.tolist() == ["a", "b", "ä"]
    assert loaded.predict(frame).tolist() == model.predict(frame).tolist()
    notes = header(tmp_path / "m")
    assert notes["classes"] == ["maybe", "no", "yes"]
    assert notes["feature_names"] == ["a", "b", "ä"]
    assert notes["versions"]["torch"] == torch.__version__
    assert notes["class"].endswith("NetClassifier")


def test_loaded_net_is_fitted_again_and_trained_further_like_the_one_saved(again):
    model = net(optimizer__betas=(0.8, 0.99)).fit(X, y)
    loaded = again(model)
    further = [copy.deepcopy(one).partial_fit(X, y) for one in (model, loaded)]
    assert np.array_equal(further[0].predict_proba(X), further[1].predict_proba(X))
    refitted = [one.fit(X, y) for one in (model, loaded)]
    assert np.array_equal(refitted[0].predict_proba(X), refitted[1].predict_proba(X))
    assert len(loaded.history) == 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64])
def test_dtypes_are_kept(dtype, again):
    module = nn.Linear(3, 2).to(dtype)
    loaded = again(module)
    assert loaded.weight.dtype is dtype
    assert torch.equal(loaded.weight, module.weight)
    assert loaded.weight.requires_grad


def test_frozen_parameters_and_flags_are_kept(again):
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4)).eval()
    module[0].weight.requires_grad_(False)
    loaded = again(module)
    assert not loaded[0].weight.requires_grad
    assert loaded[0].bias.requires_grad
    assert not loaded[1].training
    assert loaded[2].num_batches_tracked.dtype is torch.int64


def test_tied_weights_stay_tied(again):
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    module[2].weight = nn.Parameter(module[0].weight.t())  # a view of the same memory
    loaded = again(module)
    assert loaded[1].weight is loaded[0].weight
    with torch.no_grad():
        loaded[0].weight[0, 1] = 7.0
    assert loaded[2].weight[1, 0] == 7.0
    assert loaded[2].weight.stride() == module[2].weight.stride()


def test_optimizer_of_a_loaded_net_moves_its_weights(again):
    loaded = again(net().fit(X, y))
    held = {id(p) for group in loaded.optimizer_.param_groups for p in group["params"]}
    assert held == {id(p) for p in loaded.module_.parameters()}


def test_part_of_a_large_tensor_is_stored_without_the_rest(again, tmp_path):
    module = nn.Linear(10, 10, bias=False)
    module.weight = nn.Parameter(torch.randn(10, 10_000)[:, :10])
    assert torch.equal(again(module).weight, module.weight)
    assert (tmp_path / "model.safetensors").stat().st_size < 10_000


def test_memory_format_is_kept(again):
    module = VGG11(width_multiplier=0.05).eval().to(memory_format=torch.channels_last)
    loaded = again(module)
    assert loaded.features[0].weight.stride() == module.features[0].weight.stride()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images), module(images))


def test_same_model_gives_the_same_file(tmp_path):
    model = net().fit(X, y)
    for name in "ab":
        save_model(model, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_default_device_and_dtype_of_the_caller_do_not_matter(again):
    model = net().fit(X, y)
    with torch.device("meta"):
        loaded = again(model)
    assert np.array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_device_that_is_not_there_is_a_warning_and_the_cpu(again):
    model = net().fit(X, y)
    expected = model.predict_proba(X)
    model.device = "xpu"
    with pytest.warns(SklmcWarning, match="load_model: there is no device xpu here"):
        loaded = again(model)
    assert loaded.device == "cpu"
    assert np.array_equal(loaded.predict_proba(X), expected)


def test_no_pickle_is_in_the_file(tmp_path):
    save_model(MODELS["WeightAverager"](), tmp_path / "m")
    content = (tmp_path / "m").read_bytes()
    assert b"cloudpickle" not in content
    assert b"__reduce__" not in content
    with safe_open(tmp_path / "m", "pt") as file:
        text = bytes(file.get_tensor("model.json").tolist()).decode()
    assert json.loads(text)["object"] == "sklmc.merging._averager.WeightAverager"


# -- where it came from ------------------------------------------------------------------------


def test_merged_net_keeps_where_it_came_from(tmp_path):
    nets = members()
    merged = merge_models(nets, X, aligner="activation", repair="refit", weights=[2, 1, 1])
    save_model(merged, tmp_path / "m")
    found = header(tmp_path / "m")["provenance"]
    assert found == load_model(tmp_path / "m").provenance_ == merged.provenance_
    assert found["made_by"] == "merge_models"
    assert found["aligner"] == "activation"
    assert found["repair"] == "refit"
    assert found["weights"] == [0.5, 0.25, 0.25]
    assert len(set(found["parents"])) == 3


@pytest.mark.parametrize("name", ["WeightAverager", "GreedySoup", "SWAEnsembler"])
def test_estimators_that_merge_say_so(name, tmp_path):
    model = MODELS[name]()
    save_model(model, tmp_path / "m")
    assert header(tmp_path / "m")["provenance"] == model.estimator_.provenance_
    assert model.estimator_.provenance_["made_by"] == name


def test_provenance_does_not_make_another_forward_pass(again):
    nets = [MLP(n_features=3, n_outputs=2, width=4) for _ in range(2)]
    merged = again(merge_models(nets))
    assert merged.provenance_["aligner"] == "weight"
    assert make_of(merged) == make_of(nets[0])


def test_provenance_ends_with_the_weights_that_it_speaks_of(tmp_path):
    merged = merge_models(members(), X)
    merged.partial_fit(X, y)
    save_model(merged, tmp_path / "m")
    assert header(tmp_path / "m")["provenance"] is None


# -- what is not saved -------------------------------------------------------------------------


def test_model_with_a_lambda_is_refused_by_place(tmp_path):
    module = nn.Sequential(nn.Linear(3, 2))
    module[0].act = lambda x: x
    with pytest.raises(TypeError, match=r"cannot be saved: 0\.act is the function '.*<lambda>"):
        save_model(module, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [nn.LazyLinear(3), nn.Linear(3, 2, device="meta")])
def test_tensors_without_values_are_refused_by_place(bad, tmp_path):
    with pytest.raises(TypeError, match=r"'model' cannot be saved: weight is a .*Parameter"):
        save_model(bad, tmp_path / "m")


def test_requests_for_metadata_are_kept(again):
    with sklearn.config_context(enable_metadata_routing=True):
        model = make_pipeline(StandardScaler().set_fit_request(sample_weight=True), net())
        loaded = again(model.fit(X, y))
    assert loaded[0].get_metadata_routing().fit.requests == {"sample_weight": True}


def test_lock_and_bound_method_are_refused_by_place(tmp_path):
    for bad in (threading.Lock(), nn.ReLU().forward):
        module = nn.Sequential(nn.Linear(3, 2))
        module.extra = bad
        with pytest.raises(TypeError, match=r"saved: extra is a .*, which has no place in a file"):
            save_model(module, tmp_path / "m")


@pytest.mark.parametrize("bad", [None, MLP, {"a": 1}, torch.ones(3), "net"])
def test_what_is_no_model_is_refused(bad, tmp_path):
    with pytest.raises(TypeError, match="save_model: 'model' must be a fitted estimator"):
        save_model(bad, tmp_path / "m")


@pytest.mark.parametrize("new", [NetClassifier(), sklmc.DeepEnsemble(net()), NeuralNet(MLP, None)])
def test_what_is_not_fitted_is_refused(new, tmp_path):
    with pytest.raises(NotFittedError, match=r"save_model: 'model' is a .* that is not fitted"):
        save_model(new, tmp_path / "m")
