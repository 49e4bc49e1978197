"""Encoders, decoders, encoder-decoders, vision and mobile nets of `transformers`, offline."""

from __future__ import annotations

import pytest
import torch

from sklmc.symmetry import discover_symmetry
from tests.symmetry.hf_zoo import HF_ZOO

pytestmark = pytest.mark.nightly

ATTENTION = [(3, 1), (8, 3), (8, 3)]
LAYER = [*ATTENTION, (40, 1)]
GROUPED = [(2, 1), (3, 2), (8, 2), (40, 1)]

EXPECTED = {
    "bert": [(24, 1), (24, 1), *2 * LAYER],
    "gpt2": [(24, 1), *2 * [*ATTENTION, (96, 1)]],
    "gpt_neox": [(24, 1), *2 * [(3, 1), (6, 3), (8, 3), (40, 1)]],
    "llama": [(48, 1), *2 * GROUPED],
    "mixtral": [(48, 1), *2 * GROUPED],
    "vit": [(24, 1), *2 * LAYER],
    "t5": [(24, 1), *LAYER, *ATTENTION, *LAYER],
    "bart": [(24, 1), *LAYER, *ATTENTION, *LAYER],
    "bloom": [(24, 1), *2 * [(8, 3), (8, 3), (96, 1)]],
    "convnext": [(8, 1), (32, 1), (12, 1), (48, 1)],
    "swin": [
        *[(8, 1), (16, 1)],
        *2 * [(2, 1), (4, 2), (4, 2), (32, 1)],
        *2 * [(4, 1), (4, 4), (4, 4), (64, 1)],
    ],
}


@pytest.mark.parametrize("name", list(HF_ZOO))
def test_almost_every_weight_is_permutable_and_the_function_is_kept(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, inputs = HF_ZOO[name]()
    X = inputs if len(inputs) > 1 else inputs[0]
    symmetry = discover_symmetry(net, X)
    assert symmetry.evidence["failed"] == {}
    assert symmetry.evidence["error"] < 1e-9
    assert symmetry.verify(net, X) < 1e-9
    assert symmetry.permutable_fraction > 0.9
    if name in EXPECTED:
        found = sorted((group.size, group.copies) for group in symmetry.groups)
        assert found == sorted(EXPECTED[name])
