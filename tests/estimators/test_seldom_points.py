"""Grids that are no grids."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import ParameterGrid

from sklmc.estimators._points import list_points


def test_key_of_a_grid_that_is_no_name_is_refused():
    with pytest.raises(TypeError, match="must have names of parameters as keys, got 3"):
        list_points({3: [1]})
    with pytest.raises(TypeError, match="'param_grid' must be a dict or a list of dicts, got 3"):
        list_points([3])


def test_grid_of_scikit_learn_and_plain_values_are_taken():
    grid = {"a": [1, 2], "b": ["x"]}
    assert list_points(ParameterGrid(grid)) == list_points(grid) == list(ParameterGrid(grid))
    assert list_points({"a": np.array([1, 2]), "b": "x"}) == list_points(grid)
