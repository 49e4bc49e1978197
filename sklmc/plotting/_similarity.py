"""FeatureSimilarityDisplay: which hidden units are alike."""

from __future__ import annotations

from sklmc.features import feature_similarity
from sklmc.plotting._checks import check_frame, check_keywords
from sklmc.plotting._style import new_axes

COLUMNS = ("layer", "unit_a", "unit_b", "similarity")


class FeatureSimilarityDisplay:
    """A heat map of the similarity of hidden units, ordered by cluster.

    Create it with :meth:`from_models` or :meth:`from_frame`.

    Parameters
    ----------
    frame : DataFrame
        Rows of :func:`sklmc.features.feature_similarity`, of one layer.

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
    >>> display = FeatureSimilarityDisplay.from_models(MLP(2, 1, width=6)).plot()
    >>> display.image_.get_array().shape
    (6, 6)
    """

    def __init__(self, frame):
        self.frame = frame

    @classmethod
    def from_models(cls, a, b=None, X=None, *, on="weight", layer=None):
        """Compare the units of one layer.

        Parameters
        ----------
        a, b : skorch net, fitted sklmc estimator or torch.nn.Module
            The net, and the one that it is compared with; None compares A with itself.
        X : array-like of shape (n_samples, ...), default=None
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
        if not isinstance(layer, (str, type(None))):
            raise TypeError(f"{cls.__name__}: 'layer' must be one layer's name, got {layer!r}.")
        return cls.from_frame(feature_similarity(a, b, X, on=on, layers=layer), layer)

    @classmethod
    def from_frame(cls, frame, layer=None):
        """Take similarities that were computed already.

        Parameters
        ----------
        frame : DataFrame
            Rows of :func:`sklmc.features.feature_similarity`.
        layer : str, default=None
            Which layer to draw; None takes the first.

        Returns
        -------
        display : FeatureSimilarityDisplay
            To be drawn with :meth:`plot`.
        """
        check_frame(frame, cls.__name__, "frame", COLUMNS, "feature_similarity")
        layers = list(frame.layer.unique())
        layer = layers[0] if layer is None else layer
        if layer not in layers:
            raise ValueError(
                f"{cls.__name__}: 'layer' must be one of {layers!r}, which the frame holds, got "
                f"{layer!r}."
            )
        return cls(frame[frame.layer == layer])

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
        rows, columns = self.frame.unit_a.unique(), self.frame.unit_b.unique()
        values = self.frame.similarity.to_numpy().reshape(len(rows), len(columns))
        self.ax_, self.figure_ = new_axes(caller, ax, height=3.0)
        self.ax_.set_facecolor("0.8")
        keywords = {"cmap": "PuOr_r", "vmin": -1.0, "vmax": 1.0, "interpolation": "nearest"}
        self.image_ = self.ax_.imshow(values, **{**keywords, **(image_kw or {})})
        self.figure_.colorbar(self.image_, ax=self.ax_, shrink=0.8, label="similarity")
        self.ax_.set(xlabel="unit, by cluster", ylabel="unit, by cluster")
        self.ax_.set_title(self.frame.layer.iloc[0], fontsize="medium")
        return self
