"""Displays of what happens inside nets draw the numbers that they hold."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklmc import NetClassifier
from sklmc.features import feature_similarity, layerwise_linear_connectivity, preactivation_scale
from sklmc.nets import MLP
from sklmc.plotting import (
    DecisionRegionDisplay,
    FeatureConnectivityDisplay,
    FeatureSimilarityDisplay,
    PreactivationDisplay,
)

BOX = ((-1, 1), (-1, 1))


def nets(n=2, **options):
    made = []
    for seed in range(n):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made.append(MLP(**{"n_features": 2, "n_outputs": 3, "width": 6} | options))
    return made


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def classifier(points):
    y = np.where(points[:, 0] > 0, "right", "left")
    return NetClassifier(max_epochs=3, module__width=6, random_state=0).fit(points, y), y


def test_linear_connectivity_with_its_reference(points):
    a, b = nets()
    frame = layerwise_linear_connectivity(a, b, points)
    display = FeatureConnectivityDisplay.from_models([a, b], points).plot()
    means = frame.groupby("layer", sort=False)[["one_minus_cosine", "one_minus_cosine_ab"]].mean()
    np.testing.assert_allclose(display.lines_[0].get_ydata(), means.one_minus_cosine)
    np.testing.assert_allclose(display.reference_[0].get_ydata(), means.one_minus_cosine_ab)
    labels = [tick.get_text() for tick in display.ax_.get_xticklabels()]
    assert labels == frame.layer.unique().tolist()
    assert display.ax_.get_yscale() == "log"


def test_pairs_under_one_label_are_a_mean_with_their_range(points):
    a, b, c = nets(3)
    frames = [layerwise_linear_connectivity(a, other, points, alphas=0.5) for other in (b, c)]
    display = FeatureConnectivityDisplay.from_frame({"x": frames, "y": frames[0]}).plot()
    mean = np.mean([frame.one_minus_cosine for frame in frames], axis=0)
    np.testing.assert_allclose(display.lines_[0].get_ydata(), mean)
    assert len(display.ax_.collections) == 1
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["x", "dotted: A against B", "y"]


def test_what_is_rounding_alone_lies_below_the_axis():
    values = {"one_minus_cosine": [3e-15, 0.02, 0.0], "one_minus_cosine_ab": [0.9, 0.8, 0.7]}
    frame = pd.DataFrame({"layer": list("abc"), **values})
    display = FeatureConnectivityDisplay.from_frame(frame).plot()
    assert display.ax_.get_yscale() == "log"
    assert 1e-3 < display.ax_.get_ylim()[0] < 0.02


@pytest.mark.parametrize("measure", ["exponential", "weak_additivity", "orthogonality"])
def test_other_measures(measure, points):
    _, ax = plt.subplots()
    display = FeatureConnectivityDisplay.from_models(nets(), points, measure=measure).plot(ax)
    assert display.ax_ is ax
    assert len(display.reference_) == (measure == "weak_additivity")
    if measure == "weak_additivity":
        assert display.reference_[0].get_ydata()[0] == pytest.approx(0.9304, abs=1e-4)


def test_frames_of_another_measure_are_refused(points):
    frame = preactivation_scale(nets()[0], points)
    with pytest.raises(ValueError, match="no column 'one_minus_cosine'"):
        FeatureConnectivityDisplay.from_frame(frame)
    with pytest.raises(ValueError, match="no frame under 'a'"):
        FeatureConnectivityDisplay.from_frame({"a": []})
    with pytest.raises(ValueError, match="'measure' must be one of"):
        FeatureConnectivityDisplay.from_frame(frame, measure="cosine")


def test_decisions_are_those_of_the_net(classifier, points):
    net, y = classifier
    display = DecisionRegionDisplay.from_model(net, X=points, y=y, n_points=15).plot()
    x0, x1 = display.x0[4], display.x1[11]
    named = display.classes[display.scores[11, 4].argmax()]
    assert named == net.predict(np.array([[x0, x1]], dtype=np.float32))[0]
    assert len(display.lines_.get_segments()) == display.regions.n_regions
    assert display.x0[0] < points[:, 0].min()
    assert display.x0[-1] > points[:, 0].max()
    assert len(display.ax_.collections[-1].get_offsets()) == len(points)


def test_plain_modules_and_several_classes(points):
    display = DecisionRegionDisplay.from_model(
        nets()[0], bounds=BOX, n_points=10, regions=False
    ).plot()
    assert display.lines_ is None
    assert display.scores.shape == (10, 10, 3)
    first, second = np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[0.5, 0.5], [0.5, 0.5]])
    scores = np.stack([first, second, np.full((2, 2), -1.0)], axis=-1)
    three = DecisionRegionDisplay(np.array([0.0, 1.0]), np.array([0.0, 1.0]), scores, [0, 1, 2])
    lines = [one.get_paths()[0].vertices for one in three.plot().boundaries_]
    assert len(lines) == 2  # the third class wins nowhere
    for line in lines:
        np.testing.assert_allclose(line[:, 0], 0.5)
    with pytest.raises(ValueError, match="pass 'bounds'"):
        DecisionRegionDisplay.from_model(nets()[0])


def test_a_pipeline_is_drawn_in_its_own_inputs(points):
    y = points[:, 0] > 0
    pipeline = make_pipeline(StandardScaler(), NetClassifier(max_epochs=2, random_state=0))
    pipeline.fit(10 * points, y)
    display = DecisionRegionDisplay.from_model(pipeline, X=10 * points, n_points=12)
    grid = np.array([[display.x0[3], display.x1[8]]], dtype=np.float32)
    assert display.classes[display.scores[8, 3].argmax()] == pipeline.predict(grid)[0]
    assert display.plot().lines_ is None


def test_similarities_are_drawn_in_the_order_of_clusters():
    net = nets()[0]
    frame = feature_similarity(net)
    display = FeatureSimilarityDisplay.from_model(net).plot()
    np.testing.assert_allclose(display.image_.get_array().ravel(), frame.similarity)
    with pytest.raises(ValueError, match=r"'layer' must be one of \['layers\.0'\]"):
        FeatureSimilarityDisplay.from_frame(frame, layer="x")


def test_histogram_counts_every_unit(points):
    wide, narrow = nets(1, width=32)[0], nets(1)[0]
    display = PreactivationDisplay.from_models({"wide": wide, "narrow": narrow}, points)
    display.plot(n_bins=7)
    for outline in display.outlines_:
        assert outline.get_data().values.sum() == pytest.approx(1.0)
        assert len(outline.get_data().values) == 7
    frame = pd.DataFrame({"layer": ["a"], "unit": [0], "scale": [1.0]})
    with pytest.raises(ValueError, match=r"must be one of \['a'\], which the frame holds, got 'b'"):
        PreactivationDisplay.from_frame(frame, layer="b")


def test_models_of_a_list_are_numbered_and_one_model_stands_alone(points):
    several = PreactivationDisplay.from_models(nets(), points)
    assert list(several.frames) == ["model 0", "model 1"]
    single = PreactivationDisplay.from_model(nets()[0], points)
    np.testing.assert_array_equal(single.frames["units"].scale, several.frames["model 0"].scale)
    with pytest.raises(TypeError, match=r"from_models: 'models\['odd'\]' "):
        PreactivationDisplay.from_models({"odd": 3}, points)


def test_labels_of_a_pair_name_axes_and_line(points):
    pair = dict(zip(("first", "second"), nets()))
    display = FeatureSimilarityDisplay.from_models(pair, points, on="activation").plot()
    assert display.ax_.get_ylabel() == "unit of first, by cluster"
    assert display.ax_.get_xlabel() == "unit of second, by cluster"
    frame = feature_similarity(*pair.values(), points, on="activation")
    np.testing.assert_array_equal(display.frame.similarity, frame.similarity)
    assert list(FeatureConnectivityDisplay.from_models(pair, points).frames) == ["first to second"]


def test_similarities_see_a_net_through_its_pipeline(points):
    scaler = StandardScaler().fit(10 * points)
    net = NetClassifier(max_epochs=1, module__width=4, random_state=0)
    net.fit(scaler.transform(10 * points).astype(np.float32), points[:, 0] > 0)
    seen = FeatureSimilarityDisplay.from_model(
        make_pipeline(scaler, net), 10 * points, on="activation"
    )
    expected = feature_similarity(net, X=scaler.transform(10 * points), on="activation")
    np.testing.assert_array_equal(seen.frame.similarity, expected.similarity)
