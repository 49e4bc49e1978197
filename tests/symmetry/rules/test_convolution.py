"""Images sampled at places that depend on the sample."""

from __future__ import annotations

from torch.nn import functional as F

from tests.symmetry.rules.claimed import groups_around
from tests.symmetry.rules.test_seldom import images


def test_channels_move_where_every_sample_is_read_at_places_of_its_own():
    def sampled(x):
        places = x.mean(1).sigmoid()[:, None, None, None].expand(-1, 2, 2, 2)
        return F.grid_sample(images(x), places, align_corners=False)

    assert groups_around(sampled, (6,)) == [(6, 1)]
