"""What a refit fits layers to: the plain formulas, written out, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import NetClassifier, NetRegressor, average_models, merge_models
from sklmc.exceptions import SklmcWarning
from sklmc.merging import repair
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._refit import refit_state
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.models import Arrays, predict_outputs, view
from tests.merging.averagers import CODES, VALUES, X
from tests.merging.conftest import dense, randomised
from tests.models.conftest import snapshot

RIDGE = 1e-3  # at least, of the mean variance of what goes into a layer
WORTH = 0.5  # rows per input that the ridge weighs as much as, where that is more
ENOUGH = (1100, 1100, 1100)  # rows, for six inputs: the least ridge
SIZES = (70, 50, 90)
WEIGHTS = np.array([0.2, 0.5, 0.3])

pytestmark = pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning")


def mlp(seed, n_outputs=2, bias=True):
    return randomised(
        nn.Sequential(
            *(nn.Linear(3, 6, bias=bias), nn.ReLU()),
            *(nn.Linear(6, 5, bias=bias), nn.Tanh()),
            nn.Linear(5, n_outputs, bias=bias),
        ).double(),
        seed,
    )


def parts(sizes=SIZES, dtype=np.float64):
    """Return samples of each net, drawn from places of their own."""
    rng = np.random.default_rng(0)
    return [rng.normal(k, 1.0 + k, size=(n, 3)).astype(dtype) for k, n in enumerate(sizes)]


def labels(sizes=SIZES, n_classes=2):
    rng = np.random.default_rng(1)
    return [rng.integers(0, n_classes, n) for n in sizes]


def layer_inputs(net, x):
    """Return what reaches each linear layer of a chain, and what the last gives."""
    found, value = [], torch.from_numpy(x).to(next(net.parameters()).dtype)
    with torch.no_grad():
        for part in net:
            if isinstance(part, nn.Linear):
                found.append(value.numpy())
            value = part(value)
    return found, value.numpy()


def by_hand(nets, xs, weights, goals=None):
    """Fit the layers of a chain one after the other, each to every net's own outputs on its own x.

    ``sum_i w_i / n_i |h W' + b - t_i|^2 + ridge |W - W_mean|^2``, b free; the last layer to `goals`
    where there are any.
    """
    merged = copy.deepcopy(nets[0])
    linear = [k for k, part in enumerate(merged) if isinstance(part, nn.Linear)]
    for layer, place in enumerate(linear):
        free = merged[place].bias is not None
        h, t, w = [], [], []
        for k, (net, x) in enumerate(zip(nets, xs)):
            h.append(layer_inputs(merged, x)[0][layer])
            with torch.no_grad():
                own = net[place](torch.from_numpy(layer_inputs(net, x)[0][layer])).numpy()
            t.append(goals[k] if goals is not None and place == linear[-1] else own)
            w.append(np.full(len(x), weights[k] / len(x)))
        h, t, w = np.concatenate(h), np.concatenate(t), np.concatenate(w)
        h_mean, t_mean = (w @ h, w @ t) if free else (np.zeros(h.shape[1]), np.zeros(t.shape[1]))
        h, t = h - h_mean, t - t_mean
        start = sum(share * net[place].weight.detach().numpy() for share, net in zip(weights, nets))
        gram, cross = h.T @ (w[:, None] * h), h.T @ (w[:, None] * t)
        ridge = max(RIDGE, WORTH * len(gram) / len(h)) * np.trace(gram) / len(gram)
        ridge = ridge * np.eye(len(gram))
        solution = np.linalg.solve(gram + ridge, cross + ridge @ start.T).T
        with torch.no_grad():
            merged[place].weight.copy_(torch.from_numpy(solution))
            if free:
                merged[place].bias.copy_(torch.from_numpy(t_mean - solution @ h_mean))
    return merged


def merged_of(nets, X, y=None, target="own", weights=WEIGHTS, **options):
    return merge_models(
        nets, X, y, aligner=None, repair="refit", target=target, weights=weights, **options
    )


def assert_same(one, other, rtol=1e-7):
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol, err_msg=name)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weights", [WEIGHTS, np.full(3, 1 / 3)], ids=["skewed", "equal"])
def test_own_targets_are_the_weighted_least_squares(bias, weights):
    nets = [mlp(seed, bias=bias) for seed in range(3)]
    found = merged_of(nets, parts(), weights=weights)
    assert_same(found, by_hand(nets, parts(), weights))


def test_labels_are_the_goals_of_the_last_layer_alone():
    nets = [mlp(seed, 3) for seed in range(3)]
    y = labels(n_classes=3)
    goals = [10.0 * np.eye(3)[codes] - 1.0 for codes in y]
    found = merged_of(nets, parts(), y, target="labels")
    assert_same(found, by_hand(nets, parts(), WEIGHTS, goals))


def test_label_of_one_logit_is_the_difference_of_two():
    nets = [mlp(seed, 1) for seed in range(3)]
    y = labels()
    goals = [10.0 * (2.0 * codes[:, None] - 1.0) for codes in y]
    found = merged_of(nets, parts(), y, target="labels")
    assert_same(found, by_hand(nets, parts(), WEIGHTS, goals))


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_values_are_goals_as_they_are(n_outputs):
    nets = [mlp(seed, n_outputs) for seed in range(3)]
    rng = np.random.default_rng(2)
    y = [rng.normal(size=(n, n_outputs)) for n in SIZES]
    found = merged_of(nets, parts(), y, target="labels")
    assert_same(found, by_hand(nets, parts(), WEIGHTS, y))


def test_own_targets_of_equal_samples_and_weights_are_the_mean():
    """Without folds that would choose another ridge: many rows for each input."""
    nets = [mlp(seed) for seed in range(3)]
    x = parts((1100,))[0]
    own = merged_of(nets, [x, x, x], weights=None)
    assert_same(own, merged_of(nets, x, target="mean", weights=None), rtol=1e-6)


def test_logit_is_another_name_of_the_mean():
    nets, x = [mlp(seed) for seed in range(3)], parts((200,))[0]
    logit, mean = (merged_of(nets, x, target=target) for target in ("logit", "mean"))
    assert_same(logit, mean, rtol=0)


@pytest.mark.parametrize("target", ["own", "labels"])
def test_net_without_weight_has_no_say(target):
    """Its samples are neither fitted to nor judged by."""
    nets, x, y = [mlp(seed) for seed in range(3)], parts(), labels()
    found = merged_of(nets, x, y, target, weights=[0.4, 0.6, 0.0])
    assert_same(found, merged_of(nets[:2], x[:2], y[:2], target, weights=[0.4, 0.6]), rtol=1e-9)


@pytest.mark.parametrize("repair", ["auto", "batch_norm", "renormalize", "refit"])
@pytest.mark.parametrize("labelled", [True, False])
def test_repairs_leave_out_the_samples_of_a_net_without_weight(repair, labelled):
    nets, x = [dense(seed) for seed in range(3)], parts(dtype=np.float32)
    y = labels() if labelled else None
    x[2] = 100.0 + 100.0 * x[2]
    options = {"aligner": None, "repair": repair, "target": "own"}
    found = merge_models(nets, x, y, weights=[0.4, 0.6, 0.0], **options)
    alone = merge_models(nets[:2], x[:2], y and y[:2], weights=[0.4, 0.6], **options)
    assert_same(found, alone, rtol=1e-5)


def test_weights_and_not_sizes_count():
    """The same samples twice change nothing."""
    nets, x = [mlp(seed) for seed in range(3)], parts(ENOUGH)
    twice = [x[0], np.concatenate([x[1], x[1]]), x[2]]
    assert_same(merged_of(nets, x), merged_of(nets, twice), rtol=1e-6)


@pytest.mark.parametrize("target", ["own", "mean", "probability"])
def test_order_of_nets_does_not_matter(target):
    nets, x, order = [mlp(seed) for seed in range(3)], parts(), [2, 0, 1]
    given = x if target == "own" else np.concatenate(x)
    moved = [x[k] for k in order] if target == "own" else given
    again = merged_of([nets[k] for k in order], moved, target=target, weights=WEIGHTS[order])
    assert_same(merged_of(nets, given, target=target), again, rtol=1e-5)


@pytest.mark.parametrize("target", ["own", "labels", "mean", "probability"])
def test_single_precision_is_near_double(target):
    """What is fitted is float64 in both: single precision rounds what the layers give."""
    nets, x, y = [mlp(seed) for seed in range(3)], parts((200, 200, 200)), labels((200, 200, 200))
    if target in ("mean", "probability"):
        x, y = np.concatenate(x), np.concatenate(y)
    double = merged_of(nets, x, y, target)
    single = merged_of([copy.deepcopy(net).float() for net in nets], x, y, target)
    probe = np.random.default_rng(3).normal(size=(50, 3))
    wanted = predict_outputs(view(double, caller="test"), Arrays(torch.from_numpy(probe)))
    found = predict_outputs(view(single, caller="test"), Arrays(torch.from_numpy(probe).float()))
    np.testing.assert_allclose(found, wanted, atol=1e-3 * float(wanted.abs().max()))


@pytest.mark.parametrize("target", ["own", "labels"])
def test_batch_norm_belongs_to_the_layer_before_it(target):
    """Own targets find back to equal end points, norm and all, whatever the merged state is."""
    look, wrong = (view(dense(seed), caller="test") for seed in (0, 1))
    x = torch.from_numpy(np.concatenate(parts((300, 200), np.float32)))
    codes = predict_outputs(look, Arrays(x)).argmax(dim=1)
    samples = SampleSet(Arrays(x), codes, torch.repeat_interleave(torch.arange(2), 250))
    ends = EndPoints([look.state, look.state], np.array([0.5, 0.5]))
    state, left = refit_state(look, wrong.state, ends, samples, target)
    assert left == []
    before, after = (predict_outputs(look, Arrays(x), one) for one in (look.state, state))
    if target == "own":
        np.testing.assert_allclose(after, before, atol=1e-2 * float(before.abs().max()))
    assert float((after.argmax(1) == codes).double().mean()) > 0.9
    assert all(float(state[name].min()) >= 0 for name in state if name.endswith("running_var"))


@pytest.mark.parametrize("target", ["own", "labels", "mean", "probability"])
def test_nothing_handed_in_is_changed_and_nothing_is_left_to_chance(target):
    nets, x, y = [mlp(seed) for seed in range(3)], parts(), labels()
    if target in ("mean", "probability"):
        x, y = np.concatenate(x), np.concatenate(y)
    before = [snapshot(net) for net in nets], copy.deepcopy(x), copy.deepcopy(y)
    first = merged_of(nets, x, y, target)
    torch.manual_seed(99)
    assert_same(first, merged_of(nets, x, y, target), rtol=0)
    assert [snapshot(net) for net in nets] == before[0]
    for given, kept in zip((x, y), before[1:]):
        for one, other in zip(given, kept, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("target", ["own", "labels", "mean"])
def test_number_of_threads_does_not_matter(target):
    nets, x, y = [mlp(seed) for seed in range(3)], parts(), labels()
    if target == "mean":
        x, y = np.concatenate(x), np.concatenate(y)
    threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append(merged_of(nets, x, y, target))
    finally:
        torch.set_num_threads(threads)
    assert_same(*found, rtol=1e-9)


# samples of parts


def test_samples_of_parts_are_thinned_at_even_distances():
    part = torch.tensor([0, 1, 0, 1, 0, 2, 0, 0, 1, 0])
    samples = SampleSet(Arrays(torch.arange(10.0)[:, None]), None, part)
    thin = samples.spread(3)
    assert torch.bincount(thin.part).tolist() == [3, 3, 1]
    kept = thin.inputs.args[0][:, 0]
    assert kept[thin.part == 0].tolist() == [0.0, 4.0, 7.0]  # of 0, 2, 4, 6, 7, 9
    assert samples.spread(6) is samples


def test_samples_are_split_part_by_part():
    part = torch.tensor([0] * 5 + [1] * 11 + [2] * 3)
    order = torch.randperm(19, generator=torch.Generator().manual_seed(0))
    samples = SampleSet(
        Arrays(torch.arange(19.0)[order, None]), torch.arange(19)[order], part[order]
    )
    fitted, kept = samples.split()
    assert torch.bincount(kept.part, minlength=3).tolist() == [1, 2, 0]
    assert torch.bincount(fitted.part).tolist() == [4, 9, 3]
    together = torch.cat([fitted.labels, kept.labels])
    assert sorted(together.tolist()) == list(range(19))
    for one in (fitted, kept):
        assert torch.equal(one.inputs.args[0][:, 0].long(), one.labels)


def test_part_much_larger_than_another_is_no_hindrance():
    nets, x = [mlp(seed) for seed in range(2)], parts((2, 400))
    found = merged_of(nets, x, weights=[0.5, 0.5])
    assert_same(found, by_hand(nets, x, [0.5, 0.5]), rtol=1e-6)


# What is refused


def fitted(kind, y, n=2):
    return [
        kind(module__width=4, max_epochs=1, random_state=seed).fit(X.astype("f4"), y)
        for seed in range(n)
    ]


@pytest.mark.parametrize(
    "target, given, y, error, said",
    [
        ("own", X, None, ValueError, "'X' must be a list of 2 parts.*got ndarray"),
        ("labels", X, CODES, ValueError, "'X' must be a list of 2 parts"),
        ("own", [X], None, ValueError, "list of 2 parts.*got 1 parts"),
        ("own", [X, X, X], None, ValueError, "list of 2 parts.*got 3 parts"),
        ("own", [X, X[:0]], None, ValueError, r"'X\[1\]' holds no sample"),
        ("own", [X, X[:, :2]], None, ValueError, "cannot be joined"),
        ("own", [X, X], CODES, ValueError, "'y' must be a list of 2 parts"),
        ("own", [X, X], [CODES], ValueError, "'y' must be a list of 2 parts"),
        ("own", [X, X], [CODES, CODES[:5]], ValueError, r"'X\[1\]' holds 120 samples and 'y\[1\]'"),
        ("labels", [X, X], None, ValueError, "target='labels' needs 'y'"),
        ("nonsense", X, None, ValueError, "'target'"),
        (3, X, None, (TypeError, ValueError), "'target'"),
    ],
)
def test_bad_samples_by_part_are_refused_by_name(target, given, y, error, said):
    nets = [mlp(seed) for seed in range(2)]
    with pytest.raises(error, match=f"merge_models: .*{said}"):
        merge_models(nets, given, y, aligner=None, target=target, repair="refit")
    with pytest.raises(error, match=f"repair: .*{said}"):
        repair(average_models(nets), nets, given, y=y, target=target, method="refit")


def test_probability_is_for_classifiers():
    nets = fitted(NetRegressor, VALUES)
    with pytest.raises(ValueError, match="'probability' is for classifiers"):
        merge_models(nets, X, repair="refit", target="probability")


def test_labels_of_what_no_layer_gives_are_refused():
    """The last layer's output is not the net's: there is nowhere to fit labels."""
    nets = [nn.Sequential(mlp(seed), nn.LogSoftmax(dim=1)).eval() for seed in range(2)]
    with pytest.raises(ValueError, match=r"target='labels' needs .* a linear layer"):
        merge_models(nets, [X, X], [CODES, CODES], repair="refit", target="labels")


def test_few_samples_are_announced_whatever_the_target():
    nets = fitted(NetClassifier, CODES)
    for target in ("own", "probability"):
        given = [X, X] if target == "own" else X
        with pytest.warns(SklmcWarning, match="'refit' on .* samples may harm"):
            merge_models(nets, given, repair="refit", target=target)
