"""Every small change of a source text that its tests ought to notice, found with `ast`.

A `Mutant` replaces one piece of the text, so that the rest stays as it is written. Left alone is
what no test should hold in place:

* docstrings, messages and representations, which are for people; `__all__`, imports and decorators,
  which the linter and the tests of public names hold;
* annotations, unions with None among them, and what only a type checker runs;
* `assert` and `strict=True` of `zip`, invariants of ours whose other side nothing can reach;
* `raise NotImplementedError`, the body of a method that every subclass has of its own;
* progress: what is done to a `bar`, and `verbose`, a number that says how much is printed;
* the constants of `BLOCK_SIZES`, by which work is cut into blocks: with any value the same numbers
  come out, and only memory and time change.
"""

from __future__ import annotations

import ast
import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
EXTREMES = {
    "min": "max",
    "amin": "amax",
    "argmin": "argmax",
    "minimum": "maximum",
    "any": "all",
    "clamp_min": "clamp_max",
}
EXTREMES |= {second: first for first, second in EXTREMES.items()}

NOT_TESTED = {"__repr__", "__str__", "_repr_html_"}
SPEAKS = {"warn", "warning", "info", "debug", "cast", "TypeVar"}  # calls whose words are for people
WORDS = {"stacklevel", "desc", "disable", "verbose"}  # keywords and parameters likewise
BLOCK_SIZES = {
    "sklmc/alignment/_activation.py": {"INPUT_ROWS", "ROWS_AT_ONCE"},  # samples of a block
    "sklmc/alignment/_tensor_pairs.py": {"CACHED_NUMBERS"},  # terms of a sum
    "sklmc/connectivity/_chain_evaluator.py": {
        *("CACHE_BYTES", "MIN_ROWS", "MAX_ROWS", "WEIGHT_SHARE"),  # samples of a block
        "GROUP_OUTPUTS",  # outputs whose losses are summed together
    },
    "sklmc/connectivity/_pair_scoring.py": {"TASKS_PER_JOB"},  # pairs of a task
    "sklmc/connectivity/_path_evaluator.py": {"WORKSPACE"},  # samples of a block
    "sklmc/connectivity/_path_job.py": {
        "LOGIT_BYTES",
        "STATE_BYTES",
        "MAX_SIDE",
    },  # pairs of a task
    "sklmc/symmetry/_discovery.py": {"_LARGEST"},  # architectures that are remembered
    "sklmc/symmetry/_groups/_mover.py": {"LARGE", "CACHED"},  # entries that are moved together
}


@dataclass(frozen=True)
class Mutant:
    """One changed piece of one file: `text[start:stop]` becomes `after`."""

    path: str
    line: int
    kind: str
    start: int
    stop: int
    before: str
    after: str
    scope: str  # dotted name of the function or class around it; "" at the top
    lines: tuple[int, ...]  # whose execution runs the piece
    source: str  # digest of the whole text

    def apply(self, text: str) -> str:
        """Return the changed source."""
        assert text[self.start : self.stop] == self.before
        return text[: self.start] + self.after + text[self.stop :]

    @property
    def key(self) -> str:
        """Name the mutant of this very source, whatever the day."""
        return f"{self.path}@{self.source}:{self.start}-{self.stop}:{self.kind}:{self.after}"


def find_mutants(text: str, path: str) -> list[Mutant]:
    """Return every mutant of a source, in the order of the text."""
    finder = _Finder(text, path)
    finder.visit(ast.parse(text))
    return sorted(finder.found, key=lambda mutant: (mutant.start, mutant.stop, mutant.after))


class _Finder(ast.NodeVisitor):
    """Walks a module and keeps the innermost scope and the lines of the statement it is in."""

    def __init__(self, text: str, path: str):
        self.text, self.path = text, path
        self.source = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.starts, self.raw_lines = [0], [line.encode() for line in text.splitlines(True)]
        for line in text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.found: list[Mutant] = []
        self.scope: tuple[str, ...] = ()
        self.lines: tuple[int, ...] = ()

    # -- where we are -------------------------------------------------------------------------

    def visit(self, node: ast.AST) -> None:
        if not isinstance(node, ast.stmt):
            return super().visit(node)
        outer, self.lines = self.lines, tuple(_own_lines(node))
        super().visit(node)
        self.lines = outer

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name in NOT_TESTED:
            return
        outer, self.scope = self.scope, (*self.scope, node.name)
        body = range(node.body[0].lineno, node.end_lineno + 1)
        self.lines = tuple(body)  # a default shows where the function runs
        for default in _defaults(node.args):
            if isinstance(default, ast.Constant):
                self._constant(default, "default")
            elif default is not None:
                self.visit(default)
        self._visit_block(node.body)
        self.scope = outer

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases):
            return
        outer, self.scope = self.scope, (*self.scope, node.name)
        self._visit_block(node.body)
        self.scope = outer

    def _visit_block(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self.visit(statement)

    # -- what is left alone -------------------------------------------------------------------

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            return
        self._condition(node.test)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if not self.scope and _names(node) & {"__all__", *BLOCK_SIZES.get(self.path, ())}:
            return
        if any(_is_of_a_bar(target) for target in node.targets):
            return
        if self._in_function() and all(
            isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets
        ):
            self._remove(node)
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Text is for people."""

    def visit_Import(self, node: ast.Import) -> None:
        """An import that nobody needs is the linter's business."""

    visit_ImportFrom = visit_Import

    def visit_Assert(self, node: ast.Assert) -> None:
        """An invariant of ours: no test can reach its other side."""

    # -- what is changed ----------------------------------------------------------------------

    def visit_Raise(self, node: ast.Raise) -> None:
        if self._in_function() and ast.unparse(node) != "raise NotImplementedError":
            self._remove(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            if _is_of_a_bar(node.value.func):
                return
            if self._in_function():
                self._remove(node)
            self.generic_visit(node)
        elif not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        other = ARITHMETIC.get(type(node.op))
        if other is not None:
            changed = ast.AugAssign(node.target, other(), node.value)
            self._add(node, "arithmetic", ast.unparse(changed))
        self._remove(node)
        self.generic_visit(node)

    def visit_Break(self, node: ast.Break) -> None:
        self._add(node, "removed statement", "pass")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._add(node, "removed statement", "pass")

    def visit_While(self, node: ast.While) -> None:
        self._condition(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._condition(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._condition(test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for index, operator in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[index] = COMPARISONS[type(operator)]()
            self._replace(node, "comparison", changed)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        texts, (left, right) = (ast.JoinedStr, ast.Constant), (node.left, node.right)
        if any(isinstance(side, texts) and _is_text(side) for side in (left, right)):
            return
        if any(isinstance(side, ast.Constant) and side.value is None for side in (left, right)):
            return  # a union of types
        other = ARITHMETIC.get(type(node.op))
        if other is not None:
            self._replace(node, "arithmetic", ast.BinOp(node.left, other(), node.right))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._replace(node, "and/or", ast.BoolOp(other, node.values))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._replace(node, "dropped not", node.operand)
        elif isinstance(node.op, ast.USub):
            self._replace(node, "arithmetic", node.operand)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        name = getattr(function, "attr", getattr(function, "id", ""))
        if name in SPEAKS:
            return
        if name in EXTREMES:
            changed = copy.deepcopy(function)
            setattr(changed, "id" if isinstance(function, ast.Name) else "attr", EXTREMES[name])
            self._replace(function, "min/max", changed)
        self.visit(function)
        for argument in node.args:
            self.visit(argument)
        for keyword in node.keywords:
            strict = keyword.arg == "strict" and ast.unparse(keyword.value) == "True"
            if keyword.arg not in WORDS and not strict:
                self.visit(keyword.value)

    def visit_Slice(self, node: ast.Slice) -> None:
        for name in ("lower", "upper"):
            if getattr(node, name) is not None:
                changed = copy.copy(node)
                setattr(changed, name, None)
                self._replace(node, "slice end", changed)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        self._constant(node, "constant")

    # -- how it is written down ---------------------------------------------------------------

    def _constant(self, node: ast.Constant, kind: str) -> None:
        if isinstance(node.value, bool):
            self._add(node, kind, repr(not node.value))
        elif isinstance(node.value, int | float):
            self._add(node, kind, repr(node.value + 1))

    def _condition(self, test: ast.expr) -> None:
        """Negate a condition, unless a comparison or a dropped `not` does the same."""
        whole = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        if not whole and not (isinstance(test, ast.Compare) and len(test.ops) == 1):
            self._replace(test, "negation", ast.UnaryOp(ast.Not(), test))

    def _in_function(self) -> bool:
        return bool(self.scope) and bool(self.lines)

    def _remove(self, node: ast.stmt) -> None:
        self._add(node, "removed statement", "pass")

    def _replace(self, node: ast.expr, kind: str, changed: ast.expr) -> None:
        written = ast.unparse(changed)
        bare = (ast.Slice, ast.Name, ast.Attribute, ast.Call, ast.Constant)
        self._add(node, kind, written if isinstance(changed, bare) else f"({written})")

    def _add(self, node: ast.stmt | ast.expr, kind: str, after: str) -> None:
        start = self._offset(node.lineno, node.col_offset)
        stop = self._offset(node.end_lineno, node.end_col_offset)
        self.found.append(
            Mutant(
                path=self.path,
                line=node.lineno,
                kind=kind,
                start=start,
                stop=stop,
                before=self.text[start:stop],
                after=after,
                scope=".".join(self.scope),
                lines=self.lines,
                source=self.source,
            )
        )

    def _offset(self, line: int, column: int) -> int:
        """Turn a line and a column in bytes, as `ast` counts, into a place in the text."""
        return self.starts[line - 1] + len(self.raw_lines[line - 1][:column].decode())


def _own_lines(statement: ast.stmt) -> Iterator[int]:
    """Yield the lines of a statement without those of the block below it."""
    body = getattr(statement, "body", None)
    last = statement.end_lineno if not body else max(statement.lineno, body[0].lineno - 1)
    yield from range(statement.lineno, last + 1)


def _defaults(arguments: ast.arguments) -> Iterator[ast.expr | None]:
    """Yield the defaults of parameters, without those that are for people."""
    plain = [*arguments.posonlyargs, *arguments.args]
    with_default = plain[len(plain) - len(arguments.defaults) :] + arguments.kwonlyargs
    defaults = [*arguments.defaults, *arguments.kw_defaults]
    for argument, default in zip(with_default, defaults, strict=True):
        if argument.arg not in WORDS:
            yield default


def _names(node: ast.Assign) -> set[str]:
    """Return the names that an assignment gives, those of a tuple among them."""
    targets = [part for target in node.targets for part in getattr(target, "elts", [target])]
    return {part.id for part in targets if isinstance(part, ast.Name)}


def _is_of_a_bar(node: ast.expr) -> bool:
    """Tell what belongs to a progress bar: `bar.update`, `bar.n`."""
    return isinstance(node, ast.Attribute) and ast.unparse(node.value) == "bar"


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or isinstance(node.value, str)
