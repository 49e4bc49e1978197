"""The mutators change what they say, and leave alone what no test should hold in place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutation.mutators import BLOCK_SIZES, find_mutants

ROOT = Path(__file__).resolve().parents[2]


def changes(text, kind=None):
    """Return (kind, line of the changed source that differs) for each mutant."""
    found = []
    for mutant in find_mutants(text, "toy.py"):
        if kind in (None, mutant.kind):
            before, after = text.splitlines(), mutant.apply(text).splitlines()
            differing = [new for old, new in zip(before, after, strict=True) if old != new]
            found.append((mutant.kind, *(line.strip() for line in differing)))
    return found


@pytest.mark.parametrize(
    "source, kind, expected",
    [
        ("a < b", "comparison", {"(a <= b)"}),
        ("a is not b", "comparison", {"(a is b)"}),
        ("0 < a <= b", "comparison", {"(0 <= a <= b)", "(0 < a < b)"}),
        ("a + b * c", "arithmetic", {"(a - b * c)", "a + (b / c)"}),
        ("a[-n]", "arithmetic", {"a[n]"}),
        ("a % 'text'", "arithmetic", set()),
        ("a & b", "arithmetic", {"(a | b)"}),
        ("x if done(a) else y", "negation", {"x if (not done(a)) else y"}),
        ("x if a > 0 else y", "negation", set()),  # the comparison's own mutant does that
        ("[a for a in b if a.real]", "negation", {"[a for a in b if (not a.real)]"}),
        ("not a", "dropped not", {"a"}),
        ("a and b or c", "and/or", {"((a and b) and c)", "(a or b) or c"}),
        ("f(3, flag=True)", "constant", {"f(4, flag=True)", "f(3, flag=False)"}),
        ("1e-3", "constant", {"1.001"}),
        ("max(a, b)", "min/max", {"min(a, b)"}),
        ("a.sum().argmin(axis=n)", "min/max", {"a.sum().argmax(axis=n)"}),
        ("a[b:c, ...]", "slice end", {"a[:c, ...]", "a[b:, ...]"}),
    ],
)
def test_expression_is_changed_as_its_kind_says(source, kind, expected):
    text = f"def f():\n    return {source}\n"
    assert set(changes(text, kind)) == {(kind, f"return {line}") for line in expected}


@pytest.mark.parametrize(
    "statement",
    ["update(a)", "self.a = b", "a[0] = b", "a += b", "raise ValueError(a)", "break", "continue"],
)
def test_statement_is_removed(statement):
    text = f"def f(self, a, b):\n    while a:\n        {statement}\n"
    assert ("removed statement", "pass") in changes(text)


def test_condition_of_if_and_while_is_negated():
    text = "def f(a):\n    if a:\n        pass\n    while a:\n        pass\n"
    assert changes(text) == [("negation", "if (not a):"), ("negation", "while (not a):")]


def test_default_is_changed_and_runs_where_the_body_does():
    text = "def f(\n    a=3,\n    *,\n    b=True,\n    c='text',\n):\n    a()\n    return b\n"
    found = [mutant for mutant in find_mutants(text, "toy.py") if mutant.kind == "default"]
    assert [mutant.after for mutant in found] == ["4", "False"]
    assert {mutant.lines for mutant in found} == {(7, 8)}


def test_header_of_a_block_does_not_hold_the_lines_below():
    text = "def f(a):\n    if (a >\n            0):\n        return 1\n    return 2\n"
    (comparison,) = (m for m in find_mutants(text, "toy.py") if m.kind == "comparison")
    assert comparison.lines == (2, 3)
    assert comparison.scope == "f"


@pytest.mark.parametrize(
    "text",
    [
        '"""Of 3 parts."""\n',
        'def f():\n    """Of 3 parts."""\n',
        "def f(a: Literal[1, 2]) -> Literal[3]:\n    return a\n",
        "class A:\n    a: Literal[1]\n",
        "if TYPE_CHECKING:\n    a = 1 + 1\n",
        "@lru_cache(maxsize=3)\ndef f():\n    return a\n",
        "class A:\n    def __repr__(self):\n        return self.a + 1\n",
        "class A(Protocol):\n    def f(self, a=3): ...\n",
        "def f(a):\n    return f'{a + 1} of 2'\n",
        "__all__ = ['a'][0:1]\n",
        "assert a + 1\n",
        "from a import b\n",
        "def f(a, b):\n    return zip(a, b, strict=True)\n",
        "def f():\n    raise NotImplementedError\n",
        "def f(bar):\n    bar.update(a + 1)\n    bar.n = bar.total\n",
        "def f(self, verbose=0):\n    return g(verbose=0)\n",
        "A = Callable[[int], B] | None\n",
    ],
)
def test_no_mutant_of_words_types_and_representations(text):
    assert find_mutants(text, "toy.py") == []


def test_sizes_of_blocks_are_left_alone_in_their_own_file_only():
    text = "MIN_ROWS, MAX_ROWS = 128, 2048\nAGREEMENT = 3\n"
    found = find_mutants(text, "sklmc/connectivity/_chain_evaluator.py")
    assert [mutant.before for mutant in found] == ["3"]
    assert [mutant.before for mutant in find_mutants(text, "toy.py")] == ["128", "2048", "3"]


@pytest.mark.parametrize("path, names", BLOCK_SIZES.items())
def test_every_size_of_a_block_that_is_left_alone_is_there(path, names):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = {part.id for part in ast.walk(tree) if isinstance(part, ast.Name)}
    assert set(names) <= found


def test_what_may_end_early_or_say_nothing_is_changed():
    text = "def f(a, b):\n    return zip(a, b, strict=False)\n"
    assert changes(text) == [("constant", "return zip(a, b, strict=True)")]
    text = "def f(a):\n    raise NotImplementedError(a)\n"
    assert changes(text) == [("removed statement", "pass")]
    text = "def f(a, verbose=0, b=1):\n    return a | b\n"
    assert changes(text, "default") == [("default", "def f(a, verbose=0, b=2):")]


def test_words_of_a_message_stay_and_the_message_may_go():
    text = "def f(a):\n    raise ValueError('1', a + 1)\n"
    assert changes(text) == [("removed statement", "pass")]
    text = "def f(a):\n    warnings.warn('1', stacklevel=2)\n"
    assert changes(text) == [("removed statement", "pass")]


def test_signs_beyond_ascii_do_not_shift_the_place():
    text = "def f(a):\n    return 'é', a + 1, 'ü', a < 2\n"
    assert ("comparison", "return 'é', a + 1, 'ü', (a <= 2)") in changes(text)


@pytest.mark.parametrize(
    "path", ["sklmc/merging/_repairs/_ridge_regression.py", "sklmc/models/_moments.py"]
)
def test_every_mutant_of_a_real_module_parses_and_differs(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    mutants = find_mutants(text, path)
    same = ast.dump(ast.parse(text))
    assert all(ast.dump(ast.parse(mutant.apply(text))) != same for mutant in mutants)
    assert len({mutant.key for mutant in mutants}) == len(mutants)
