"""FeatureSimilarityDisplay: which hidden units are alike."""

from __future__ import annotations

from sklmc.features import feature_similarity
from sklmc.models import view_through
from sklmc.plotting._checks import (
    check_frame,
    check_keywords,
    check_labels,
    check_layer,
    rows_of_layer,
    split_pair,
)
from sklmc.plotting._style import new_axes

COLUMNS = ("layer", "unit_a", "unit_b", "similarity")


class FeatureSimilarityDisplay:
    """A heat map of the similarity of hidden units, ordered by cluster.

    Create it with :meth:`from_model`, :meth:`from_models` or :meth:`from_frame`.

    Parameters
    ----------
    frame : DataFrame
        Rows of :func:`sklmc.features.feature_similarity`, of one layer.
    ends : sequence of two str, default=None
        Names of the two nets whose units are compared; None: of a net with itself.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn last.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    image_ : matplotlib AxesImage
        The heat map; units without a similarity are grey.

    See Also
    --------
    sklmc.features.feature_similarity : The numbers.

    Examples
    --------
    >>> from sklmc import FeatureSimilarityDisplay
    >>> from sklmc.nets import MLP
    >>> display = FeatureSimilarityDisplay.from_model(MLP(2, 1, width=6)).plot()
    >>> display.image_.get_array().shape
    (6, 6)
    """

    def __init__(self, frame, ends=None):
        self.frame = frame
        self.ends = ends

    @classmethod
    def from_model(cls, model, X=None, *, on="weight", layer=None):
        """Compare the units of one layer with each other.

        Parameters
        ----------
        model : skorch net, fitted sklmc estimator, Pipeline or torch.nn.Module
            The net. A Pipeline counts as its last step.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader, default=None
            Samples, for activations.
        on : {"weight", "activation"}, default="weight"
            Cosine of incoming weights, or correlation of activations.
        layer : str, default=None
            Module path; None takes the first layer that has units to compare.

        Returns
        -------
        display : FeatureSimilarityDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "FeatureSimilarityDisplay.from_model"
        check_layer(layer, caller)
        (inner,), _, X = view_through([model], X, caller, ["model"])
        return cls.from_frame(feature_similarity(inner, X=X, on=on, layers=layer), layer=layer)

    @classmethod
    def from_models(cls, models, X=None, *, on="weight", layer=None):
        """Compare the units of one layer between two models.

        Parameters
        ----------
        models : list of two, or dict of str to model
            Skorch nets, fitted sklmc estimators, Pipelines or torch.nn.Modules of one
            architecture; a Pipeline counts as its last step. Units of the first are rows. The
            labels of a dict name them in place of A and B.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader, default=None
            Samples, for activations.
        on : {"weight", "activation"}, default="weight"
            Cosine of incoming weights, or correlation of activations.
        layer : str, default=None
            Module path; None takes the first layer that has units to compare.

        Returns
        -------
        display : FeatureSimilarityDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "FeatureSimilarityDisplay.from_models"
        check_layer(layer, caller)
        labels, (a, b), X = split_pair(models, X, caller)
        frame = feature_similarity(a, b, X, on=on, layers=layer)
        return cls.from_frame(frame, layer=layer, ends=labels or ("A", "B"))

    @classmethod
    def from_frame(cls, frame, *, layer=None, ends=None):
        """Take similarities that were computed already.

        Parameters
        ----------
        frame : DataFrame
            Rows of :func:`sklmc.features.feature_similarity`.
        layer : str, default=None
            Which layer to draw; None takes the first.
        ends : sequence of two str, default=None
            Names of the two nets whose units are compared; None: of a net with itself.

        Returns
        -------
        display : FeatureSimilarityDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "FeatureSimilarityDisplay.from_frame"
        check_frame(frame, caller, "frame", COLUMNS, "feature_similarity")
        check_labels(ends, caller, 2, "ends", optional=True)
        return cls(rows_of_layer(frame, layer, caller, 0), ends)

    def plot(self, ax=None, *, image_kw=None):
        """Draw the heat map.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure at column width.
        image_kw : dict, default=None
            Keywords for ``Axes.imshow``.

        Returns
        -------
        display : FeatureSimilarityDisplay
            Itself.
        """
        caller = type(self).__name__
        check_keywords(caller, image_kw=image_kw)
        check_frame(self.frame, caller, "frame", COLUMNS, "feature_similarity")
        ends = check_labels(self.ends, caller, 2, "ends", optional=True)
        rows, columns = self.frame.unit_a.unique(), self.frame.unit_b.unique()
        values = self.frame.similarity.to_numpy().reshape(len(rows), len(columns))
        self.ax_, self.figure_ = new_axes(caller, ax, height=3.0)
        self.ax_.set_facecolor("0.8")
        keywords = {"cmap": "PuOr_r", "vmin": -1.0, "vmax": 1.0, "interpolation": "nearest"}
        self.image_ = self.ax_.imshow(values, **{**keywords, **(image_kw or {})})
        self.figure_.colorbar(self.image_, ax=self.ax_, shrink=0.8, label="similarity")
        rows_of, columns_of = [f" of {end}" for end in ends or ()] or ["", ""]
        self.ax_.set(xlabel=f"unit{columns_of}, by cluster", ylabel=f"unit{rows_of}, by cluster")
        self.ax_.set_title(self.frame.layer.iloc[0], fontsize="medium")
        return self
