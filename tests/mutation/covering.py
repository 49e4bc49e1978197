"""Which tests run which line, gathered once with coverage's contexts and kept in `.cache/`."""

from __future__ import annotations

import collections
import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from coverage import CoverageData

from tests.mutation.mutators import Mutant

MOST_TESTS = 200
MOST_SECONDS = 20.0  # of processor time, of all tests of a mutant, lines traced


def gather(root: Path, folder: Path, jobs: int, paths: Iterable[str] = ()) -> None:
    """Run the tests under coverage; with `paths` only those, added to what is known."""
    paths, times = list(paths), folder / "times.json"
    known = json.loads(times.read_text(encoding="utf-8")) if paths else {}
    folder.mkdir(parents=True, exist_ok=True)
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(jobs), "--dist", "worksteal"]
    command += ["-p", "no:cacheprovider", "--ignore", "tests/mutation"]
    command += ["-p", "tests.mutation.times", "--times-to", str(times)]
    command += ["--cov=sklmc", "--cov-context=test", "--cov-report="]
    command += ["--cov-append", *paths] if paths else []
    subprocess.run(
        command,
        cwd=root,
        env={
            **os.environ,
            **one_thread,
            "PYTHONPATH": str(root),
            "COVERAGE_FILE": str(folder / "coverage"),
        },
        check=False,  # what does not pass is not used
    )
    times.write_text(json.dumps(known | json.loads(times.read_text(encoding="utf-8"))))
    (folder / "sources").write_text(_digest(root))


def is_gathered(root: Path, folder: Path) -> bool:
    """Tell whether the lines of today's sources are known."""
    sources = folder / "sources"
    return sources.exists() and sources.read_text() == _digest(root)


def _digest(root: Path) -> str:
    found = hashlib.sha256()
    for path in sorted((root / "sklmc").rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


class Covering:
    """The tests of each line."""

    def __init__(self, root: Path, folder: Path):
        self.root = root
        self.seconds: dict[str, float] = json.loads((folder / "times.json").read_text())
        self._data = CoverageData(str(folder / "coverage"))
        self._data.read()

    @cache  # noqa: B019, one object lives as long as the process
    def _tests_by_line(self, path: str) -> dict[int, set[str]]:
        found = {}
        for line, contexts in self._data.contexts_by_lineno(str(self.root / path)).items():
            tests = {context.rpartition("|")[0] for context in contexts}
            found[line] = {test for test in tests if test in self.seconds}
        return found

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Return the tests that run a mutant's lines; where only import does, its file or room."""
        by_line = self._tests_by_line(mutant.path)
        covering = set().union(*(by_line.get(line, ()) for line in mutant.lines))
        if not covering and not self._in_function(mutant):
            covering = set().union(*by_line.values())
            room = _tests_of_room(mutant.path)
            covering = covering or {test for test in self.seconds if test.startswith(room)}
        return chosen(covering, self.seconds, mutant.path)

    def _in_function(self, mutant: Mutant) -> bool:
        """Tell functions from module and class level, which run at import: the last has a name."""
        return mutant.scope.rpartition(".")[2][:1].islower() or "._" in f".{mutant.scope}"


def chosen(covering: Iterable[str], seconds: dict[str, float], path: str) -> list[str]:
    """Choose few quick tests, the module's own first, then in turn the quickest of each file.

    A module's own tests are those of `test_<module>*.py`; they take half of the places at most. Of
    the other files, those of the room come first, and those with many covering tests before others.
    """
    files: dict[str, list[str]] = collections.defaultdict(list)
    for test in sorted(covering, key=lambda test: (seconds[test], test)):
        files[test.partition("::")[0]].append(test)
    namesake, room = f"test{Path(path).stem}", _tests_of_room(path)
    own = sorted((f for f in files if Path(f).stem.startswith(namesake)), key=lambda f: files[f][0])
    rest = sorted(files, key=lambda file: (not file.startswith(room), -len(files[file]), file))
    first = list(itertools.islice(_in_turn([files[file] for file in own]), MOST_TESTS // 2))
    found: list[str] = []
    spent = 0.0
    for test in dict.fromkeys([*first, *_in_turn([files[file] for file in rest])]):
        if len(found) < MOST_TESTS and (spent + seconds[test] <= MOST_SECONDS or not found):
            found.append(test)
            spent += seconds[test]
    return found


def _tests_of_room(path: str) -> str:
    return f"tests/{Path(path).parts[1]}/"


def _in_turn(lists: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the first of each list, then the second of each that has one, and so on."""
    for turn in itertools.zip_longest(*lists):
        yield from (test for test in turn if test is not None)
