"""FeatureConnectivityDisplay: how features between two nets relate to those of the nets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sklmc._validation import check_option
from sklmc.features import (
    layerwise_exponential_connectivity,
    layerwise_linear_connectivity,
    reciprocal_orthogonality,
    weak_additivity,
)
from sklmc.plotting._checks import check_frames, check_keywords, split_frames, split_pair
from sklmc.plotting._style import add_legend, draw_band, draw_line, new_axes

ROUNDING = 1e-12  # 1 - cosine that float32 features have by rounding alone (angles of 1e-6)
MEASURES = {  # measure: function, columns that are drawn, name of the first
    "linear": (
        layerwise_linear_connectivity,
        ("one_minus_cosine", "one_minus_cosine_ab"),
        "1 - cosine",
    ),
    "exponential": (layerwise_exponential_connectivity, ("cosine",), "cosine"),
    "weak_additivity": (weak_additivity, ("cosine", "null"), "cosine"),
    "orthogonality": (reciprocal_orthogonality, ("ratio",), "norm ratio"),
}


class FeatureConnectivityDisplay:
    """A measure of features, drawn layer by layer for one or more pairs of nets.

    Create it with :meth:`from_models` or :meth:`from_frame`.

    Parameters
    ----------
    frames : dict of str to DataFrame
        For each label the rows that a measure of ``sklmc.features`` returns, of one pair or of
        several below each other.
    measure : {"linear", "exponential", "weak_additivity", "orthogonality"}
        Which measure it is.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn last.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    lines_ : list of matplotlib Line2D
        The mean of each label over pairs and alphas; "linear" on a logarithmic axis that ends
        above what is rounding alone.
    reference_ : list of matplotlib Line2D
        What the measure is compared with: 1 - cosine between the nets themselves for "linear"
        (dotted, in the label's colour), the value of independent Gaussian vectors for
        "weak_additivity" (grey); none otherwise.

    See Also
    --------
    sklmc.features.layerwise_linear_connectivity : The measure drawn by default.

    References
    ----------
    .. [1] Zhou, Yang, Yang, Yan, Hu, "Going beyond linear mode connectivity: the layerwise
       linear feature connectivity", NeurIPS 2023.

    Examples
    --------
    >>> import torch
    >>> from sklmc import FeatureConnectivityDisplay
    >>> from sklmc.nets import MLP
    >>> a, b = MLP(4, 2, width=8, depth=2), MLP(4, 2, width=8, depth=2)
    >>> display = FeatureConnectivityDisplay.from_models([a, b], torch.randn(20, 4)).plot()
    >>> display.ax_.get_ylabel()
    '1 - cosine'
    """

    def __init__(self, frames, measure):
        self.frames = frames
        self.measure = measure

    @classmethod
    def from_models(cls, models, X, *, measure="linear", **options):
        """Measure a pair of models.

        Parameters
        ----------
        models : list of two, or dict of str to model
            Skorch nets, fitted sklmc estimators, Pipelines or torch.nn.Modules; a Pipeline counts
            as its last step. The first, A (alpha = 0), is the reference. The labels of a dict
            name the pair in the legend.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
            Samples.
        measure : {"linear", "exponential", "weak_additivity", "orthogonality"}, default="linear"
            What is measured.
        **options : dict
            Further arguments of the measure: `alphas`, `layers`.

        Returns
        -------
        display : FeatureConnectivityDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "FeatureConnectivityDisplay.from_models"
        function, *_ = MEASURES[check_option(measure, MEASURES, caller, "measure")]
        labels, (a, b), X = split_pair(models, X, caller)
        label = "pair" if labels is None else f"{labels[0]} to {labels[1]}"
        return cls({label: function(a, b, X, **options)}, measure)

    @classmethod
    def from_frame(cls, frame, *, measure="linear"):
        """Take what was measured already.

        Parameters
        ----------
        frame : DataFrame, list of DataFrame, or dict of str to any of these
            Several frames under one label (pairs) are drawn as their mean with their range.
        measure : {"linear", "exponential", "weak_additivity", "orthogonality"}, default="linear"
            What was measured.

        Returns
        -------
        display : FeatureConnectivityDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "FeatureConnectivityDisplay.from_frame"
        function, columns, _ = MEASURES[check_option(measure, MEASURES, caller, "measure")]
        source = function.__name__
        return cls(split_frames(frame, caller, "pair", ["layer", *columns], source), measure)

    def plot(self, ax=None, *, line_kw=None, band_kw=None):
        """Draw one line per label over the layers.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure at column width.
        line_kw : dict, default=None
            Keywords for ``Axes.plot``.
        band_kw : dict, default=None
            Keywords for ``Axes.fill_between``, the range over pairs and alphas.

        Returns
        -------
        display : FeatureConnectivityDisplay
            Itself.
        """
        caller = type(self).__name__
        check_keywords(caller, line_kw=line_kw, band_kw=band_kw)
        function, columns, text = MEASURES[check_option(self.measure, MEASURES, caller, "measure")]
        check_frames(self.frames, caller, "frames", ["layer", *columns], function.__name__)
        self.ax_, self.figure_ = new_axes(caller, ax)
        self.lines_, self.reference_ = [], []
        layers: list[str] = []
        for index, (label, frame) in enumerate(self.frames.items()):
            layers += [name for name in frame.layer.unique() if name not in layers]
            groups = frame.groupby("layer", sort=False)[columns[0]]
            places = [layers.index(name) for name in frame.layer.unique()]
            mean, low, high = groups.mean(), groups.min(), groups.max()
            style = {"label": label, "marker": "o", "markersize": 3}
            line = draw_line(self.ax_, places, mean, index, line_kw, **style)
            self.lines_.append(line)
            if (high > low).any():
                draw_band(self.ax_, line, places, low, high, band_kw)
            self._plot_reference(frame, places, line.get_color(), index)
        self.ax_.set_xticks(range(len(layers)), layers, rotation=45, ha="right", fontsize="small")
        self.ax_.set(xlabel="layer", ylabel=text)
        drawn = np.concatenate([line.get_ydata() for line in self.lines_ + self.reference_])
        clear = drawn[drawn > ROUNDING]
        if self.measure == "linear" and clear.size:
            self.ax_.set_yscale("log")  # spawned and independent pairs lie decades apart
            if clear.size < len(drawn):
                self.ax_.set_ylim(bottom=0.3 * clear.min())
        add_legend(self.ax_, len(self.ax_.get_legend_handles_labels()[1]))
        return self

    def _plot_reference(self, frame: pd.DataFrame, places: list[int], color: str, index: int):
        """Draw what the measure is compared with."""
        style = {"linestyle": ":", "linewidth": 1, "color": color}
        if self.measure == "linear":
            ends = frame.groupby("layer", sort=False).one_minus_cosine_ab.mean()
            name = "_" if index else "dotted: A against B"
            self.reference_ += self.ax_.plot(places, ends, label=name, **style)
        elif self.measure == "weak_additivity" and index == 0:
            null = frame.groupby("layer", sort=False).null.mean()
            if np.isfinite(null).any():
                style["color"] = "0.5"
                self.reference_ += self.ax_.plot(places, null, label="Gaussian null", **style)
