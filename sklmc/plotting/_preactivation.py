"""PreactivationDisplay: how many hidden units are driven, and how strongly."""

from __future__ import annotations

import numpy as np

from sklmc._validation import check_integer, check_mapping
from sklmc.features import preactivation_scale
from sklmc.models import see_through, transform, view
from sklmc.plotting._checks import check_frame, check_keywords
from sklmc.plotting._style import add_legend, line_style, new_axes


class PreactivationDisplay:
    """A histogram of the scales of ReLU inputs, one outline per label.

    Create it with :meth:`from_models` or :meth:`from_frames`.

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
    def from_models(cls, models, X, *, layer=None):
        """Measure one or more models.

        Parameters
        ----------
        models : model, or dict of str to model
            Skorch nets, fitted sklmc estimators, Pipelines or torch.nn.Modules, by label.
        X : array-like of shape (n_samples, ...)
            Samples.
        layer : str, default=None
            Which ReLU; None takes the last one.

        Returns
        -------
        display : PreactivationDisplay
            To be drawn with :meth:`plot`.
        """
        if not isinstance(layer, (str, type(None))):
            raise TypeError(f"{cls.__name__}: 'layer' must be one layer's name, got {layer!r}.")
        models = models if isinstance(models, dict) and models else {"units": models}
        frames = {}
        for label, model in models.items():
            earlier, inner = see_through(model)
            name = "models" if len(models) == 1 else f"models[{label!r}]"
            inner = view(inner, caller=f"{cls.__name__}.from_models", name=name)
            frames[label] = preactivation_scale(
                inner, transform(earlier, X), layers="relu" if layer is None else layer
            )
        return cls.from_frames(frames, layer)

    @classmethod
    def from_frames(cls, frames, layer=None):
        """Take scales that were measured already.

        Parameters
        ----------
        frames : DataFrame or dict of str to DataFrame
            Rows of :func:`sklmc.features.preactivation_scale`, by label.
        layer : str, default=None
            Which layer; None takes the last one of each frame.

        Returns
        -------
        display : PreactivationDisplay
            To be drawn with :meth:`plot`.
        """
        frames = frames if isinstance(frames, dict) and frames else {"units": frames}
        chosen = {}
        for label, frame in frames.items():
            check_frame(frame, cls.__name__, "frames", ["layer", "scale"], "preactivation_scale")
            name = frame.layer.iloc[-1] if layer is None else layer
            if name not in list(frame.layer.unique()):
                raise ValueError(
                    f"{cls.__name__}: 'layer' must be one of {list(frame.layer.unique())!r}, which "
                    f"{label!r} holds, got {name!r}."
                )
            chosen[label] = frame[frame.layer == name]
        return cls(chosen)

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
        for frame in check_mapping(self.frames, caller, "frames").values():
            check_frame(frame, caller, "frames", ["layer", "scale"], "preactivation_scale")
        if not self.frames:
            raise ValueError(f"{caller}: 'frames' is empty; pass at least one.")
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
