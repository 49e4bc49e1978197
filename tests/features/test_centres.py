"""Centres of polygons and features by unit, at their edges."""

from __future__ import annotations

import numpy as np
import torch

from sklmc.features._preactivations import by_unit
from sklmc.features._regions import centroid


def test_centre_of_a_polygon_without_area_is_the_mean_of_its_corners():
    line = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    np.testing.assert_allclose(centroid(line), [1.0, 1.0])
    np.testing.assert_allclose(centroid(np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])), [1.0, 1.0])


def test_one_value_a_sample_is_one_unit():
    assert by_unit(torch.arange(5.0), -1).tolist() == [[0.0, 1.0, 2.0, 3.0, 4.0]]
    assert by_unit(torch.zeros(5, 3), -1).shape == (3, 5)
