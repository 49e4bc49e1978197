"""The pieces on which a net with two inputs is affine: polygons, cut layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from sklmc.features._layers import Layer, trace_layers
from sklmc.features._nets_on_samples import layer_reader
from sklmc.models import Arrays, ModelView, check_finite, predict_outputs, view

ON_LINE = 1e-11  # of a unit's range over the box: nearer to zero counts as zero
AFFINE_ERROR = 1e-6  # of the outputs' range: more than rounding makes of an affine function
BATCH = 2**15  # points per forward pass
KINK_AT_ZERO = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU)
FUNCTIONS_AT_ZERO = ("relu()", "clamp()", "leaky_relu()", "prelu()", "abs()")


class LinearRegions:
    """The linear regions of a net with two inputs, in a box.

    Attributes
    ----------
    polygons : list of ndarray of shape (n_vertices, 2)
        The regions, convex, vertices counterclockwise; together they tile the box.
    bounds : tuple of two (float, float)
        The box: range of the first input, range of the second.

    See Also
    --------
    linear_regions : Finds them.

    Examples
    --------
    >>> import torch
    >>> from sklmc.features import linear_regions
    >>> regions = linear_regions(torch.nn.Linear(2, 1), ((0, 2), (0, 1)))
    >>> regions.n_regions, regions.to_frame().loc[0, "area"]
    (1, np.float64(2.0))
    """

    def __init__(self, polygons: list[np.ndarray], bounds):
        self.polygons = polygons
        self.bounds = bounds

    @property
    def n_regions(self) -> int:
        """Number of regions."""
        return len(self.polygons)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per region.

        Returns
        -------
        DataFrame
            `region`, `area` (in squared units of the inputs), `n_vertices`, and the centre of
            mass `x0`, `x1`.
        """
        centres = [centroid(polygon) for polygon in self.polygons]
        return pd.DataFrame(
            {
                "region": np.arange(self.n_regions),
                "area": [area(polygon) for polygon in self.polygons],
                "n_vertices": [len(polygon) for polygon in self.polygons],
                "x0": [centre[0] for centre in centres],
                "x1": [centre[1] for centre in centres],
            }
        )

    def __repr__(self) -> str:
        return f"LinearRegions(n_regions={self.n_regions}, bounds={self.bounds!r})"


def linear_regions(model, bounds):
    """Find the linear regions of a ReLU net with two inputs exactly.

    A region is where no ReLU switches: a convex polygon on which the net is an affine function.
    Layer by layer every polygon is cut along the lines where a unit's input is zero. Units that
    nothing depends on count as well, so that the number is never below that of distinct affine
    pieces.

    Parameters
    ----------
    model : skorch net, fitted sklmc estimator or torch.nn.Module
        A net that takes two features. Its activations must be piecewise linear with known kinks
        (ReLU, LeakyReLU, PReLU, ReLU6, Hardtanh, abs); anything else between them must be affine.
    bounds : tuple of two (float, float)
        The box ``((x0, x1), (y0, y1))``: range of the first feature, range of the second.

    Returns
    -------
    LinearRegions
        With `n_regions`, `polygons` and `to_frame()`.

    Raises
    ------
    ValueError
        If the input is not two-dimensional, an activation is not piecewise linear, the net
        proves not to be affine on a polygon, or the bounds are no box.

    See Also
    --------
    RedundancyReducer : Fewer units with (nearly) the same function.

    Notes
    -----
    Runs in float64 on a copy of the net. Time and memory grow with the number of regions, which
    one layer of n units can make about ``n**2 / 2``: about a tenth of a millisecond each.

    References
    ----------
    .. [1] Montufar, Pascanu, Cho, Bengio, "On the number of linear regions of deep neural
       networks", NeurIPS 2014.
    .. [2] Hanin and Rolnick, "Deep ReLU networks have surprisingly few activation patterns",
       NeurIPS 2019.

    Examples
    --------
    >>> import torch
    >>> from sklmc.features import linear_regions
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    >>> with torch.no_grad():  # one horizontal and one vertical line
    ...     _ = net[0].weight.copy_(torch.eye(2))
    ...     _ = net[0].bias.zero_()
    >>> linear_regions(net, ((-1, 1), (-1, 1))).n_regions
    4
    """
    caller = "linear_regions"
    box = check_bounds(bounds, caller)
    look = _double_copy(model, caller)
    (x0, x1), (y0, y1) = box
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    layers = trace_layers(look, (torch.from_numpy(corners),))
    polygons = [corners]
    for layer, kinks in _switches(layers, caller):
        inputs = _inputs_at(look, layer, np.concatenate(polygons))
        tol = ON_LINE * np.abs(inputs).max(axis=0, initial=0.0)
        ends = np.cumsum([len(polygon) for polygon in polygons])[:-1]
        pieces: list[np.ndarray] = []
        for polygon, values in zip(polygons, np.split(inputs, ends)):
            shifted = np.concatenate([values - kink for kink in kinks], axis=1)
            pieces.extend(cut_polygon(polygon, shifted, np.tile(tol, len(kinks))))
        polygons = pieces
    _check_affine(look, polygons, caller)
    return LinearRegions(polygons, box)


def check_bounds(bounds, caller: str):
    """Return the box as floats."""
    try:
        (x0, x1), (y0, y1) = bounds
        box = ((float(x0), float(x1)), (float(y0), float(y1)))
    except (TypeError, ValueError):
        raise ValueError(
            f"{caller}: 'bounds' must be ((x0, x1), (y0, y1)), got {bounds!r}."
        ) from None
    if not all(np.isfinite(low) and np.isfinite(high) and low < high for low, high in box):
        raise ValueError(
            f"{caller}: 'bounds' must be finite with the lower end first, got {bounds!r}."
        )
    return box


def _double_copy(model, caller: str) -> ModelView:
    """Return a view of a float64 copy on the CPU of a model that takes two features."""
    look = view(model, caller=caller, name="model")
    if look.earlier:
        raise TypeError(
            f"{caller}: 'model' is a Pipeline, and regions lie in the input of the net itself; "
            "pass its last step."
        )
    check_finite(look.state, caller, "model")
    module = copy.deepcopy(look.module).double().cpu()
    try:
        width = tuple(look.sample()[0].shape[1:])
    except ValueError:  # the shape of the input is not known: the run will tell
        width = (2,)
    if width != (2,):
        raise ValueError(
            f"{caller}: 'model' takes inputs of shape {width}, but regions are found in two "
            "dimensions; pass a net with two input features."
        )
    return view(module, caller=caller, name="model")


def _switches(layers: Sequence[Layer], caller: str) -> list[tuple[Layer, list[float]]]:
    """Return every activation with the values of its input at which it has a kink."""
    found, refused = [], []
    for layer in layers:
        if layer.function is None or layer.kind not in ("relu", "activation"):
            continue
        module = layer.module
        plain = layer.name.split(":")[0].rpartition(".")[2]
        if isinstance(module, KINK_AT_ZERO) or plain in FUNCTIONS_AT_ZERO:
            found.append((layer, [0.0]))
        elif isinstance(module, nn.Hardtanh):  # ReLU6 is one
            found.append((layer, [float(module.min_val), float(module.max_val)]))
        elif plain == "relu6()":
            found.append((layer, [0.0, 6.0]))
        else:
            refused.append(layer.name)
    if refused:
        raise ValueError(
            f"{caller}: the activations {refused!r} of 'model' are not piecewise linear with known "
            "kinks, so that it has no linear regions to count; use ReLU, LeakyReLU, PReLU, ReLU6, "
            "Hardtanh or abs."
        )
    return found


def _inputs_at(look: ModelView, layer: Layer, points: np.ndarray) -> np.ndarray:
    """Return an activation's input (n_points, n_units) at points of the plane."""
    with layer_reader(look, inputs=[layer.name]) as reader:
        parts = [
            reader.run((torch.from_numpy(points[start : start + BATCH]),)).inputs[layer.name]
            for start in range(0, len(points), BATCH)
        ]
    return torch.cat(parts).reshape(len(points), -1).numpy()


def _check_affine(look: ModelView, polygons: list[np.ndarray], caller: str) -> None:
    """Refuse a net whose output inside a polygon is not what affine functions make of its corners.

    Each polygon is probed at a point that is not symmetric in its corners.
    """
    points = np.concatenate(polygons)
    sizes = np.array([len(polygon) for polygon in polygons])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    ranks = np.arange(len(points)) - np.repeat(starts, sizes)
    weights = 1.0 / (1.0 + ranks)
    weights /= np.repeat(np.add.reduceat(weights, starts), sizes)

    def run(x: np.ndarray) -> np.ndarray:
        outputs = predict_outputs(look, Arrays(torch.from_numpy(x)), batch_size=BATCH)
        return outputs.flatten(1).numpy()

    corners = run(points)
    expected = np.add.reduceat(weights[:, None] * corners, starts)
    found = run(np.add.reduceat(weights[:, None] * points, starts))
    scale = np.abs(corners).max() + np.ptp(corners)
    worst = np.abs(found - expected).max()
    if not worst <= AFFINE_ERROR * scale and worst > 0:
        raise ValueError(
            f"{caller}: 'model' is not affine where none of its activations switches (error "
            f"{worst:.3g}): it holds something that is not piecewise linear, such as a norm over "
            "units, a softmax or a maximum."
        )


def cut_polygon(vertices: np.ndarray, values: np.ndarray, tol: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the parts of a convex polygon (m, 2) between the zero lines of affine functions.

    `values` (m, k) are the functions' values at the vertices; a value within `tol` (k,) of zero
    is on the line. Parts keep the orientation of the polygon.
    """
    stack = [(vertices, values, tol)]
    while stack:
        vertices, values, tol = stack.pop()
        values = np.where(np.abs(values) <= tol, 0.0, values)
        crossing = (values > 0).any(axis=0) & (values < 0).any(axis=0)
        if not crossing.any():
            yield vertices
            continue
        for part in _cut_once(vertices, values[:, crossing]):
            stack.append((*part, tol[crossing][1:]))


def _cut_once(vertices: np.ndarray, values: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut a polygon along the zero line of its first function; later functions go along."""
    first = values[:, 0]
    rest = np.column_stack([vertices, values[:, 1:]])
    upper, lower = [], []
    for i, (value, following) in enumerate(zip(first, np.roll(first, -1))):
        if value >= 0:
            upper.append(rest[i])
        if value <= 0:
            lower.append(rest[i])
        if value * following < 0:
            share = value / (value - following)
            point = (1.0 - share) * rest[i] + share * rest[(i + 1) % len(rest)]
            upper.append(point)
            lower.append(point)
    return [(part[:, :2], part[:, 2:]) for part in map(np.array, (upper, lower))]


def area(polygon: np.ndarray) -> float:
    """Return the area of a polygon (m, 2)."""
    x, y = (polygon - polygon[0]).T  # relative to a corner: small polygons lose no digits
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2.0


def centroid(polygon: np.ndarray) -> np.ndarray:
    """Return the centre of mass of a polygon (m, 2)."""
    x, y = (polygon - polygon[0]).T
    cross = x * np.roll(y, -1) - y * np.roll(x, -1)
    total = cross.sum()
    if total == 0:
        return polygon.mean(axis=0)
    centre = [np.dot(z + np.roll(z, -1), cross) / (3.0 * total) for z in (x, y)]
    return polygon[0] + np.array(centre)
