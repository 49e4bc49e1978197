"""What all Displays share: matplotlib on demand, colours that the colour-blind can tell apart."""

from __future__ import annotations

import numpy as np

# Okabe and Ito's palette without its yellow, which is too light for lines on white
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
COLUMN_WIDTH = 3.5  # inches: one column of a two-column page


def new_axes(caller: str, ax=None, width: float = COLUMN_WIDTH, height: float = 2.6):
    """Return (axes, figure): those of `ax`, or new ones at column width."""
    plt = pyplot(caller)
    if ax is not None and not isinstance(ax, plt.Axes):
        raise TypeError(f"{caller}: 'ax' must be matplotlib Axes or None, got {ax!r}.")
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax, ax.figure


def pyplot(caller: str):
    """Import matplotlib.pyplot, or say how to install it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{caller}: plotting needs matplotlib, which is not installed; "
            "run pip install 'sklmc[plot]'."
        ) from error
    return plt


def add_legend(ax, n_lines: int) -> None:
    """Add a legend where there is something to tell apart; above the axes if it is long."""
    if n_lines < 2:
        return
    look: dict[str, object] = {"fontsize": "small"}
    if n_lines > 2:
        look = {"fontsize": "x-small", "loc": "lower left", "bbox_to_anchor": (-0.05, 1.0)}
        look |= {"ncols": 2, "columnspacing": 1.0}
    ax.legend(frameon=False, **look)


def draw_band(ax, line, x, low, high, band_kw: dict | None):
    """Fill the range around a line in the line's colour."""
    keywords = {"color": line.get_color(), "alpha": 0.2, "linewidth": 0}
    return ax.fill_between(x, low, high, **{**keywords, **(band_kw or {})})


def draw_line(ax, x, y, index: int, line_kw: dict | None, **style):
    """Draw the index-th line: told apart by colour or dashes."""
    (line,) = ax.plot(x, y, **{**line_style(index), **style, **(line_kw or {})})
    return line


def draw_matrix(ax, matrix: np.ndarray, vmax: float | None, image_kw: dict | None, bar_kw: dict):
    """Draw a matrix of barriers from dark (0, connected) to light; return it and its colour bar."""
    finite = matrix[np.isfinite(matrix)]
    top = vmax if vmax is not None else (finite.max() if finite.size else 1.0)
    keywords = {"cmap": "cividis", "vmin": 0.0, "vmax": top if top > 0 else 1.0}
    image = ax.imshow(matrix, **{**keywords, "interpolation": "nearest", **(image_kw or {})})
    extend = "max" if np.nanmax(matrix) > image.norm.vmax else "neither"
    return image, ax.figure.colorbar(image, **{"ax": ax, "extend": extend, **bar_kw})


def line_style(index: int) -> dict:
    """Return colour and dashes of the index-th line: told apart by either."""
    return {"color": COLORS[index % len(COLORS)], "linestyle": DASHES[index % len(DASHES)]}
