"""PathDisplay: the loss along the line between two nets."""

from __future__ import annotations

import numpy as np

from sklmc._validation import check_array, check_mapping, check_names, check_option
from sklmc.connectivity import PairwiseScore, PathScore
from sklmc.plotting._checks import check_keywords, check_labels, score_models
from sklmc.plotting._style import add_legend, draw_band, draw_line, line_style, new_axes

LABELS = {
    "loss": "loss",
    "calibrated_loss": "calibrated loss",
    "error": "error",
    "inverse_temperature": "inverse temperature",
}


class PathDisplay:
    """The loss along straight lines between nets, drawn against alpha.

    Create it with :meth:`from_models` or :meth:`from_scores`.

    Parameters
    ----------
    alphas : ndarray of shape (n_alphas,)
        Positions: 0 is model A, 1 is model B.
    curves : dict of str to dict of str to ndarray of shape (n_paths, n_alphas)
        For each label, for each of "loss", "calibrated_loss", "error" and "inverse_temperature"
        that is known, the values of one or more paths.
    ends : sequence of two str, default=("A", "B")
        Names of the nets at 0 and 1.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn last.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    lines_ : list of matplotlib Line2D
        One for each label and metric: the path, or the median of the paths.
    bands_ : list of matplotlib PolyCollection
        Where a label has several paths: the range of their middle half.

    See Also
    --------
    LMCScorer : Computes the paths.

    References
    ----------
    .. [1] Goodfellow, Vinyals, Saxe, "Qualitatively characterizing neural network optimization
       problems", ICLR 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from sklmc import PathDisplay, PathScore
    >>> alphas = np.linspace(0, 1, 5)
    >>> loss = 0.2 + alphas * (1 - alphas)
    >>> score = PathScore(alphas=alphas, loss=loss, error=loss / 2)
    >>> display = PathDisplay.from_scores({"naive": score}).plot()
    >>> display.ax_.get_xlabel()
    'alpha (0: A, 1: B)'
    """

    def __init__(self, alphas, curves, ends=("A", "B")):
        self.alphas = alphas
        self.curves = curves
        self.ends = ends

    @classmethod
    def from_models(cls, models, X, y=None, *, scorer=None):
        """Score the line between two models.

        Parameters
        ----------
        models : list of two, or dict of str to model
            Skorch nets, fitted sklmc estimators, Pipelines or torch.nn.Modules. The first
            (alpha = 0) is the reference; the second moves onto it if the scorer has an aligner.
            The labels of a dict name the ends.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
            Samples.
        y : array-like of shape (n_samples,), default=None
            Labels or targets. None where X holds them (Dataset, DataLoader).
        scorer : LMCScorer, default=None
            How to score; None means ``LMCScorer(n_alphas=25)``.

        Returns
        -------
        display : PathDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "PathDisplay.from_models"
        labels, scores = score_models(models, X, y, scorer, caller, 2, n_alphas=25)
        return cls.from_scores(scores, ends=labels or ("A", "B"))

    @classmethod
    def from_scores(cls, scores, *, ends=("A", "B")):
        """Take paths that are scored already.

        Parameters
        ----------
        scores : PathScore, PairwiseScore, list of PathScore, or dict of str to any of these
            Several paths under one label are drawn as their median with a band.
        ends : sequence of two str, default=("A", "B")
            Names of the nets at 0 and 1.

        Returns
        -------
        display : PathDisplay
            To be drawn with :meth:`plot`.
        """
        if not isinstance(scores, dict):
            scores = {"path": scores}
        if not scores:
            raise ValueError("PathDisplay.from_scores: 'scores' is empty; pass at least one.")
        check_labels(ends, "PathDisplay.from_scores", 2, "ends")
        alphas, curves = None, {}
        for label, score in scores.items():
            seen, curves[label] = _curves_of(score)
            if alphas is None:
                alphas = seen
            elif not np.array_equal(alphas, seen):
                raise ValueError(
                    f"PathDisplay.from_scores: {label!r} has other alphas than the first score "
                    f"({len(seen)} and {len(alphas)}); score all with the same 'n_alphas'."
                )
        return cls(alphas=alphas, curves=curves, ends=ends)

    def plot(self, ax=None, *, metric="loss", line_kw=None, band_kw=None):
        """Draw the paths.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure at column width.
        metric : str or list of str, default="loss"
            "loss", "calibrated_loss", "error" or "inverse_temperature"; several share the axes.
        line_kw : dict, default=None
            Keywords for ``Axes.plot``.
        band_kw : dict, default=None
            Keywords for ``Axes.fill_between``.

        Returns
        -------
        display : PathDisplay
            Itself.
        """
        caller = type(self).__name__
        check_keywords(caller, line_kw=line_kw, band_kw=band_kw)
        n_alphas = len(check_array(self.alphas, caller, "alphas", (None,)))
        for known in check_mapping(self.curves, caller, "curves").values():
            for paths in check_mapping(known, caller, "curves").values():
                n_paths = len(np.atleast_2d(np.asarray(paths)))
                check_array(np.atleast_2d(paths), caller, "curves", (n_paths, n_alphas))
        ends = check_labels(self.ends, caller, 2, "ends")
        metrics = check_names(metric, caller, "metric")
        if not metrics or not self.curves:
            raise ValueError(f"{caller}: {'metric' if self.curves else 'curves'!r} is empty.")
        for one in metrics:
            check_option(one, LABELS, "PathDisplay", "metric")
            missing = [label for label, known in self.curves.items() if one not in known]
            if missing:
                raise ValueError(
                    f"PathDisplay: there is no {one!r} for {missing[0]!r}; set 'calibration' of "
                    "the LMCScorer."
                )
        self.ax_, self.figure_ = new_axes("PathDisplay", ax)
        self.lines_, self.bands_ = [], []
        for index, (label, known) in enumerate(self.curves.items()):
            for k, one in enumerate(metrics):
                # colour tells labels apart, dashes tell metrics apart where there are several
                style = {"label": label, "linewidth": 1.5}
                if len(metrics) > 1:
                    style["label"] = f"{label}, {LABELS[one]}"
                    style["linestyle"] = line_style(k)["linestyle"]
                paths = np.atleast_2d(known[one])
                median = np.median(paths, axis=0)
                line = draw_line(self.ax_, self.alphas, median, index, line_kw, **style)
                self.lines_.append(line)
                if len(paths) > 1:
                    low, high = np.quantile(paths, [0.25, 0.75], axis=0)
                    band = draw_band(self.ax_, line, self.alphas, low, high, band_kw)
                    self.bands_.append(band)
        self.ax_.set_xlabel(f"alpha (0: {ends[0]}, 1: {ends[1]})", wrap=True)
        self.ax_.set_ylabel(LABELS[metrics[0]] if len(metrics) == 1 else _common(metrics))
        self.ax_.set_xlim(0, 1)
        add_legend(self.ax_, len(self.lines_))
        return self


def _common(metrics) -> str:
    """Name an axis that several metrics share."""
    return "loss" if all(name.endswith("loss") for name in metrics) else "value"


def _curves_of(score):
    """Return the alphas and the known curves (n_paths, n_alphas) of what from_scores takes."""
    if isinstance(score, (list, tuple)) and score:
        parts = [_curves_of(one) for one in score]
        alphas = parts[0][0]
        if any(not np.array_equal(alphas, other) for other, _ in parts):
            raise ValueError(
                "PathDisplay.from_scores: the scores of one label have different alphas; score "
                "all with the same 'n_alphas'."
            )
        shared = [name for name in parts[0][1] if all(name in known for _, known in parts)]
        return alphas, {
            name: np.concatenate([known[name] for _, known in parts]) for name in shared
        }
    if not isinstance(score, (PathScore, PairwiseScore)):
        raise TypeError(
            "PathDisplay.from_scores: 'scores' must hold PathScore or PairwiseScore objects, got "
            f"{type(score).__name__}; LMCScorer().path(a, b, X, y) gives one."
        )
    values = {name: getattr(score, name) for name in LABELS}
    known = {name: np.atleast_2d(value) for name, value in values.items() if value is not None}
    return score.alphas, known
