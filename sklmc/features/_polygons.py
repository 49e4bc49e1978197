"""Convex polygons cut by the zero lines of functions that are affine on each of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


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
        for part in _halves(vertices, values[:, crossing]):
            stack.append((*part, tol[crossing][1:]))


def _halves(vertices: np.ndarray, values: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
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
