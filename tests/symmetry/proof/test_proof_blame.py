"""Who is to blame where an output changes: the proof with errors that are given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sklmc.symmetry import PermutationGroup
from sklmc.symmetry._proof._proof import prove

BOUND = 1e-9


class Scripted(SimpleNamespace):
    """Stands for a prover: what each group does alone, and together, where errors add up."""

    def __init__(self, together, alone=None):
        self.alone_errors, self.errors = alone or together, together
        super().__init__(
            seed=0, tolerance=BOUND, is_narrow=False, draws={}, runners={"eval": 0}, gradients={}
        )

    def alone(self, mover, group):
        return self.alone_errors[group.name, *group.within]

    def together(self, mover, groups):
        return sum(self.errors[group.name, *group.within] for group in groups)


def groups_of(names):
    return [PermutationGroup(name, 2) for name in names]


def test_draws_are_counted_up_to_the_end():
    prover = Scripted({("a",): 0.0})
    prover.draws = {"uniform": 20, "transposition": 1}
    proof = prove(prover, {}, groups_of("a"))
    assert proof.draws == prover.draws
    assert proof.draws is not prover.draws


def proof_of(errors, **options):
    errors = {(name,): error for name, error in errors.items()}
    options = {k: {(n,): e for n, e in v.items()} for k, v in options.items()}
    return prove(Scripted(errors, **options), {}, groups_of(name for (name,) in errors))


def test_what_fails_alone_is_left_out():
    proof = proof_of({"a": 0.0, "b": 0.1, "c": BOUND})
    assert [group.name for group in proof.groups] == ["a", "c"]
    assert proof.failed == {"b": 0.1}
    assert proof.errors == {"a": 0.0, "c": BOUND}
    assert proof.error == BOUND
    assert proof.tied == ()


@pytest.mark.parametrize("bad", ["a", "e", "bd", "abcde"])
def test_what_fails_under_uniform_elements_only_is_found_by_halving(bad):
    errors = {name: 0.25 if name in bad else 0.0 for name in "abcde"}
    proof = proof_of(errors, alone=dict.fromkeys("abcde", 0.0))
    assert proof.failed == dict.fromkeys(bad, 0.25)
    assert [group.name for group in proof.groups] == [name for name in "abcde" if name not in bad]


def test_where_rounding_adds_up_the_least_exact_group_gives_way():
    proof = proof_of({"a": 0.3 * BOUND, "b": 0.5 * BOUND, "c": 0.4 * BOUND})
    assert proof.failed == {"b": pytest.approx(1.2 * BOUND)}
    assert [group.name for group in proof.groups] == ["a", "c"]
    assert proof.error == pytest.approx(0.7 * BOUND)


ALL, X, Y, NONE = ("g", "x", "y"), ("g", "x"), ("g", "y"), ("g",)
COPIES = PermutationGroup("g", 2, ("x", "y"), (3, 4))


@pytest.mark.parametrize(
    "right, kept, sizes",
    [((X, Y, NONE), X, (3,)), ((Y, NONE), Y, (4,)), ((NONE,), NONE, ()), ((), None, None)],
)
def test_copies_are_tied_along_as_few_outer_groups_as_will_do(right, kept, sizes):
    errors = {key: 0.0 if key in right else 0.5 for key in (ALL, X, Y, NONE)}
    proof = prove(Scripted(errors), {}, [COPIES])
    if kept is None:
        assert proof.groups == proof.tied == ()
        assert proof.failed == {"g": 0.5}
    else:
        (group,) = proof.groups
        assert ("g", *group.within) == kept
        assert group.outer_sizes == sizes
        assert proof.tied == ("g",)
        assert proof.failed == {}
        assert proof.errors == {"g": 0.0}


def test_tied_groups_are_tried_with_the_others():
    errors = {ALL: 0.5, X: 0.6 * BOUND, ("h",): 0.7 * BOUND}
    proof = prove(Scripted(errors), {}, [COPIES, *groups_of("h")])
    assert [group.name for group in proof.groups] == ["g", "h"]
    assert proof.error == pytest.approx(1.3 * BOUND)
