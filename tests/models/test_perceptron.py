"""scikit-learn's multilayer perceptrons are models like any other."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.neural_network import MLPClassifier, MLPRegressor

from sklmc import LMCScorer, PermutationAligner, average_models, discover_symmetry, merge_models
from sklmc.models import view

SAME = 1e-6  # of probabilities, in float64
X, CODES = make_classification(120, 6, n_informative=4, n_classes=3, random_state=0)
NAMES = np.array(["ant", "bee", "cat"])[CODES]


def fitted(kind, y, seed=0, X=X, **arguments):
    arguments = {"hidden_layer_sizes": (8, 5), "max_iter": 15, "random_state": seed, **arguments}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fifteen iterations do not converge
        return kind(**arguments).fit(X, y)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_module_of_a_classifier_gives_its_logits(activation):
    net = fitted(MLPClassifier, NAMES, activation=activation)
    logits = view(net, caller="test").module(torch.from_numpy(X))
    assert logits.dtype == torch.float64
    assert np.abs(torch.softmax(logits, 1).numpy(force=True) - net.predict_proba(X)).max() < 1e-12


def test_binary_classifier_has_one_logit():
    net = fitted(MLPClassifier, CODES > 0)
    logit = view(net, caller="test").module(torch.from_numpy(X))
    assert logit.shape == (120, 1)
    assert (
        np.abs(torch.sigmoid(logit).numpy(force=True)[:, 0] - net.predict_proba(X)[:, 1]).max()
        < SAME
    )


@pytest.mark.parametrize("arguments", [{}, {"loss": "poisson"}, {"solver": "lbfgs"}])
def test_module_of_a_regressor_predicts_as_it_does(arguments):
    net = fitted(MLPRegressor, np.abs(X[:, :2]).sum(axis=1), **arguments)
    outputs = view(net, caller="test").module(torch.from_numpy(X)).numpy(force=True)
    assert np.abs(outputs[:, 0] - net.predict(X)).max() < SAME


@pytest.mark.parametrize("y", [NAMES, CODES > 0])
def test_merged_pair_predicts_as_the_merged_modules(y):
    nets = [fitted(MLPClassifier, y, seed) for seed in range(2)]
    before = [[part.copy() for part in net.coefs_] for net in nets]
    merged = merge_models(nets)
    module = merge_models([view(net, caller="test").module for net in nets])
    logits = module(torch.from_numpy(X)).detach()
    two = logits if logits.shape[1] > 1 else torch.cat([torch.zeros_like(logits), logits], 1)
    wanted = torch.softmax(two, 1).numpy()
    assert type(merged) is MLPClassifier
    assert np.abs(merged.predict_proba(X) - wanted).max() < SAME
    assert list(merged.classes_) == list(nets[0].classes_)
    for net, parts in zip(nets, before):
        assert all(np.array_equal(a, b) for a, b in zip(net.coefs_, parts))


def test_merged_net_can_be_trained_on():
    nets = [fitted(MLPClassifier, NAMES, seed) for seed in range(2)]
    merged = merge_models(nets, X, NAMES)
    assert merged.loss_curve_ == []
    before = merged.score(X, NAMES)
    for _ in range(20):
        merged.partial_fit(X, NAMES)
    assert merged.score(X, NAMES) >= before
    assert len(merged.loss_curve_) == 20


def test_weights_keep_their_dtype():
    nets = [fitted(MLPClassifier, CODES, seed, X.astype(np.float32)) for seed in range(2)]
    assert {part.dtype for part in average_models(nets).coefs_} == {np.dtype(np.float32)}


def test_permuted_copy_is_aligned_back():
    net = fitted(MLPRegressor, X[:, :2])
    symmetry = discover_symmetry(net)
    moved = symmetry.apply(net, symmetry.random_permutation(random_state=0))
    assert [group.size for group in symmetry.groups] == [8, 5]
    assert np.abs(moved.predict(X) - net.predict(X)).max() < SAME
    back = PermutationAligner().fit_transform(net, moved)
    assert all(np.array_equal(a, b) for a, b in zip(back.coefs_, net.coefs_))


def test_path_ends_have_the_accuracy_of_the_nets():
    nets = [fitted(MLPClassifier, NAMES, seed) for seed in range(2)]
    score = LMCScorer().path(*nets, X, NAMES)
    assert [1 - score.error[0], 1 - score.error[-1]] == pytest.approx(
        [net.score(X, NAMES) for net in nets]
    )


def test_unknown_label_is_named():
    nets = [fitted(MLPClassifier, NAMES, seed) for seed in range(2)]
    with pytest.raises(ValueError, match=r"label 'dog'.*knows \['ant', 'bee', 'cat'\]"):
        LMCScorer().path(*nets, X, np.where(CODES == 1, "dog", NAMES))


def test_multilabel_is_refused():
    nets = [fitted(MLPClassifier, X[:, :2] > 0, seed) for seed in range(2)]
    with pytest.raises(ValueError, match=r"'models\[0\]' is a MLPClassifier with 2 labels"):
        merge_models(nets)


def test_unfitted_net_is_refused():
    with pytest.raises(ValueError, match="MLPClassifier that is not fitted"):
        merge_models([MLPClassifier()])
