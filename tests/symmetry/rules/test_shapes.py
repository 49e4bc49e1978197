"""Shapes with several blocks before what is reshaped."""

from __future__ import annotations

from torch import diag_embed
from torch.nn import functional as F

from tests.symmetry.rules.claimed import groups_around


def test_equal_values_on_a_diagonal_are_as_many_as_the_last_dimension_has():
    """The mean of a block is spread over it, and then over the diagonal of a square."""

    def spread(x):
        return diag_embed(x.mean(2, keepdim=True).expand(-1, -1, 3))

    assert groups_around(spread, (2, 3)) == [(2, 1), (3, 2), (3, 2)]  # squares: (2, 3, 3)


def test_places_beside_a_diagonal_are_those_of_the_last_dimension():
    assert groups_around(lambda x: diag_embed(x, 1), (2, 3)) == [(2, 1)]


def test_channels_of_a_shuffled_image_are_those_that_are_left():
    """Eight channels of five by three places become two of ten by six."""
    assert groups_around(lambda x: F.pixel_shuffle(x, 2).flatten(1), (8, 5, 3)) == [(2, 1)]


def test_equal_channels_are_shuffled_without_harm():
    def spread(x):
        return F.channel_shuffle(x.mean(1, keepdim=True).expand(-1, 4)[..., None, None], 2)

    assert groups_around(spread, (6,)) == [(4, 2), (6, 1)]


def test_a_vector_has_no_other_order_of_axes():
    assert groups_around(lambda x: x * x[0].t(), (6,)) == [(6, 1)]
    assert groups_around(lambda x: x.t().sin().t(), (6,)) == [(6, 1)]
