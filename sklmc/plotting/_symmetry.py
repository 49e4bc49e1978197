"""SymmetryDisplay: which axes of which tensors move together."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sklmc._validation import check_integer
from sklmc.plotting._checks import check_frame, check_keywords, check_labels
from sklmc.plotting._style import COLORS, new_axes
from sklmc.symmetry import PermutationSymmetry, discover_symmetry

MARKERS = ("o", "s", "^", "D", "v", "P")  # one per axis of a tensor
ROW_HEIGHT = 0.16  # inches


class SymmetryDisplay:
    """The groups of a net over its tensors: one column per group, one mark per place.

    A vertical line joins all places of a group: they move together. The marker tells the axis: a
    circle is axis 0 (what a layer makes), a square axis 1 (what a layer reads); a hollow mark is a
    tensor that no output sees move. Create it with :meth:`from_model` or :meth:`from_scores`.

    Parameters
    ----------
    tensors : list of str
        Names of the tensors that some group moves, in the order of the state dict: the rows.
    groups : list of str
        Names of the groups, in data-flow order: the columns.
    places : DataFrame
        Columns ``row, column, axis, observable``: where each group lies.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn last.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    lines_ : list of matplotlib Line2D
        One for each group.
    marks_ : list of matplotlib PathCollection
        One for each axis number that occurs.

    See Also
    --------
    sklmc.discover_symmetry : Finds the groups.

    Examples
    --------
    >>> from sklmc.nets import MLP
    >>> from sklmc.plotting import SymmetryDisplay
    >>> display = SymmetryDisplay.from_model(MLP(4, 3, width=8, depth=2))
    >>> display.groups
    ['layers.0 (8)', 'layers.2 (8)']
    >>> display.plot().ax_.get_xlabel()
    'group (size)'
    """

    def __init__(self, tensors, groups, places):
        self.tensors = tensors
        self.groups = groups
        self.places = places

    @classmethod
    def from_model(cls, model, X=None, *, max_groups=60):
        """Discover the symmetry of a model.

        Parameters
        ----------
        model : skorch net, fitted; sklmc estimator, fitted; or torch.nn.Module
            The net.
        X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader, default=None
            A few samples, as in `discover_symmetry`.
        max_groups : int, default=60
            Number of groups that are shown, the first in data-flow order.

        Returns
        -------
        display : SymmetryDisplay
            To be drawn with :meth:`plot`.
        """
        return cls.from_scores(discover_symmetry(model, X), max_groups=max_groups)

    @classmethod
    def from_scores(cls, scores, *, max_groups=60):
        """Take a symmetry that is known.

        Parameters
        ----------
        scores : PermutationSymmetry
            What `discover_symmetry` found.
        max_groups : int, default=60
            Number of groups that are shown, the first in data-flow order.

        Returns
        -------
        display : SymmetryDisplay
            To be drawn with :meth:`plot`.
        """
        if not isinstance(scores, PermutationSymmetry):
            raise TypeError(
                "SymmetryDisplay.from_scores: 'scores' must be a PermutationSymmetry, got "
                f"{type(scores).__name__}; for a model use from_model."
            )
        check_integer(max_groups, "SymmetryDisplay", "max_groups", 1)
        shown = scores.groups[:max_groups]
        touched = {tensor for group in shown for tensor, _ in group.places}
        tensors = [name for name in scores.shapes if name in touched]
        row = {name: place for place, name in enumerate(tensors)}
        records = [
            (row[tensor], column, axis, tensor not in group.unobservable)
            for column, group in enumerate(shown)
            for tensor, axis in group.places
        ]
        places = pd.DataFrame(records, columns=["row", "column", "axis", "observable"])
        return cls(tensors, [_label(group) for group in shown], places)

    def plot(self, ax=None, *, line_kw=None, mark_kw=None):
        """Draw the groups.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure as high as the net has tensors.
        line_kw : dict, default=None
            Keywords for the lines (``Axes.plot``).
        mark_kw : dict, default=None
            Keywords for the marks (``Axes.scatter``).

        Returns
        -------
        display : SymmetryDisplay
            Itself.
        """
        caller = type(self).__name__
        check_keywords(caller, line_kw=line_kw, mark_kw=mark_kw)
        for name in ("tensors", "groups"):
            names = getattr(self, name)
            check_labels(names, caller, len(names) if isinstance(names, list) else 1, name)
        columns = ["row", "column", "axis", "observable"]
        check_frame(self.places, caller, "places", columns, "from_model", rows=False)
        height = 1.2 + ROW_HEIGHT * len(self.tensors)
        width = 2.4 + 0.22 * len(self.groups)
        self.ax_, self.figure_ = new_axes(caller, ax, width=width, height=height)
        colors = [COLORS[column % len(COLORS)] for column in range(len(self.groups))]
        self.lines_ = []
        for column, found in self.places.groupby("column"):
            options = {"color": colors[column], "linewidth": 1.0, **(line_kw or {})}
            ends = [found["row"].min(), found["row"].max()]
            self.lines_ += self.ax_.plot([column, column], ends, **options)
        self.marks_ = []
        for axis, found in self.places.groupby("axis"):
            edges = [colors[column] for column in found["column"]]
            faces = np.where(found["observable"], edges, "white")
            look = {"facecolors": faces, "edgecolors": edges, "zorder": 3, "s": 18}
            look.update(marker=MARKERS[axis % len(MARKERS)], label=f"axis {axis}")
            marks = self.ax_.scatter(found["column"], found["row"], **{**look, **(mark_kw or {})})
            self.marks_.append(marks)
        self.ax_.set_yticks(range(len(self.tensors)), self.tensors, fontsize="xx-small")
        self.ax_.set_xticks(range(len(self.groups)), self.groups, rotation=90, fontsize="xx-small")
        right, bottom = max(1, len(self.groups)) - 0.5, max(1, len(self.tensors)) - 0.5
        self.ax_.set(xlim=(-0.5, right), ylim=(bottom, -0.5))
        self.ax_.set(xlabel="group (size)", ylabel="tensor")
        if self.marks_:
            above = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": len(self.marks_)}
            self.ax_.legend(fontsize="x-small", frameon=False, **above)
        return self


def _label(group) -> str:
    """Return a group's name with its size and number of copies."""
    copies = f" x {group.copies}" if group.within else ""
    return f"{group.name} ({group.size}{copies})"
