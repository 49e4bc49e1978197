"""Displays are made in four ways only, and alike."""

import inspect

import pytest

from sklmc import plotting
from sklmc.plotting import ClusterDisplay, FeatureConnectivityDisplay, PathDisplay

DATA = {  # what each way takes by position; everything else is an option
    "from_model": ["model", "X", "y"],
    "from_models": ["models", "X", "y"],
    "from_scores": ["scores"],
    "from_frame": ["frame"],
}


@pytest.mark.parametrize("name", plotting.__all__)
def test_entries_are_the_four_and_their_options_keywords(name):
    cls = getattr(plotting, name)
    ways = [way for way, value in vars(cls).items() if isinstance(value, classmethod)]
    assert ways
    for way in ways:
        parameters = inspect.signature(getattr(cls, way)).parameters.values()
        data = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert data == DATA[way][: len(data)]
        assert data[0] == DATA[way][0]
    shown = list(inspect.signature(cls.plot).parameters.values())[1:]
    assert shown[0].name == "ax"
    assert shown[0].default is None
    assert all(p.kind is p.KEYWORD_ONLY for p in shown[1:])


@pytest.mark.parametrize("way", [PathDisplay, FeatureConnectivityDisplay])
@pytest.mark.parametrize("models", [[], [1], {"a": 1, "b": 2, "c": 3}])
def test_pairs_are_two_models(way, models):
    extra = [[0]] if way is PathDisplay else []
    with pytest.raises(ValueError, match=rf"{way.__name__}.from_models: 'models' must hold "):
        way.from_models(models, [[0.0]], *extra)


def test_labels_of_clusters_name_the_rows(pairwise_score):
    display = ClusterDisplay.from_scores(pairwise_score, labels=list("abcdef")).plot()
    names = [tick.get_text() for tick in display.ax_.get_yticklabels()]
    assert names == ["abcdef"[k] for k in display.clusters.order]
