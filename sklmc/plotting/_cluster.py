"""ClusterDisplay: a dendrogram beside the matrix of barriers that it was made of."""

from __future__ import annotations

import numpy as np
from scipy.cluster import hierarchy

from sklmc.connectivity import ModelClusters
from sklmc.plotting._checks import (
    QUANTITIES,
    check_finite_number,
    check_keywords,
    check_labels,
    check_pairs,
    check_text,
    score_models,
)
from sklmc.plotting._style import COLORS, draw_matrix, new_axes


class ClusterDisplay:
    """Models clustered by the barriers between them: dendrogram and reordered matrix.

    Create it with :meth:`from_models` or :meth:`from_scores`.

    Parameters
    ----------
    clusters : ModelClusters
        The hierarchy, and the matrix that it was made of.
    vmax : float, default=None
        Value of the last colour. What `from_scores` sets is the mean loss of the models, so that
        light pairs are those whose barrier is as high as the loss itself [1]_.
    name : str, default="epsilon"
        What the colour bar is called.
    labels : list of str, default=None
        Names of the models; None numbers them.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure, with two axes and a colour bar.
    ax_ : matplotlib Axes
        The axes of the matrix.
    dendrogram_ax_ : matplotlib Axes
        The axes of the dendrogram.
    image_ : matplotlib AxesImage
        The matrix in the order of the leaves.
    colorbar_ : matplotlib Colorbar
        Its scale.

    See Also
    --------
    BarrierMatrixDisplay : The matrix as it is.

    References
    ----------
    .. [1] "On linear mode connectivity up to permutation of hidden neurons in neural networks:
       when does model averaging work?", thesis and slides, 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from sklmc.connectivity import ModelClusters
    >>> from sklmc.plotting import ClusterDisplay
    >>> matrix = np.array([[0.0, 0.9, 0.1], [0.9, 0.0, 0.8], [0.1, 0.8, 0.0]])
    >>> linkage = np.array([[0.0, 2.0, 0.1, 2.0], [1.0, 3.0, 0.8, 3.0]])
    >>> display = ClusterDisplay(ModelClusters(linkage, matrix)).plot()
    >>> display.image_.get_array().shape
    (3, 3)
    """

    def __init__(self, clusters, vmax=None, name="epsilon", labels=None):
        self.clusters = clusters
        self.vmax = vmax
        self.name = name
        self.labels = labels

    @classmethod
    def from_models(
        cls, models, X, y=None, *, scorer=None, quantity="epsilon", linkage="single", on="distance"
    ):
        """Score all pairs of models and cluster them.

        Parameters
        ----------
        models : list, or dict of str to model
            At least two skorch nets, fitted sklmc estimators, Pipelines or torch.nn.Modules; the
            labels of a dict name the rows.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
            Samples.
        y : array-like of shape (n_samples,), default=None
            Labels or targets. None where X holds them (Dataset, DataLoader).
        scorer : LMCScorer, default=None
            How to score; None means ``LMCScorer()``.
        quantity : {"barrier", "epsilon", "calibrated_barrier"}, default="epsilon"
            Which matrix.
        linkage : {"single", "complete", "average", "weighted"}, default="single"
            See :meth:`sklmc.PairwiseScore.cluster`.
        on : {"distance", "rows"}, default="distance"
            See :meth:`sklmc.PairwiseScore.cluster`.

        Returns
        -------
        display : ClusterDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "ClusterDisplay.from_models"
        labels, scores = score_models(models, X, y, scorer, caller)
        return cls.from_scores(scores, quantity=quantity, linkage=linkage, on=on, labels=labels)

    @classmethod
    def from_scores(
        cls, scores, *, quantity="epsilon", linkage="single", on="distance", labels=None
    ):
        """Cluster pairs that are scored already.

        Parameters
        ----------
        scores : PairwiseScore
            The pairs.
        quantity : {"barrier", "epsilon", "calibrated_barrier"}, default="epsilon"
            Which matrix.
        linkage : {"single", "complete", "average", "weighted"}, default="single"
            See :meth:`sklmc.PairwiseScore.cluster`.
        on : {"distance", "rows"}, default="distance"
            See :meth:`sklmc.PairwiseScore.cluster`.
        labels : list of str, default=None
            Names of the models; None numbers them.

        Returns
        -------
        display : ClusterDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "ClusterDisplay.from_scores"
        n = len(check_pairs(scores, quantity, caller))
        labels = check_labels(labels, caller, n, optional=True)
        clusters = scores.cluster(quantity=quantity, linkage=linkage, on=on)
        metric = scores.error if scores.metric == "error" else scores.loss
        mean = float(np.mean(metric[:, [0, -1]]))
        vmax = mean if mean > 0 else None
        return cls(clusters=clusters, vmax=vmax, name=QUANTITIES[quantity], labels=labels)

    def plot(self, ax=None, *, vmax=None, color_threshold=None, image_kw=None):
        """Draw dendrogram and matrix.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Its place is shared between the two; None makes a figure at column width.
        vmax : float, default=None
            Value of the last colour; None takes the display's own.
        color_threshold : float, default=None
            Merges up to this height are coloured; None takes 0.7 of the largest.
        image_kw : dict, default=None
            Keywords for ``Axes.imshow``.

        Returns
        -------
        display : ClusterDisplay
            Itself.
        """
        clusters = self.clusters
        if not isinstance(clusters, ModelClusters):
            raise TypeError(
                "ClusterDisplay: 'clusters' must be a ModelClusters object, got "
                f"{type(clusters).__name__}; PairwiseScore.cluster() makes one."
            )
        caller = type(self).__name__
        check_keywords(caller, image_kw=image_kw)
        check_finite_number(vmax, caller, "vmax")
        check_finite_number(self.vmax, caller, "vmax")
        check_finite_number(color_threshold, caller, "color_threshold")
        check_text(self.name, caller, "name")
        n = len(clusters.matrix)
        labels = check_labels(self.labels, caller, n, optional=True) or range(n)
        ax, self.figure_ = new_axes(caller, ax, height=3.1)
        ax.set_axis_off()
        self.dendrogram_ax_ = ax.inset_axes((0.0, 0.0, 0.28, 1.0))
        self.ax_ = ax.inset_axes((0.31, 0.0, 0.69, 1.0))
        hierarchy.set_link_color_palette([color for color in COLORS if color != "#000000"])
        try:
            tree = hierarchy.dendrogram(
                clusters.linkage,
                ax=self.dendrogram_ax_,
                orientation="left",
                no_labels=True,
                color_threshold=color_threshold,
                above_threshold_color="#555555",
            )
        finally:
            hierarchy.set_link_color_palette(None)
        self.dendrogram_ax_.invert_yaxis()
        self.dendrogram_ax_.spines[["top", "left", "right"]].set_visible(False)
        self.dendrogram_ax_.set_xlabel("height")
        self.dendrogram_ax_.locator_params(axis="x", nbins=2)
        order = np.array(tree["leaves"])
        matrix = clusters.matrix[np.ix_(order, order)]
        top = self.vmax if vmax is None else vmax
        look, bar_kw = {"aspect": "auto", **(image_kw or {})}, {"label": self.name, "ax": ax}
        self.image_, self.colorbar_ = draw_matrix(self.ax_, matrix, top, look, bar_kw)
        self.ax_.yaxis.tick_right()
        shown = range(0, n, max(1, -(-n // 25)))
        self.ax_.set_yticks(shown, [str(labels[order[k]]) for k in shown], fontsize=6)
        self.ax_.set(xticks=[], xlabel="model")
        return self
