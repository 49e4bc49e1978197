"""Grids of populations: what is trained, what comes back, what is refused."""

from __future__ import annotations

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import LRScheduler

from sklmc import DeepEnsemble, ModelGrid, NetClassifier, NetRegressor
from sklmc.exceptions import DivergedMemberWarning
from tests.estimators.modules import Explosive

NET = NetClassifier(max_epochs=2)
WIDTHS = {"module__width": [2, 4]}


def bits(grid):
    return [
        [
            b"".join(t.numpy().tobytes() for t in net.module_.state_dict().values())
            for net in cell.estimators
        ]
        for cell in grid.cells_
    ]


@pytest.fixture(scope="module")
def fitted(moons):
    return ModelGrid(NET, WIDTHS, n_estimators=3, random_state=0).fit(*moons)


def test_a_population_for_every_point_in_order(moons):
    grid = ModelGrid(
        NET,
        [{"module__width": [4, 2], "lr": [0.1, 0.2]}, {"optimizer": torch.optim.SGD}],
        n_estimators=2,
        random_state=0,
    ).fit(*moons)
    assert [cell.params for cell in grid.cells_] == [
        {"lr": 0.1, "module__width": 4},
        {"lr": 0.1, "module__width": 2},
        {"lr": 0.2, "module__width": 4},
        {"lr": 0.2, "module__width": 2},
        {"optimizer": torch.optim.SGD},
    ]
    assert [cell.params for cell in grid] == [cell.params for cell in grid.cells_]
    for cell in grid:
        assert len(cell.estimators) == 2
        for net, seed in zip(cell.estimators, cell.seeds):
            assert net.random_state == seed
            assert all(net.get_params()[name] == value for name, value in cell.params.items())


def test_members_are_those_of_their_seeds(fitted, moons):
    for cell in fitted:
        for net in cell.estimators:
            alone = clone(net).fit(*moons)
            for one, other in zip(alone.module_.parameters(), net.module_.parameters()):
                assert torch.allclose(one, other, atol=1e-6)


def test_more_cells_and_members_leave_the_old_ones_alone(fitted, moons):
    grid = ModelGrid(NET, {"module__width": [8, 4, 2]}, n_estimators=5, random_state=0)
    grid.fit(*moons)
    for cell in fitted:
        assert grid.cell(**cell.params).seeds[:3] == cell.seeds
    seeds = [seed for cell in grid for seed in cell.seeds]
    assert len(set(seeds)) == len(seeds)
    other = clone(fitted).set_params(random_state=1).fit(*moons)
    assert not set(seeds) & {seed for cell in other for seed in cell.seeds}


@pytest.mark.parametrize("n_jobs, backend", [(2, "threading"), (2, "multiprocessing")])
def test_nets_do_not_depend_on_jobs(n_jobs, backend, fitted, moons):
    with joblib.parallel_config(backend):
        again = clone(fitted).set_params(n_jobs=n_jobs).fit(*moons)
    assert bits(again) == bits(fitted)


def test_cells_are_found_by_their_parameters(fitted):
    assert fitted.cell(module__width=4) is fitted.cells_[1]
    with pytest.raises(ValueError, match=r"2 cells have {}.*Name more"):
        fitted.cell()
    with pytest.raises(ValueError, match=r"0 cells have {'module__width': 5}.*There are"):
        fitted.cell(module__width=5)
    with pytest.raises(ValueError, match=r"'module__widht'.*Did you mean 'module__width'"):
        fitted.cell(module__widht=4)


def test_summary_is_mean_and_spread_over_members(fitted, moons):
    X, y = moons[0][:40], moons[1][:40]
    table = fitted.summary(X, y)
    assert table["module__width"].tolist() == [2, 4]
    for row, cell in zip(table.to_dict("records"), fitted):
        scores = np.array([net.score(X, y) for net in cell.estimators])
        assert row["test_accuracy_mean"] == pytest.approx(scores.mean())
        assert row["test_accuracy_std"] == pytest.approx(scores.std())
        truth = [
            -np.log(net.predict_proba(moons[0])[range(96), moons[1]]).mean()
            for net in cell.estimators
        ]
        assert row["train_loss_mean"] == pytest.approx(np.mean(truth), rel=1e-5)
        assert row["n_estimators"] == 3
        assert row["n_diverged"] == 0


def test_frame_has_a_row_for_every_member(fitted):
    frame = fitted.to_frame()
    assert frame.columns.tolist() == [
        *("module__width", "member", "seed", "n_epochs", "diverged"),
        *("train_loss", "train_accuracy"),
    ]
    assert len(frame) == 6
    assert frame["n_epochs"].unique().tolist() == [2]
    assert frame["train_loss"].tolist() == [v for cell in fitted for v in cell.train_loss]


def test_regressors_have_errors_and_r2(moons, targets):
    grid = ModelGrid(NetRegressor(max_epochs=3), WIDTHS, n_estimators=2, random_state=0)
    grid.fit(moons[0], targets)
    row = grid.summary(moons[0], targets).iloc[1]
    nets = grid.cells_[1].estimators
    errors = [((net.predict(moons[0]) - targets) ** 2).mean() for net in nets]
    assert row["test_loss_mean"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert row["train_r2_mean"] == pytest.approx(
        np.mean([net.score(moons[0], targets) for net in nets]), abs=1e-5
    )


@pytest.mark.parametrize(
    "estimator, params",
    [
        (make_pipeline(StandardScaler(), NET), {"netclassifier__module__width": [2, 4]}),
        (SGDClassifier(loss="log_loss"), {"alpha": [0.1, 0.2]}),
        (SGDClassifier(), {"alpha": [0.1]}),
    ],
)
def test_other_estimators_can_be_trained_too(estimator, params, moons):
    grid = ModelGrid(estimator, params, n_estimators=2, random_state=0).fit(*moons)
    assert len(grid.cells_) == len(next(iter(params.values())))
    assert grid.summary(*moons)["test_accuracy_mean"].between(0.3, 1).all()
    assert len(grid.to_frame()) == 2 * len(grid.cells_)


def test_cells_with_objects_as_values(moons):
    """Schedules, classes and None tell cells apart, and are shown by name."""
    schedules = [None, [LRScheduler("CosineAnnealingLR", T_max=2)]]
    grid = ModelGrid(NET, {"callbacks": schedules}, n_estimators=2, random_state=0).fit(*moons)
    assert grid.cells_[0].seeds != grid.cells_[1].seeds
    assert "event_lr" in grid.cells_[1].estimators[0].history[-1]
    optimizers = {"optimizer": [torch.optim.SGD, torch.optim.Adam]}
    grid = ModelGrid(NET, optimizers, n_estimators=1, random_state=0).fit(*moons)
    assert grid.to_frame()["optimizer"].tolist() == ["SGD", "Adam"]
    assert grid.cell(optimizer=torch.optim.Adam) is grid.cells_[1]


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("n_shared", [0, 2])
def test_spawned_members_share_their_first_epochs(n_shared, vectorize, moons):
    net = NetClassifier(module__width=4, max_epochs=4)
    grid = ModelGrid(net, WIDTHS, n_estimators=3, vectorize=vectorize, random_state=0)
    for cell in grid.spawn(n_shared).fit(*moons):
        losses = np.array([net.history[:, "train_loss"] for net in cell.estimators])
        assert np.ptp(losses[:, :n_shared], axis=0).max(initial=0) == 0
        assert (np.ptp(losses[:, n_shared:], axis=0) > 0).all()
        short = grid.spawn(4).set_params(estimator__max_epochs=max(n_shared, 1)).fit(*moons)
        weights = [net.module_.state_dict() for net in short.cells_[0].estimators]
        assert all(torch.equal(weights[0][name], w[name]) for w in weights for name in w)


@pytest.mark.filterwarnings("ignore:NetClassifier. training diverged")
def test_diverged_members_are_named_and_the_others_kept(moons):
    net = NetClassifier(Explosive, max_epochs=2)
    grid = ModelGrid(net, {"lr": [0.01, 0.02]}, n_estimators=6, random_state=0)
    with pytest.warns(DivergedMemberWarning, match="diverged in members of 2 of 2 cells"):
        grid.fit(*moons)
    for cell in grid:
        assert 0 < len(cell.diverged) < 6
        assert np.isnan(cell.train_loss[cell.diverged]).all()
    table = grid.summary(*moons)
    assert table["n_diverged"].tolist() == [len(cell.diverged) for cell in grid]
    assert np.isfinite(table["test_loss_mean"]).all()


def test_data_and_estimator_stay_as_they_were(moons):
    net = clone(NET)
    before = net.get_params()
    ModelGrid(net, WIDTHS, n_estimators=2, random_state=0).fit(*moons)
    assert net.get_params() == before
    assert not net.initialized_


def test_same_ensemble_as_deep_ensemble_of_the_same_seeds(moons):
    """A cell is an ordinary population: chunks and vectorizing are those of DeepEnsemble."""
    grid = ModelGrid(NET, {"module__width": 4}, n_estimators=4, random_state=0).fit(*moons)
    ensemble = DeepEnsemble(clone(NET).set_params(module__width=4), 4).fit(*moons)
    assert grid.cells_[0].vectorized == ensemble.vectorized_


@pytest.mark.parametrize(
    "options, error, match",
    [
        ({"param_grid": {"module__widht": [2]}}, TypeError, "Did you mean 'width'"),
        ({"param_grid": {"widht": [2]}}, ValueError, "'widht'"),
        ({"param_grid": {"optimizer__mometum": [2]}}, TypeError, "'optimizer__mometum'"),
        ({"param_grid": {"random_state": [1, 2]}}, ValueError, "'random_state' cannot be"),
        ({"param_grid": {"lr": [0.1, 0.1]}}, ValueError, "twice"),
        ({"param_grid": []}, ValueError, "no point"),
        ({"param_grid": [3]}, TypeError, "must be a dict or a list of dicts, got 3"),
        ({"param_grid": "lr"}, ValueError, "'param_grid' parameter of ModelGrid"),
        ({"n_estimators": 0}, ValueError, "'n_estimators' parameter of ModelGrid"),
        ({"estimator": SGDClassifier(), "param_grid": {"alhpa": [1]}}, ValueError, "'alpha'"),
        (
            {"param_grid": {"compile": [True]}, "vectorize": True},
            ValueError,
            "ModelGrid: 'vectorize' is True.*'compile' is set",
        ),
    ],
)
def test_bad_values_are_named(options, error, match, moons):
    grid = ModelGrid(**{"estimator": NET, "param_grid": WIDTHS, **options})
    with pytest.raises(error, match=match):
        grid.fit(*moons)


def test_bad_spawns_are_named(moons):
    grid = ModelGrid(SGDClassifier(), {"alpha": [1.0]}, random_state=0)
    with pytest.raises(ValueError, match=r"ModelGrid.spawn: 'estimator' must be"):
        grid.spawn(1).fit(*moons)
    with pytest.raises(ValueError, match="'n_epochs' must be at least 0"):
        grid.spawn(-1)


def test_unfitted_grid_says_so():
    grid = ModelGrid(NET, WIDTHS)
    for use in (grid.to_frame, grid.cell, lambda: list(grid)):
        with pytest.raises(ValueError, match="not fitted"):
            use()
