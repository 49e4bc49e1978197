"""Checks of plain values."""

from decimal import Decimal

import numpy as np
import pytest
import torch

from sklmc._validation import check_option, check_weights


@pytest.mark.parametrize(
    "weights, wanted",
    [
        (None, [0.5, 0.5]),
        ([1, 3], [0.25, 0.75]),
        ([1e308, 1e308], [0.5, 0.5]),
        ([5e-324, 0.0], [1.0, 0.0]),
        ([True, False], [1.0, 0.0]),
        ([Decimal(1), Decimal(1)], [0.5, 0.5]),
        (torch.tensor([1.0, 3.0]), [0.25, 0.75]),
    ],
)
def test_weights_sum_to_one(weights, wanted):
    assert check_weights(weights, 2, "f").tolist() == wanted


@pytest.mark.parametrize(
    "weights",
    [
        ["1", "2"],
        np.array(["1", "2"]),
        np.array(["1", 2], dtype=object),
        [b"1", b"2"],
        "12",
        [1j, 1],
        [None, None],
        [[1, 2], [3]],
        {"a": 1},
        torch.ones(2, requires_grad=True),
        np.array(["2020", "2021"], dtype="datetime64[Y]"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(weights):
    with pytest.raises(TypeError, match="f: 'weights' must be a sequence of 2 numbers"):
        check_weights(weights, 2, "f")


@pytest.mark.parametrize("weights", [[np.inf, 1], [np.nan, 1], [-1, 2]])
def test_weights_that_are_no_shares_are_refused(weights):
    with pytest.raises(ValueError, match="f: 'weights' must be finite and not negative"):
        check_weights(weights, 2, "f")


def test_words_of_numpy_are_words():
    """A grid over an array of names hands these on."""
    assert check_option(np.str_("refit"), ["refit", None], "f", "repair") == "refit"


@pytest.mark.parametrize("value", [1, True, "1", 1.0])
def test_options_that_are_no_words_are_of_one_type(value):
    others = [option for option in (1, True, "1", 1.0) if type(option) is not type(value)]
    assert check_option(value, [*others, value], "f", "option") is value
    with pytest.raises(ValueError, match="f: 'option' must be one of"):
        check_option(value, others, "f", "option")
