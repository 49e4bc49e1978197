"""WidthCurveDisplay: how a score changes with the width of the nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sklmc._validation import check_array, check_flag, check_mapping, check_names
from sklmc.plotting._checks import check_frame, check_keywords, check_text
from sklmc.plotting._style import add_legend, draw_band, draw_line, new_axes

MOST_TICKS = 8  # names of widths at column width


class WidthCurveDisplay:
    """A score against the width of the nets (or another growing parameter), one line per label.

    Create it with :meth:`from_frame` or :meth:`from_scores`.

    Parameters
    ----------
    x : ndarray of shape (n_widths,)
        Widths, rising.
    curves : dict of str to dict of str to ndarray of shape (n_widths,)
        For each label "center" and, where there is a spread, "low" and "high".
    x_name : str, default="width"
        Name of the horizontal axis.
    y_name : str, default="score"
        Name of the vertical axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn last.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    lines_ : list of matplotlib Line2D
        One for each label.
    bands_ : list of matplotlib PolyCollection
        The range from "low" to "high", for the labels that have it.

    See Also
    --------
    LMCScorer : Gives the scores that are worth drawing against width.

    References
    ----------
    .. [1] Entezari, Sedghi, Saukh, Neyshabur, "The role of permutation invariance in linear mode
       connectivity of neural networks", ICLR 2022.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklmc import WidthCurveDisplay
    >>> frame = pd.DataFrame({"width": [8, 8, 32, 32], "barrier": [0.5, 0.3, 0.1, 0.2]})
    >>> display = WidthCurveDisplay.from_frame(frame, y="barrier").plot()
    >>> display.curves["barrier"]["center"].round(2).tolist()
    [0.4, 0.15]
    """

    def __init__(self, x, curves, x_name="width", y_name="score"):
        self.x = x
        self.curves = curves
        self.x_name = x_name
        self.y_name = y_name

    @classmethod
    def from_frame(cls, frame, *, y, x="width", by=None):
        """Summarise the rows of each width by median and quartiles.

        Parameters
        ----------
        frame : DataFrame
            One row for each net, pair or repetition.
        y : str or list of str
            Column, or columns, to be drawn; each gives a line.
        x : str, default="width"
            Column of widths.
        by : str, default=None
            Column that splits rows into lines ("condition", for example).

        Returns
        -------
        display : WidthCurveDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "WidthCurveDisplay.from_frame"
        check_frame(frame, caller, "frame", [], "LMCScorer.grid")
        columns = check_names(y, caller, "y")
        named = {"x": check_names(x, caller, "x"), "y": columns}
        named["by"] = [] if by is None else check_names(by, caller, "by")
        lacking = {n: key for key, names in named.items() for n in names if n not in frame.columns}
        if lacking:
            name, parameter = next(iter(lacking.items()))
            raise ValueError(
                f"{caller}: 'frame' has no column {name!r} ({parameter!r}); its columns "
                f"are {list(frame.columns)!r}."
            )
        parts = [("", frame)] if by is None else list(frame.groupby(by, sort=False))
        widths = np.sort(frame[x].unique())
        curves = {}
        for key, part in parts:
            for column in columns:
                names = [str(key)] if by is not None else []
                names += [column] if by is None or len(columns) > 1 else []
                groups = part.groupby(x)[column]
                table = groups.quantile([0.25, 0.5, 0.75]).unstack().reindex(widths)
                curve = {"center": table[0.5].to_numpy()}
                if groups.size().max() > 1:
                    curve |= {"low": table[0.25].to_numpy(), "high": table[0.75].to_numpy()}
                curves[", ".join(names)] = curve
        return cls(x=widths, curves=curves, x_name=x, y_name=_shared_name(columns))

    @classmethod
    def from_scores(cls, scores, *, quantity="neg_barrier", param=None):
        """Draw the results of a search over widths: mean and standard deviation over splits.

        Parameters
        ----------
        scores : fitted search, or dict
            A GridSearchCV with ``scoring=LMCScorer()``, or its ``cv_results_``.
        quantity : str or list of str, default="neg_barrier"
            Scores to draw, as the scorer names them; those named "neg_..." are drawn with their
            sign turned.
        param : str, default=None
            The parameter searched, ``estimator__module__width`` for example; None takes the only
            one.

        Returns
        -------
        display : WidthCurveDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "WidthCurveDisplay.from_scores"
        results = getattr(scores, "cv_results_", scores)
        if not isinstance(results, Mapping):
            raise TypeError(
                f"{caller}: 'scores' must be a fitted search or its cv_results_, got "
                f"{type(scores).__name__}."
            )
        chosen = check_names(quantity, caller, "quantity")
        if not chosen:
            raise ValueError(f"{caller}: 'quantity' is empty; name at least one.")
        if not all(isinstance(name, str) for name in results):
            raise TypeError(f"{caller}: 'scores' must have names as keys, got {list(results)!r}.")
        names = [name.removeprefix("param_") for name in results if name.startswith("param_")]
        if param is None:
            if len(names) != 1:
                raise ValueError(
                    f"{caller}: {len(names)} parameters were searched ({names!r}) in "
                    "'scores'; name one in 'param'."
                )
            param = names[0]
        wanted = {f"param_{param}": "param", **{f"mean_test_{name}": "quantity" for name in chosen}}
        for key, parameter in wanted.items():
            if key not in results:
                raise ValueError(
                    f"{caller}: the results have no {key!r} ({parameter!r}); they have "
                    f"{sorted(results)!r}."
                )
        x = np.asarray(results[f"param_{param}"]).astype(float)
        order = np.argsort(x, kind="stable")
        if len(np.unique(x)) < len(x):
            raise ValueError(
                f"{caller}: {param!r} takes the same value in several rows, since other parameters "
                "were searched as well; make a frame of the rows to be compared and use from_frame."
            )
        curves = {}
        for name in chosen:
            sign = -1.0 if name.startswith("neg_") else 1.0
            mean = sign * np.asarray(results[f"mean_test_{name}"])[order]
            std = np.asarray(results[f"std_test_{name}"])[order]
            label = name.removeprefix("neg_")
            curves[label] = {"center": mean, "low": mean - std, "high": mean + std}
        return cls(x[order], curves, param.split("__")[-1], _shared_name(list(curves)))

    def plot(self, ax=None, *, log_x=True, line_kw=None, band_kw=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure at column width.
        log_x : bool, default=True
            Whether widths are spaced by their logarithm to base 2.
        line_kw : dict, default=None
            Keywords for ``Axes.plot``.
        band_kw : dict, default=None
            Keywords for ``Axes.fill_between``.

        Returns
        -------
        display : WidthCurveDisplay
            Itself.
        """
        caller = type(self).__name__
        check_keywords(caller, line_kw=line_kw, band_kw=band_kw)
        check_flag(log_x, caller, "log_x")
        n = len(check_array(self.x, caller, "x", (None,)))
        if not check_mapping(self.curves, caller, "curves"):
            raise ValueError(f"{caller}: 'curves' is empty; pass at least one.")
        for curve in self.curves.values():
            for part in ("center", *check_mapping(curve, caller, "curves")):
                check_array(curve.get(part), caller, "curves", (n,))
        for name in ("x_name", "y_name"):
            check_text(getattr(self, name), caller, name)
        self.ax_, self.figure_ = new_axes(caller, ax)
        self.lines_, self.bands_ = [], []
        for index, (label, curve) in enumerate(self.curves.items()):
            style = {"label": label, "marker": "os^Dv<>"[index % 7], "markersize": 4}
            style["linewidth"] = 1.5
            line = draw_line(self.ax_, self.x, curve["center"], index, line_kw, **style)
            self.lines_.append(line)
            if "low" in curve:
                band = draw_band(self.ax_, line, self.x, curve["low"], curve["high"], band_kw)
                self.bands_.append(band)
        if log_x:
            self.ax_.set_xscale("log", base=2)
            ticks = _spaced(self.x)
            self.ax_.set_xticks(ticks, [f"{value:g}" for value in ticks])
            self.ax_.minorticks_off()
        self.ax_.set(xlabel=self.x_name, ylabel=self.y_name)
        add_legend(self.ax_, len(self.lines_))
        return self


def _spaced(x: np.ndarray) -> list[float]:
    """Return those of some rising widths whose names do not run into each other on a log axis."""
    ticks: list[float] = []
    for value in x[x > 0]:
        if not ticks or np.log2(value / ticks[-1]) >= np.log2(x[-1] / ticks[0]) / MOST_TICKS:
            ticks.append(value)
    return ticks


def _shared_name(columns: Sequence[str]) -> str:
    """Name the vertical axis after the only column, or after none."""
    return columns[0].replace("_", " ") if len(columns) == 1 else "value"
