"""BarrierMatrixDisplay: the barriers between all pairs of some models as a picture."""

from __future__ import annotations

import numpy as np

from sklmc._validation import check_flag
from sklmc.plotting._checks import (
    QUANTITIES,
    check_finite_number,
    check_keywords,
    check_labels,
    check_pairs,
    check_square,
    check_text,
    score_models,
)
from sklmc.plotting._style import draw_matrix, new_axes


class BarrierMatrixDisplay:
    """The barriers between all pairs of models as a coloured matrix.

    Create it with :meth:`from_models` or :meth:`from_scores`.

    Parameters
    ----------
    matrix : ndarray of shape (n_models, n_models)
        Barriers.
    labels : list of str, default=None
        Names of the models; None numbers them.
    name : str, default="barrier"
        What the colour bar is called.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn last.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    image_ : matplotlib AxesImage
        The matrix.
    colorbar_ : matplotlib Colorbar
        Its scale.

    See Also
    --------
    ClusterDisplay : The matrix in the order of its clusters.

    References
    ----------
    .. [1] Frankle, Dziugaite, Roy, Carbin, "Linear mode connectivity and the lottery ticket
       hypothesis", ICML 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklmc.plotting import BarrierMatrixDisplay
    >>> display = BarrierMatrixDisplay(np.array([[0.0, 0.2], [0.2, 0.0]])).plot()
    >>> display.image_.get_array().shape
    (2, 2)
    """

    def __init__(self, matrix, labels=None, name="barrier"):
        self.matrix = matrix
        self.labels = labels
        self.name = name

    @classmethod
    def from_models(cls, models, X, y=None, *, scorer=None, quantity="barrier"):
        """Score all pairs of models.

        Parameters
        ----------
        models : list, or dict of str to model
            At least two skorch nets, fitted sklmc estimators, Pipelines or torch.nn.Modules; the
            labels of a dict name rows and columns.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
            Samples.
        y : array-like of shape (n_samples,), default=None
            Labels or targets. None where X holds them (Dataset, DataLoader).
        scorer : LMCScorer, default=None
            How to score; None means ``LMCScorer()``.
        quantity : {"barrier", "epsilon", "calibrated_barrier"}, default="barrier"
            Which matrix.

        Returns
        -------
        display : BarrierMatrixDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "BarrierMatrixDisplay.from_models"
        labels, scores = score_models(models, X, y, scorer, caller)
        return cls.from_scores(scores, quantity=quantity, labels=labels)

    @classmethod
    def from_scores(cls, scores, *, quantity="barrier", labels=None):
        """Take pairs that are scored already.

        Parameters
        ----------
        scores : PairwiseScore
            The pairs.
        quantity : {"barrier", "epsilon", "calibrated_barrier"}, default="barrier"
            Which matrix.
        labels : list of str, default=None
            Names of the models; None numbers them.

        Returns
        -------
        display : BarrierMatrixDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "BarrierMatrixDisplay.from_scores"
        matrix = check_pairs(scores, quantity, caller)
        labels = check_labels(labels, caller, len(matrix), optional=True)
        return cls(matrix=matrix, labels=labels, name=QUANTITIES[quantity])

    def plot(self, ax=None, *, vmax=None, annotate=None, image_kw=None):
        """Draw the matrix.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure at column width.
        vmax : float, default=None
            Value of the last colour; larger ones look the same. None takes the largest.
        annotate : bool, default=None
            Whether to write the numbers; None does so for up to six models.
        image_kw : dict, default=None
            Keywords for ``Axes.imshow``.

        Returns
        -------
        display : BarrierMatrixDisplay
            Itself.
        """
        caller = type(self).__name__
        check_keywords(caller, image_kw=image_kw)
        check_finite_number(vmax, caller, "vmax")
        if annotate is not None:
            check_flag(annotate, caller, "annotate")
        n = len(check_square(self.matrix, caller))
        labels = check_labels(self.labels, caller, n, optional=True)
        check_text(self.name, caller, "name")
        self.ax_, self.figure_ = new_axes(caller, ax, height=3.0)
        bar_kw = {"label": self.name, "shrink": 0.8}
        self.image_, self.colorbar_ = draw_matrix(self.ax_, self.matrix, vmax, image_kw, bar_kw)
        if labels is not None:
            self.ax_.set_xticks(range(n), labels, rotation=90)
            self.ax_.set_yticks(range(n), labels)
        else:
            ticks = range(0, n, max(1, -(-n // 10)))
            self.ax_.set(xticks=ticks, yticks=ticks, xlabel="model", ylabel="model")
        if n <= 6 if annotate is None else annotate:
            middle = 0.5 * (self.image_.norm.vmin + self.image_.norm.vmax)
            for (i, j), value in np.ndenumerate(self.matrix):
                look = {"color": "black" if value > middle else "white", "fontsize": 7}
                self.ax_.text(j, i, f"{value:.2g}", ha="center", va="center", **look)
        return self
