"""PreactivationDisplay: how many hidden units are driven, and how strongly."""

from __future__ import annotations

import numpy as np

from sklmc._validation import check_integer
from sklmc.features import preactivation_scale
from sklmc.models import view_through
from sklmc.plotting._checks import (
    check_frames,
    check_keywords,
    check_layer,
    name_models,
    rows_of_layer,
    split_frames,
    split_models,
)
from sklmc.plotting._style import add_legend, line_style, new_axes

COLUMNS = ("layer", "scale")


class PreactivationDisplay:
    """A histogram of the scales of ReLU inputs, one outline per label.

    Create it with :meth:`from_model`, :meth:`from_models` or :meth:`from_frame`.

    Parameters
    ----------
    frames : dict of str to DataFrame
        For each label the rows of :func:`sklmc.features.preactivation_scale`, of one layer.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn last.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    outlines_ : list of matplotlib StepPatch
        One histogram per label.

    See Also
    --------
    sklmc.features.preactivation_scale : The numbers.

    References
    ----------
    .. [1] Ito, Yamada, Chijiwa, Kumagai, "Do we really need permutations? Impact of width
       expansion on linear mode connectivity", 2025.

    Examples
    --------
    >>> import torch
    >>> from sklmc import PreactivationDisplay
    >>> from sklmc.nets import MLP
    >>> nets = {"narrow": MLP(3, 2, width=8), "wide": MLP(3, 2, width=64)}
    >>> display = PreactivationDisplay.from_models(nets, torch.randn(20, 3)).plot()
    >>> len(display.outlines_)
    2
    """

    def __init__(self, frames):
        self.frames = frames

    @classmethod
    def from_model(cls, model, X, *, layer=None):
        """Measure one model.

        Parameters
        ----------
        model : skorch net, fitted sklmc estimator, Pipeline or torch.nn.Module
            The net.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
            Samples.
        layer : str, default=None
            Which ReLU; None takes the last one.

        Returns
        -------
        display : PreactivationDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "PreactivationDisplay.from_model"
        return cls.from_frame(_scales(model, X, layer, caller, "model"), layer=layer)

    @classmethod
    def from_models(cls, models, X, *, layer=None):
        """Measure some models, of any architectures.

        Parameters
        ----------
        models : list, or dict of str to model
            Skorch nets, fitted sklmc estimators, Pipelines or torch.nn.Modules; those of a list
            are numbered.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
            Samples.
        layer : str, default=None
            Which ReLU; None takes the last one of each.

        Returns
        -------
        display : PreactivationDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "PreactivationDisplay.from_models"
        labels, models = split_models(models, caller)
        names = name_models(labels, len(models))
        labels = labels or [f"model {k}" for k in range(len(models))]
        frames = {
            label: _scales(model, X, layer, caller, name)
            for label, name, model in zip(labels, names, models)
        }
        return cls.from_frame(frames, layer=layer)

    @classmethod
    def from_frame(cls, frame, *, layer=None):
        """Take scales that were measured already.

        Parameters
        ----------
        frame : DataFrame, list of DataFrame, or dict of str to any of these
            Rows of :func:`sklmc.features.preactivation_scale`, by label. The units of several
            frames under one label are counted together.
        layer : str, default=None
            Which layer; None takes the last one of each label.

        Returns
        -------
        display : PreactivationDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "PreactivationDisplay.from_frame"
        frames = split_frames(frame, caller, "units", COLUMNS, "preactivation_scale")
        return cls({key: rows_of_layer(one, layer, caller, -1) for key, one in frames.items()})

    def plot(self, ax=None, *, n_bins=40, outline_kw=None):
        """Draw the histograms, as shares of units.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure at column width.
        n_bins : int, default=40
            Number of bins from 0 to the largest scale.
        outline_kw : dict, default=None
            Keywords for ``Axes.stairs``.

        Returns
        -------
        display : PreactivationDisplay
            Itself.
        """
        caller = type(self).__name__
        check_integer(n_bins, caller, "n_bins", 1)
        check_keywords(caller, outline_kw=outline_kw)
        check_frames(self.frames, caller, "frames", COLUMNS, "preactivation_scale")
        self.ax_, self.figure_ = new_axes(caller, ax)
        largest = max(frame.scale.max() for frame in self.frames.values())
        edges = np.linspace(0.0, largest if largest > 0 else 1.0, n_bins + 1)
        self.outlines_ = []
        for index, (label, frame) in enumerate(self.frames.items()):
            counts, _ = np.histogram(frame.scale, edges)
            keywords = {"label": label, "linewidth": 1.3, **line_style(index)}
            outline = self.ax_.stairs(
                counts / max(1, len(frame)), edges, **{**keywords, **(outline_kw or {})}
            )
            self.outlines_.append(outline)
        self.ax_.set(xlabel="root mean square of a unit's ReLU input", ylabel="share of units")
        add_legend(self.ax_, len(self.frames))
        return self


def _scales(model, X, layer, caller: str, name: str):
    """Return the scales of one model; a Pipeline is seen through."""
    check_layer(layer, caller)
    (inner,), _, X = view_through([model], X, caller, [name])
    return preactivation_scale(inner, X, layers="relu" if layer is None else layer)
