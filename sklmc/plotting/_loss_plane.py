"""LossPlaneDisplay: the loss on the plane through three nets."""

from __future__ import annotations

import numpy as np

from sklmc._validation import check_integer, check_option
from sklmc.connectivity import LossPlane, loss_plane
from sklmc.plotting._checks import (
    check_finite_number,
    check_keywords,
    check_labels,
    split_models,
)
from sklmc.plotting._style import new_axes


class LossPlaneDisplay:
    """Contours of the loss on the plane through three nets, which are marked.

    Create it with :meth:`from_models` or :meth:`from_scores`.

    Parameters
    ----------
    plane : LossPlane
        The numbers.
    labels : sequence of three str, default=("A", "B", "C")
        Names of the nets.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn last.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    contours_ : matplotlib QuadContourSet
        Filled contours of the excess over the best of the three nets.
    colorbar_ : matplotlib Colorbar
        Their scale.
    points_ : matplotlib Line2D
        The three nets.

    See Also
    --------
    sklmc.loss_plane : Computes the numbers.

    References
    ----------
    .. [1] Garipov, Izmailov, Podoprikhin, Vetrov, Wilson, "Loss surfaces, mode connectivity, and
       fast ensembling of DNNs", NeurIPS 2018.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import NetClassifier
    >>> from sklmc.plotting import LossPlaneDisplay
    >>> X, y = make_moons(60, noise=0.1, random_state=0)
    >>> nets = [NetClassifier(max_epochs=5, random_state=i).fit(X, y) for i in range(3)]
    >>> display = LossPlaneDisplay.from_models(nets, X, y, n_points=7).plot()
    >>> display.points_.get_xdata().shape
    (3,)
    """

    def __init__(self, plane, labels=("A", "B", "C")):
        self.plane = plane
        self.labels = labels

    @classmethod
    def from_models(cls, models, X, y=None, **plane_kw):
        """Score the plane through three models.

        Parameters
        ----------
        models : list of three, or dict of str to model
            Skorch nets, fitted sklmc estimators, Pipelines or torch.nn.Modules. The labels of a
            dict name them in place of A, B and C.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
            Samples.
        y : array-like of shape (n_samples,), default=None
            Labels or targets. None where X holds them (Dataset, DataLoader).
        **plane_kw : object
            Keywords of :func:`sklmc.loss_plane`.

        Returns
        -------
        display : LossPlaneDisplay
            To be drawn with :meth:`plot`.
        """
        labels, models = split_models(models, "LossPlaneDisplay.from_models", 3)
        return cls(loss_plane(models, X, y, **plane_kw), labels or ("A", "B", "C"))

    @classmethod
    def from_scores(cls, scores, *, labels=("A", "B", "C")):
        """Take a plane that is scored already.

        Parameters
        ----------
        scores : LossPlane
            The plane.
        labels : sequence of three str, default=("A", "B", "C")
            Names of the nets.

        Returns
        -------
        display : LossPlaneDisplay
            To be drawn with :meth:`plot`.
        """
        caller = "LossPlaneDisplay.from_scores"
        plane = _check_plane(scores, caller, "scores")
        return cls(plane, check_labels(labels, caller, 3))

    def plot(self, ax=None, *, metric="loss", n_levels=12, vmax=None, contour_kw=None):
        """Draw the plane.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure at column width.
        metric : {"loss", "error"}, default="loss"
            What is drawn.
        n_levels : int, default=12
            Number of contours.
        vmax : float, default=None
            Excess at the last contour; None takes the 95 % quantile of the plane.
        contour_kw : dict, default=None
            Keywords for ``Axes.contourf``.

        Returns
        -------
        display : LossPlaneDisplay
            Itself.
        """
        caller = type(self).__name__
        check_option(metric, ["loss", "error"], caller, "metric")
        check_keywords(caller, contour_kw=contour_kw)
        check_finite_number(vmax, caller, "vmax")
        check_integer(n_levels, caller, "n_levels", 2)
        labels = check_labels(self.labels, caller, 3)
        plane = _check_plane(self.plane, caller, "plane")
        self.ax_, self.figure_ = new_axes(caller, ax, height=2.8)
        values, ends = getattr(plane, metric), getattr(plane, f"model_{metric}")
        excess = np.maximum(values - ends.min(), 0.0)
        finite = excess[np.isfinite(excess)]
        top = vmax if vmax is not None else float(np.quantile(finite, 0.95))
        top = top if top > 0 else 1.0
        # finer steps near the bottom, where nets differ
        levels = top * np.linspace(0.0, 1.0, n_levels) ** 2
        shown = np.ma.masked_invalid(excess)
        keywords = {"levels": levels, "cmap": "cividis", "extend": "max"}
        self.contours_ = self.ax_.contourf(
            plane.x, plane.y, shown, **{**keywords, **(contour_kw or {})}
        )
        thin = {"colors": "white", "linewidths": 0.4, "alpha": 0.7}
        self.ax_.contour(plane.x, plane.y, shown, levels=levels[1:], **thin)
        bar_kw = {"label": f"excess {metric}", "format": "%.2g", "shrink": 0.8}
        self.colorbar_ = self.figure_.colorbar(self.contours_, ax=self.ax_, **bar_kw)
        dots = {"color": "white", "markeredgecolor": "black", "markersize": 6}
        (self.points_,) = self.ax_.plot(*plane.positions.T, "o", **dots)
        # A and B lie at one height, far left and right: long names must not meet or leave the axes
        sides = (("left", "top"), ("right", "bottom"), ("center", "bottom"))
        for label, position, (along, across) in zip(labels, plane.positions, sides):
            self.ax_.annotate(
                label,
                position,
                xytext=(0, 7 if across == "bottom" else -7),
                textcoords="offset points",
                ha=along,
                va=across,
                bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "linewidth": 0},
                fontsize="small",
            )
        self.ax_.set_aspect("equal")
        self.ax_.set_xlabel(f"distance along {labels[0]} to {labels[1]}", wrap=True)
        self.ax_.set_ylabel("distance across")
        return self


def _check_plane(plane, caller: str, name: str) -> LossPlane:
    """Return `plane` if it is one."""
    if not isinstance(plane, LossPlane):
        raise TypeError(
            f"{caller}: '{name}' must be a LossPlane, got {type(plane).__name__}; "
            "sklmc.loss_plane makes one."
        )
    return plane
