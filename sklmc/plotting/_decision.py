"""DecisionRegionDisplay: what a net with two inputs says where."""

from __future__ import annotations

import numpy as np
import torch

from sklmc._validation import check_array, check_flag, check_integer
from sklmc.features import LinearRegions, check_bounds, linear_regions
from sklmc.models import as_logits, predict_outputs, view_through
from sklmc.plotting._checks import check_keywords, check_labels
from sklmc.plotting._style import COLORS, new_axes


class DecisionRegionDisplay:
    """The classes that a net with two inputs predicts over a box, with its linear regions.

    Create it with :meth:`from_model`.

    Parameters
    ----------
    x0, x1 : ndarray of shape (n_points,)
        Grid of the first and the second input.
    scores : ndarray of shape (n_points, n_points, n_classes)
        Logits at ``[second input, first input]``.
    classes : ndarray of shape (n_classes,)
        Names of the classes.
    regions : LinearRegions, default=None
        The linear regions; None draws none.
    X : ndarray of shape (n_samples, 2), default=None
        Points to draw.
    y : ndarray of shape (n_samples,), default=None
        Their classes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn last.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    surface_ : matplotlib QuadMesh
        The predicted classes.
    boundaries_ : list of matplotlib ContourSet
        Where the decision changes: one for each class but the last, if it wins somewhere but not
        everywhere.
    lines_ : matplotlib LineCollection or None
        Edges of the linear regions.

    See Also
    --------
    sklmc.features.linear_regions : The regions as polygons.

    Examples
    --------
    >>> from sklmc import DecisionRegionDisplay
    >>> from sklmc.nets import MLP
    >>> net = MLP(2, 2, width=4)
    >>> box = ((-1, 1), (-1, 1))
    >>> display = DecisionRegionDisplay.from_model(net, bounds=box, n_points=20).plot()
    >>> display.scores.shape
    (20, 20, 2)
    """

    def __init__(self, x0, x1, scores, classes, regions=None, X=None, y=None):
        self.x0 = x0
        self.x1 = x1
        self.scores = scores
        self.classes = classes
        self.regions = regions
        self.X = X
        self.y = y

    @classmethod
    def from_model(cls, model, X=None, y=None, *, bounds=None, regions=True, n_points=200):
        """Run a model over a grid and find its linear regions.

        Parameters
        ----------
        model : skorch net, fitted sklmc estimator, Pipeline or torch.nn.Module
            A classifier with two inputs. A Pipeline is drawn in its own inputs, without linear
            regions.
        X : array-like of shape (n_samples, 2), default=None
            Points to draw.
        y : array-like of shape (n_samples,), default=None
            Their classes.
        bounds : tuple of two (float, float), default=None
            The box ``((x0, x1), (y0, y1))``; None takes the range of X and a tenth around it.
        regions : bool, default=True
            Whether linear regions are found, which takes time for wide nets.
        n_points : int, default=200
            Points of the grid on each side.

        Returns
        -------
        display : DecisionRegionDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "DecisionRegionDisplay.from_model"
        check_integer(n_points, caller, "n_points", 2)
        check_flag(regions, caller, "regions")
        if X is not None:
            X = check_array(X, caller, "X", (None, 2)).astype(float)
            if not np.isfinite(X).all():
                raise ValueError(f"{caller}: 'X' contains NaN or infinity.")
        elif y is not None:
            raise ValueError(f"{caller}: 'y' was given without 'X'; pass the points as well.")
        if bounds is None:
            if X is None:
                raise ValueError(f"{caller}: pass 'bounds', the box to draw, or points 'X'.")
            low, high = X.min(axis=0), X.max(axis=0)
            margin = 0.1 * (high - low)
            bounds = tuple(zip((low - margin).tolist(), (high + margin).tolist()))
        bounds = check_bounds(bounds, caller)
        (low0, high0), (low1, high1) = bounds
        x0, x1 = np.linspace(low0, high0, n_points), np.linspace(low1, high1, n_points)
        points = np.stack(np.meshgrid(x0, x1), axis=-1).reshape(-1, 2).astype(np.float32)
        (look,), (earlier,), points = view_through([model], points, caller, ["model"])
        found = linear_regions(look, bounds) if regions and not earlier else None
        outputs = as_logits(predict_outputs(look, look.to_input(points)))
        scores = outputs.detach().to(torch.float64).numpy().reshape(n_points, n_points, -1)
        classes = np.arange(scores.shape[-1]) if look.classes is None else look.classes
        codes = None if y is None else _codes(y, len(X), classes, caller)
        return cls(x0, x1, scores, classes, found, X, None if y is None else classes[codes])

    def plot(self, ax=None, *, surface_kw=None, line_kw=None, point_kw=None):
        """Draw classes, boundary, linear regions and points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure at column width.
        surface_kw : dict, default=None
            Keywords for ``Axes.pcolormesh``.
        line_kw : dict, default=None
            Keywords for the ``LineCollection`` of the regions' edges.
        point_kw : dict, default=None
            Keywords for ``Axes.scatter``.

        Returns
        -------
        display : DecisionRegionDisplay
            Itself.
        """
        caller = type(self).__name__
        check_keywords(caller, surface_kw=surface_kw, line_kw=line_kw, point_kw=point_kw)
        self._check_numbers(caller)
        self.ax_, self.figure_ = new_axes(caller, ax, height=3.0)
        from matplotlib.collections import LineCollection
        from matplotlib.colors import ListedColormap

        n_classes = self.scores.shape[-1]
        colors = [COLORS[k % len(COLORS)] for k in range(n_classes)]
        best = self.scores.argmax(axis=-1)
        keywords = {"cmap": ListedColormap(colors), "alpha": 0.25, "rasterized": True}
        keywords |= {"vmin": -0.5, "vmax": n_classes - 0.5, "shading": "nearest"}
        self.surface_ = self.ax_.pcolormesh(
            self.x0, self.x1, best, **{**keywords, **(surface_kw or {})}
        )
        self.boundaries_ = self._plot_boundaries()
        self.lines_ = None
        if self.regions is not None:
            edges = [np.vstack([polygon, polygon[:1]]) for polygon in self.regions.polygons]
            keywords = {"colors": "0.3", "linewidths": 0.3, "rasterized": len(edges) > 5000}
            self.lines_ = LineCollection(edges, **{**keywords, **(line_kw or {})})
            self.ax_.add_collection(self.lines_)
        if self.X is not None:
            keywords = {"s": 6, "c": "black", "linewidths": 0}
            if self.y is not None:
                codes = _codes(self.y, len(self.X), self.classes, caller)
                keywords["c"] = [colors[k] for k in codes]
            self.ax_.scatter(*self.X.T, **{**keywords, **(point_kw or {})})
        self.ax_.set(xlim=self.x0[[0, -1]], ylim=self.x1[[0, -1]], aspect="equal")
        self.ax_.set(xlabel="first input", ylabel="second input")
        return self

    def _check_numbers(self, caller: str) -> None:
        """Refuse what cannot be drawn."""
        x0 = check_array(self.x0, caller, "x0", (None,))
        x1 = check_array(self.x1, caller, "x1", (None,))
        scores = check_array(self.scores, caller, "scores", (len(x1), len(x0), None))
        check_labels(self.classes, caller, scores.shape[-1], "classes")
        if self.regions is not None and not isinstance(self.regions, LinearRegions):
            raise TypeError(
                f"{caller}: 'regions' must be LinearRegions, got {type(self.regions).__name__}."
            )
        if self.X is not None:
            check_array(self.X, caller, "X", (None, 2))

    def _plot_boundaries(self) -> list:
        """Draw where the greatest logit changes; the last class borders on the others' lines."""
        found = []
        for k in range(self.scores.shape[-1] - 1):
            lead = self.scores[..., k] - np.delete(self.scores, k, axis=-1).max(axis=-1)
            if lead.min() < 0 < lead.max():
                style = {"levels": [0.0], "colors": "black", "linewidths": 1.2}
                found.append(self.ax_.contour(self.x0, self.x1, lead, **style))
        return found


def _codes(y, n_samples: int, classes, caller: str) -> list[int]:
    """Return the place of every label among the classes."""
    places = {label: place for place, label in enumerate(np.asarray(classes).tolist())}
    labels = np.asarray(check_labels(y, caller, n_samples, "y")).tolist()
    unknown = [label for label in labels if label not in places]
    if unknown:
        raise ValueError(
            f"{caller}: 'y' holds the label {unknown[0]!r}; the net's classes are {list(places)!r}."
        )
    return [places[label] for label in labels]
