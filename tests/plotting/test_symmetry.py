"""SymmetryDisplay draws which axes move together."""

import matplotlib.pyplot as plt
import pytest

from sklmc import SymmetryDisplay
from sklmc.nets import MLP
from sklmc.symmetry import discover_symmetry


@pytest.fixture(scope="module")
def symmetry():
    return discover_symmetry(MLP(4, 3, width=5, depth=2, norm="batch"))


def test_a_mark_for_every_place_and_a_line_for_every_group(symmetry):
    display = SymmetryDisplay.from_scores(symmetry).plot()
    places = {
        (display.tensors[int(y)], axis, display.groups[int(x)])
        for axis, marks in zip((0, 1), display.marks_, strict=True)
        for x, y in marks.get_offsets()
    }
    expected = {
        (tensor, axis, f"{group.name} ({group.size})")
        for group in symmetry.groups
        for tensor, axis in group.places
    }
    assert places == expected
    assert len(display.lines_) == len(symmetry.groups) == 2
    assert display.ax_.figure is display.figure_


def test_lines_reach_from_the_first_place_to_the_last(symmetry):
    display = SymmetryDisplay.from_scores(symmetry).plot()
    for line, group in zip(display.lines_, symmetry.groups, strict=True):
        rows = [display.tensors.index(tensor) for tensor, _ in group.places]
        assert line.get_ydata().tolist() == [min(rows), max(rows)]


def test_keywords_reach_the_artists_and_axes_may_be_given(symmetry):
    _, ax = plt.subplots()
    display = SymmetryDisplay.from_scores(symmetry, max_groups=1)
    display.plot(ax, line_kw={"linewidth": 3}, mark_kw={"s": 50})
    assert display.ax_ is ax
    assert display.lines_[0].get_linewidth() == 3
    assert display.marks_[0].get_sizes().tolist() == [50]
    assert len(display.groups) == 1


def test_net_without_groups_can_be_drawn():
    display = SymmetryDisplay.from_model(MLP(4, 3, depth=0)).plot()
    assert display.lines_ == display.marks_ == []


def test_what_is_no_symmetry_is_refused():
    with pytest.raises(TypeError, match=r"must be a PermutationSymmetry, got MLP; .* from_model"):
        SymmetryDisplay.from_scores(MLP(4, 3))
