"""WidthCurveDisplay draws medians, quartiles and the results of searches."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_moons
from sklearn.model_selection import GridSearchCV

from sklmc import DeepEnsemble, LMCScorer, NetClassifier
from sklmc.plotting import WidthCurveDisplay


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    rows = [
        {"width": width, "condition": condition, "barrier": rng.random(), "loss": rng.random()}
        for width in (32, 8, 128)
        for condition in ("naive", "aligned")
        for _ in range(5)
    ]
    return pd.DataFrame(rows)


def test_medians_and_quartiles_of_each_width(frame):
    display = WidthCurveDisplay.from_frame(frame, y="barrier", by="condition").plot()
    assert list(display.curves) == ["naive", "aligned"]
    assert display.x.tolist() == [8, 32, 128]
    for line, (name, part) in zip(display.lines_, frame.groupby("condition", sort=False)):
        groups = part.groupby("width")["barrier"]
        np.testing.assert_allclose(line.get_ydata(), groups.median())
        np.testing.assert_allclose(display.curves[name]["low"], groups.quantile(0.25))
        np.testing.assert_allclose(display.curves[name]["high"], groups.quantile(0.75))
    assert len(display.bands_) == 2
    assert [tick.get_text() for tick in display.ax_.get_xticklabels()] == ["8", "32", "128"]
    assert display.ax_.get_ylabel() == "barrier"


def test_names_of_many_widths_do_not_run_into_each_other():
    widths = [8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024]
    many = pd.DataFrame({"width": widths, "barrier": np.ones(len(widths))})
    ticks = WidthCurveDisplay.from_frame(many, y="barrier").plot().ax_.get_xticks()
    assert ticks.tolist() == [8, 16, 32, 64, 128, 256, 512, 1024]


def test_several_columns(frame):
    display = WidthCurveDisplay.from_frame(frame, y=["barrier", "loss"], by="condition")
    assert list(display.curves) == [
        "naive, barrier",
        "naive, loss",
        "aligned, barrier",
        "aligned, loss",
    ]
    assert list(WidthCurveDisplay.from_frame(frame, y=["barrier", "loss"]).curves) == [
        "barrier",
        "loss",
    ]


def test_single_rows_have_no_band(frame):
    single = frame.drop_duplicates("width")
    assert WidthCurveDisplay.from_frame(single, y="loss").plot().bands_ == []


@pytest.fixture(scope="module")
def search():
    return GridSearchCV(
        DeepEnsemble(NetClassifier(max_epochs=2), n_estimators=2, random_state=0),
        {"estimator__module__width": [8, 2]},
        scoring=LMCScorer(),
        refit="merged_accuracy",
        cv=2,
    ).fit(*make_moons(60, random_state=0))


def test_results_of_a_search_with_signs_turned(search):
    display = WidthCurveDisplay.from_scores(
        search, quantity=("neg_barrier", "merged_accuracy")
    ).plot(log_x=False)
    assert display.x.tolist() == [2, 8]
    results = search.cv_results_
    np.testing.assert_allclose(
        display.curves["barrier"]["center"], -results["mean_test_neg_barrier"][::-1]
    )
    np.testing.assert_allclose(
        display.curves["merged_accuracy"]["high"],
        (results["mean_test_merged_accuracy"] + results["std_test_merged_accuracy"])[::-1],
    )
    assert display.ax_.get_xlabel() == "width"
    bare = WidthCurveDisplay.from_scores(results, quantity="neg_barrier")
    np.testing.assert_array_equal(
        bare.curves["barrier"]["center"], display.curves["barrier"]["center"]
    )


def test_messages(frame, search):
    with pytest.raises(ValueError, match="'frame' has no column 'epsilon'"):
        WidthCurveDisplay.from_frame(frame, y="epsilon")
    with pytest.raises(TypeError, match=r"'scores' must be a fitted search .* got int"):
        WidthCurveDisplay.from_scores(3)
    with pytest.raises(ValueError, match="the results have no 'mean_test_r2'"):
        WidthCurveDisplay.from_scores(search, quantity="r2")
    two = {**search.cv_results_, "param_lr": [1, 2]}
    with pytest.raises(ValueError, match=r"2 parameters were searched .* name one in 'param'"):
        WidthCurveDisplay.from_scores(two)
    assert WidthCurveDisplay.from_scores(two, param="lr").x.tolist() == [1, 2]
    same = {**search.cv_results_, "param_lr": [1, 1]}
    with pytest.raises(ValueError, match="'lr' takes the same value in several rows"):
        WidthCurveDisplay.from_scores(same, param="lr")
