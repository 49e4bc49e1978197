"""What is shown of a symmetry: every share, count and shortened list is what it says."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sklmc.symmetry import PermutationGroup
from sklmc.symmetry._groups._blocks import Block, BlockAxis, FrozenAxis
from sklmc.symmetry._summary import (
    advice,
    as_frame,
    as_html,
    as_text,
    frozen_summary,
    permutable_fraction,
)

EVIDENCE = {
    "modes": ["eval", "train"],
    "n_draws": 20,
    "error": 1e-12,
    "errors": {"h": 3e-11},
    "own_error": 2e-7,
    "own_dtype": "float32",
}


def block(tensor, *axes):
    made = (BlockAxis(np.arange(size), (name,)) for size, name in axes)
    return Block(tensor, tuple(made))


def symmetry_of(groups=(), blocks=(), frozen=(), evidence=EVIDENCE, **more):
    by_tensor: dict = {}
    for one in blocks:
        by_tensor.setdefault(one.tensor, []).append(one)
    shapes = {name: tuple(a.positions.size for a in b[0].axes) for name, b in by_tensor.items()}
    found = SimpleNamespace(
        groups=tuple(groups), blocks=by_tensor, frozen=tuple(frozen), evidence=evidence
    )
    vars(found).update(aliases=(), buffers=frozenset(), shapes=shapes, **more)
    found.permutable_fraction = permutable_fraction(found)
    return found


HIDDEN = PermutationGroup("h", 4, places=(("w", 0), ("b", 0), ("v", 1)), unobservable=("b",))
HEADS = PermutationGroup("e", 5, within=("k",), outer_sizes=(2,), places=(("q", 0),))
BLOCKS = [
    block("w", (4, "h"), (3, None)),  # 12 weights that move
    block("v", (2, None), (4, "h")),  # 8
    block("u", (5, "fixed"), (1, None)),  # 5 that do not: 'fixed' is no group
    block("statistics", (4, "h")),
    block("again", (4, "h"), (3, None)),
]


def test_share_of_the_weights_counts_no_statistics_and_tied_tensors_once():
    symmetry = symmetry_of([HIDDEN], BLOCKS)
    symmetry.buffers, symmetry.aliases = {"statistics"}, (("w", "again"),)
    assert permutable_fraction(symmetry) == pytest.approx(20 / 25)
    assert permutable_fraction(symmetry_of()) == 0.0
    assert permutable_fraction(symmetry_of((), BLOCKS[:1])) == 0.0


def test_frame_has_a_row_for_each_place():
    frame = as_frame(symmetry_of([HIDDEN, HEADS]))
    assert frame[["group", "tensor", "axis"]].values.tolist() == [
        *(["h", "w", 0], ["h", "b", 0], ["h", "v", 1]),
        ["e", "q", 0],
    ]
    assert frame["observable"].tolist() == [True, False, True, True]
    assert frame[["size", "copies", "within"]].values.tolist()[2:] == [[4, 1, ""], [5, 2, "k"]]
    assert list(as_frame(symmetry_of())) == list(frame)


def frozen_by(reason, kind, *places):
    return [FrozenAxis(tensor, axis, 3, reason, kind=kind) for tensor, axis in places]


def test_one_reason_is_told_whole_and_several_by_their_kind():
    frozen = [
        *frozen_by("cut in a", "cut", ("w", 0)),
        *frozen_by("cut in b", "cut", ("v", 1)),
        *frozen_by("output of the net in c", "output", *((str(i), 0) for i in range(8))),
    ]
    assert frozen_summary(symmetry_of(frozen=frozen)) == [
        ("cut (2 operations)", "w[0], v[1]"),
        ("output of the net in c", "0[0], 1[0], 2[0], 3[0], 4[0], 5[0] and 2 more"),
    ]
    six = frozen_by("cut", "cut", *((str(i), 0) for i in range(6)))
    assert frozen_summary(symmetry_of(frozen=six))[0][1].endswith("4[0], 5[0]")


def test_advice_says_what_can_be_done():
    two = [block("w", (4, None), (3, None)), block("v", (4, None), (3, None))]
    output = frozen_by("output of the net", "output", ("w", 1), ("v", 1))
    (told,) = advice(symmetry_of(blocks=two, frozen=output))
    assert told.startswith("The output seems to be a hidden state: it fixes input axes of v, w.")
    assert advice(symmetry_of(blocks=two, frozen=output[:1])) == []
    rows = frozen_by("output of the net", "output", ("w", 0), ("v", 0))
    assert advice(symmetry_of(blocks=two, frozen=rows)) == []
    parts = [FrozenAxis(name, 1, 2, "output of the net") for name in "wv"]
    assert advice(symmetry_of(blocks=two, frozen=parts)) == []
    unknown = frozen_by("no rule for this operation", "no rule", ("w", 0))
    told = advice(symmetry_of(blocks=two, frozen=unknown, evidence=None))
    assert [text.partition(":")[0] for text in told] == [
        "Operations without a rule",
        "Not verified",
    ]


def test_text_tells_groups_reasons_and_evidence():
    symmetry = symmetry_of([HIDDEN, HEADS], BLOCKS[:3], frozen_by("cut", "cut", ("u", 0)))
    assert as_text(symmetry).splitlines() == [
        "PermutationSymmetry: 2 groups, 80 % of the weights permutable",
        "  h: S_4: w[0], b[0], v[1]",
        "  e: S_5 x 2 (within k): q[0]",
        "frozen:",
        "  cut: u[0]",
        "moved, but seen by no output: b (h)",
        "verified in eval and train mode, 20 draws: largest relative change of an output 3.0e-11 "
        "(float64); with the net's own weights 2.0e-07 (float32)",
    ]
    plain = as_text(symmetry_of([HEADS], evidence=None)).splitlines()
    assert plain[0].startswith("PermutationSymmetry: 1 group, 0 %")
    assert plain[2:] == ["not verified", f"note: {advice(symmetry_of(evidence=None))[0]}"]


@pytest.mark.parametrize("n, more", [(40, 0), (41, 1), (50, 10)])
def test_long_lists_of_groups_are_cut(n, more):
    groups = [PermutationGroup(str(i), 2) for i in range(n)]
    lines = as_text(symmetry_of(groups)).splitlines()
    assert sum(": S_2" in line for line in lines) == 40
    assert [f"{more} more groups" in line for line in lines].count(True) == (more > 0)


def test_notebooks_show_the_same_and_no_name_is_markup():
    odd = PermutationGroup("<b>", 4, within=("k",), outer_sizes=(3,), places=(("w", 1),))
    shown = as_html(symmetry_of([odd], frozen=frozen_by("a<b", "cut", ("w", 0)), evidence=None))
    assert "<td>&lt;b&gt;</td><td>4</td><td>3</td><td>k</td><td>w[1]</td>" in shown
    assert "<li>a&lt;b: w[0]</li>" in shown
    assert "<li>Not verified" in shown
