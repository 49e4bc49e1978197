"""The descent on symmetries written by hand: no tracing, no estimators."""

from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sklmc.alignment._descent import CoordinateDescent, _columns, assign, assigned_value
from sklmc.alignment._tensor_pairs import block_pairs


def axis(size, *groups, shape=None):
    return SimpleNamespace(positions=np.arange(size).reshape(shape or (size,)), factors=groups)


def symmetry(blocks, groups, aliases=()):
    return SimpleNamespace(
        blocks={name: [SimpleNamespace(axes=axes)] for name, axes in blocks.items()},
        groups=[SimpleNamespace(name=n, size=s, within=w) for n, s, w in groups],
        aliases=aliases,
        buffers=(),
    )


def identity(sym):
    sizes = {g.name: g.size for g in sym.groups}
    return {
        g.name: np.broadcast_to(np.arange(g.size), (*(sizes[w] for w in g.within), g.size)).copy()
        for g in sym.groups
    }


def descend(a, b, sym, start=None, **options):
    descent = CoordinateDescent(block_pairs(a, b, sym), sym.groups)
    return descent.run(start or identity(sym), 100, **options)


def random_state_of(shapes, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(s, generator=generator, dtype=dtype) for n, s in shapes.items()}


CHAIN = symmetry(
    {
        "w1": (axis(9, "h"), axis(4, None)),
        "b1": (axis(9, "h"),),
        "w2": (axis(7, "k"), axis(9, "h")),
        "w3": (axis(3, None), axis(7, "k")),
    },
    [("h", 9, ()), ("k", 7, ())],
)
CHAIN_SHAPES = {"w1": (9, 4), "b1": (9,), "w2": (7, 9), "w3": (3, 7)}


def chain_permuted(state, h, k):
    return {
        "w1": state["w1"][h],
        "b1": state["b1"][h],
        "w2": state["w2"][k][:, h],
        "w3": state["w3"][:, k],
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("one_sided", [True, False])
def test_objective_is_the_true_inner_product_and_never_falls(dtype, one_sided):
    for seed in range(5):
        a = random_state_of(CHAIN_SHAPES, seed, dtype)
        b = random_state_of(CHAIN_SHAPES, 100 + seed, dtype)
        result = descend(a, b, CHAIN, one_sided=one_sided)
        assert (np.diff(result.objective_path) > 0).all()
        moved = chain_permuted(b, result.perms["h"], result.perms["k"])
        truth = sum(float((a[n].double() * moved[n].double()).sum()) for n in a)
        assert result.objective == pytest.approx(truth, rel=1e-9)


def test_end_is_a_local_optimum_in_every_swap():
    a, b = random_state_of(CHAIN_SHAPES, 0), random_state_of(CHAIN_SHAPES, 1)
    result = descend(a, b, CHAIN)
    for name, size in (("h", 9), ("k", 7)):
        for i in range(size):
            for j in range(i):
                perms = {n: p.copy() for n, p in result.perms.items()}
                perms[name][[i, j]] = perms[name][[j, i]]
                moved = chain_permuted(b, perms["h"], perms["k"])
                assert sum(float((a[n] * moved[n]).sum()) for n in a) <= result.objective + 1e-9


@pytest.mark.parametrize("n_moved", [2, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_known_of_a_block_follows_every_move(n_moved, dtype):
    """Two of 40 units move: Gram matrices are corrected. All move: they are computed again."""
    sym = symmetry(
        {"w1": (axis(40, "h"), axis(4, None)), "w2": (axis(30, "k"), axis(40, "h"), axis(9, None))},
        [("h", 40, ()), ("k", 30, ())],
    )
    a, b = (random_state_of({"w1": (40, 4), "w2": (30, 40, 9)}, s, dtype) for s in (0, 1))
    descent = CoordinateDescent(block_pairs(a, b, sym), sym.groups)
    descent.perms = identity(sym)
    descent.objective()
    descent._total_gram("k", [1])
    perm = np.arange(40)
    perm[:n_moved] = np.roll(perm[:n_moved], 1)
    descent._apply("h", perm)
    assert (("k", 1) in descent._grams) == (n_moved == 2)

    moved = b["w2"][:, perm]
    fresh = torch.einsum("ihp,jhp->ij", a["w2"], moved).numpy()
    close = {torch.float32: 1e-4, torch.float64: 1e-12}[dtype]
    np.testing.assert_allclose(descent._total_gram("k", [1]), fresh, atol=close)
    product = float((a["w2"].double() * moved.double()).sum())
    assert descent.pairs[1].inner_product() == pytest.approx(product, rel=1e-12)


def test_start_is_honoured_and_composed():
    a = random_state_of(CHAIN_SHAPES, 0)
    rng = np.random.RandomState(0)
    start = {"h": rng.permutation(9), "k": rng.permutation(7)}
    h, k = rng.permutation(9), rng.permutation(7)
    result = descend(a, chain_permuted(a, h, k), CHAIN, start=start, one_sided=False)
    np.testing.assert_array_equal(h[result.perms["h"]], np.arange(9))
    np.testing.assert_array_equal(k[result.perms["k"]], np.arange(7))


def test_bad_one_sided_pass_is_taken_back():
    """Where the first layers agree by chance only, the identity can be the better start."""
    a = random_state_of(CHAIN_SHAPES, 0)
    b = {n: t.clone() for n, t in a.items()}
    swap = np.array([1, 0, *range(2, 9)])
    b["w1"], b["b1"] = 0.01 * a["w1"][swap], 0.01 * a["b1"][swap]
    result = descend(a, b, CHAIN)
    np.testing.assert_array_equal(result.perms["h"], np.arange(9))
    assert len(result.objective_path) == 1


def test_dead_and_duplicate_units_end_the_descent():
    a, b = random_state_of(CHAIN_SHAPES, 0), random_state_of(CHAIN_SHAPES, 1)
    for state in (a, b):
        state["w1"][:4], state["b1"][:4] = 0.0, 0.0
        state["w2"][:, 4:6] = state["w2"][:, 4:5]
    result = descend(a, b, CHAIN)
    assert len(result.objective_path) <= 100
    zero = {n: torch.zeros_like(t) for n, t in a.items()}
    assert len(descend(zero, zero, CHAIN).objective_path) == 1


HEADS = symmetry(
    {
        "q": (axis(24, "head", "qk", shape=(4, 6)), axis(20, None)),
        "k": (axis(24, "head", "qk", shape=(4, 6)), axis(20, None)),
        "v": (axis(24, "head", "vo", shape=(4, 6)), axis(20, None)),
        "o": (axis(20, None), axis(24, "head", "vo", shape=(4, 6))),
    },
    [("head", 4, ()), ("qk", 6, ("head",)), ("vo", 6, ("head",))],
)


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_heads_and_what_lies_within_are_matched_together(seed, random_start):
    a = random_state_of({"q": (24, 20), "k": (24, 20), "v": (24, 20), "o": (20, 24)}, seed)
    rng = np.random.RandomState(seed)

    def draw():
        inner = [np.stack([rng.permutation(6) for _ in range(4)]) for _ in range(2)]
        return dict(zip(("head", "qk", "vo"), (rng.permutation(4), *inner), strict=True))

    def rows(perms, name):
        return (6 * perms["head"][:, None] + perms[name]).ravel()

    planted = draw()
    qk, vo = rows(planted, "qk"), rows(planted, "vo")
    b = {"q": a["q"][qk], "k": a["k"][qk], "v": a["v"][vo], "o": a["o"][:, vo]}
    result = descend(a, b, HEADS, start=draw() if random_start else None)
    assert torch.equal(b["q"][rows(result.perms, "qk")], a["q"])
    assert torch.equal(b["o"][:, rows(result.perms, "vo")], a["o"])


RECURRENT = symmetry(
    {"ih": (axis(16, "h"), axis(5, None)), "hh": (axis(16, "h"), axis(16, "h"))}, [("h", 16, ())]
)


@pytest.mark.parametrize("seed", range(10))
def test_group_on_both_axes_of_a_tensor_is_recovered(seed):
    a = random_state_of({"ih": (16, 5), "hh": (16, 16)}, seed)
    p = np.random.RandomState(seed).permutation(16)
    result = descend(a, {"ih": a["ih"][p], "hh": a["hh"][p][:, p]}, RECURRENT)
    np.testing.assert_array_equal(p[result.perms["h"]], np.arange(16))


def test_quadratic_steps_never_lower_the_objective():
    for seed in range(10):
        a = random_state_of({"ih": (16, 5), "hh": (16, 16)}, seed)
        b = random_state_of({"ih": (16, 5), "hh": (16, 16)}, 50 + seed)
        path = descend(a, b, RECURRENT, one_sided=False).objective_path
        assert (np.diff(path) > 0).all()


def test_tied_tensors_count_once():
    sym = symmetry(
        {"w": (axis(5, "h"), axis(3, None)), "tied": (axis(5, "h"), axis(3, None))},
        [("h", 5, ())],
        aliases=(("w", "tied"),),
    )
    w = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = descend({"w": w, "tied": w}, {"w": w, "tied": w}, sym)
    assert result.objective == pytest.approx(float((w * w).sum()))


def test_assignment_is_the_best_of_all_permutations():
    gain = np.random.RandomState(0).normal(size=(3, 4, 4))
    perms = assign(gain)
    for matrix, perm in zip(gain, perms, strict=True):
        best = max(permutations(range(4)), key=lambda p: sum(matrix[i, p[i]] for i in range(4)))
        assert tuple(perm) == best


def test_value_is_the_sum_of_the_chosen_entries():
    gain = np.arange(9.0).reshape(3, 3)
    assert assigned_value(gain, np.array([2, 0, 1])) == 2 + 3 + 7


def test_large_common_offsets_do_not_disturb_the_optimum():
    rng = np.random.RandomState(1)
    planted = rng.permutation(30)
    gain = 0.01 * rng.normal(size=(30, 30))
    gain[np.arange(30), planted] += 1.0
    offsets = 1e3 * rng.normal(size=(30, 1)) + 1e3 * rng.normal(size=(1, 30))
    np.testing.assert_array_equal(assign(gain + offsets), planted)


def test_constant_gain_gives_some_permutation():
    assert sorted(assign(np.zeros((5, 5)))) == list(range(5))


@pytest.mark.parametrize("damped", [0.0, 0.5, 1.0])
def test_quadratic_step_is_no_worse_than_the_assignment_with_its_part_damped(damped):
    """The derivative of <hh, P hh' P^T> overstates a move: another may gain more."""
    for seed in range(10):
        a = random_state_of({"ih": (16, 5), "hh": (16, 16)}, seed)
        b = random_state_of({"ih": (16, 5), "hh": (16, 16)}, 50 + seed)
        straight, across = (x["hh"] @ y["hh"].T for x, y in ((a, b), _turned(a, b)))
        gain = a["ih"] @ b["ih"].T + (1 - damped) * (straight + across)
        p = assign(gain.numpy())
        wanted = float((a["ih"] * b["ih"][p]).sum() + (a["hh"] * b["hh"][p][:, p]).sum())
        descent = CoordinateDescent(block_pairs(a, b, RECURRENT), RECURRENT.groups)
        assert descent.run(identity(RECURRENT), 1, one_sided=False).objective >= wanted - 1e-9


def _turned(*states):
    return [{"hh": state["hh"].T} for state in states]


def test_descent_ends_where_another_would_not_begin():
    for sym, shapes in ((RECURRENT, {"ih": (16, 5), "hh": (16, 16)}), (CHAIN, CHAIN_SHAPES)):
        for seed in range(10):
            a, b = random_state_of(shapes, seed), random_state_of(shapes, 50 + seed)
            perms = descend(a, b, sym, one_sided=False).perms
            again = descend(a, b, sym, start=perms, one_sided=False)
            assert len(again.objective_path) == 1


@pytest.mark.parametrize("one_sided", [True, False])
def test_sweeps_are_counted(one_sided):
    a, b = random_state_of(CHAIN_SHAPES, 0), random_state_of(CHAIN_SHAPES, 1)
    start = identity(CHAIN)
    descents = [CoordinateDescent(block_pairs(a, b, CHAIN), CHAIN.groups) for _ in range(3)]
    found = [one.run(start, n, one_sided=one_sided) for n, one in enumerate(descents)]
    assert [len(result.objective_path) for result in found] == [1, 2, 3]
    assert all((found[0].perms[name] == perm).all() for name, perm in start.items())


@pytest.mark.parametrize("within", [("outer", "middle"), ("middle", "outer")])
@pytest.mark.parametrize("nested", [True, False])
def test_units_within_two_groups_are_matched_with_them(nested, within):
    """The middle group is one for each index of the outer, which is frozen then, or one for all."""
    sizes = {"outer": 3, "middle": 4, "unit": 5}
    rows = axis(60, *within, "unit", shape=(*(sizes[name] for name in within), 5))
    sym = symmetry(
        {"w": (rows, axis(9, None))},
        [("outer", 3, ()), ("middle", 4, ("outer",) if nested else ()), ("unit", 5, within)],
    )
    groups = sym.groups[1:] if nested else sym.groups
    for seed in range(5):
        shuffle, start = np.random.RandomState(seed).permutation, identity(sym)
        start |= {g.name: np.apply_along_axis(shuffle, -1, start[g.name]) for g in groups}
        a = random_state_of({"w": (60, 9)}, seed)
        found = CoordinateDescent(block_pairs(a, dict(a), sym), groups).run(start, 100)
        assert found.objective == pytest.approx(float(a["w"].square().sum()))


def test_units_that_may_as_well_change_places_stay():
    """Two units of A are equal: which of two of B's stands where gains nothing."""
    sym = symmetry({"w": (axis(5, "h"), axis(3, None))}, [("h", 5, ())])
    for seed in range(20):
        a, b = random_state_of({"w": (5, 3)}, seed), random_state_of({"w": (5, 3)}, 50 + seed)
        a["w"][4] = a["w"][0]
        first = descend(a, b, sym, one_sided=False)
        swapped = first.perms["h"][[4, 1, 2, 3, 0]]
        for start in (first.perms["h"], swapped):
            again = descend(a, b, sym, start={"h": start}, one_sided=False)
            np.testing.assert_array_equal(again.perms["h"], start)


def test_columns_of_a_gram_matrix_follow_each_copy():
    gram = np.random.RandomState(0).normal(size=(2, 3, 3))
    perms = np.array([[1, 2, 0], [0, 2, 1]])
    wanted = [matrix[:, perm] for matrix, perm in zip(gram, perms, strict=True)]
    np.testing.assert_array_equal(_columns(gram, perms), wanted)
    np.testing.assert_array_equal(_columns(gram, perms[0]), gram[..., perms[0]])
