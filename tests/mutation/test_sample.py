"""The sampler: which tests it chooses, what it kills in a toy checkout, how it goes on."""

from __future__ import annotations

import json

import pytest

from tests.mutation import sample as sampler
from tests.mutation.covering import MOST_SECONDS, MOST_TESTS, Covering, chosen
from tests.mutation.mutators import find_mutants
from tests.mutation.rooms import ROOMS, files_of
from tests.mutation.workers import Worker

TOY = "def larger(a, b):\n    return a if a > b else b\n\n\ndef twice(a):\n    return 2 * a\n"
TOY_TESTS = """\
import subprocess, sys

from sklmc.toy import larger, twice


def test_larger():
    assert larger(1, 2) == larger(2, 1) == 2


def test_equal():
    assert larger(2, 2) == 2


def test_twice_in_another_process():
    code = "from sklmc.toy import twice; print(twice(2))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"4\\n"
"""


@pytest.fixture
def toy(tmp_path):
    for name in ("sklmc", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tmp_path / "sklmc" / "toy.py").write_text(TOY)
    (tmp_path / "tests" / "test_toy.py").write_text(TOY_TESTS)
    return tmp_path


@pytest.mark.slow
def test_planted_mutants_are_killed_and_an_equivalent_one_survives(toy):
    by_change = {(m.before, m.after): m for m in find_mutants(TOY, "sklmc/toy.py")}
    tests = ["tests/test_toy.py"]
    with Worker(toy) as worker:
        copy = worker.copy
        assert worker.run(tests, "sklmc/toy.py")["status"] == "survived"
        equivalent = worker.try_mutant(by_change["a > b", "(a >= b)"], tests)
        assert (equivalent["status"], equivalent["by"]) == ("survived", None)
        killed = worker.try_mutant(by_change["2 * a", "(2 / a)"], tests)
        assert killed["status"] == "killed"
        assert killed["by"] == "tests/test_toy.py::test_twice_in_another_process"
        assert worker.run(tests, "sklmc/toy.py")["status"] == "survived"  # back as it was
    assert (toy / "sklmc" / "toy.py").read_text() == TOY
    assert not copy.exists()


def test_tests_are_chosen_in_turn_from_files_quickest_first_own_room_before_others():
    seconds = {
        "tests/symmetry/test_a.py::slow": 3.0,
        "tests/symmetry/test_a.py::quick": 0.1,
        "tests/alignment/test_b.py::quick": 0.01,
        "tests/alignment/test_b.py::endless": 2 * MOST_SECONDS,
    }
    assert chosen(seconds, seconds, "sklmc/symmetry/_spec.py") == [
        "tests/symmetry/test_a.py::quick",
        "tests/alignment/test_b.py::quick",
        "tests/symmetry/test_a.py::slow",
    ]


def test_a_module_s_own_tests_come_first():
    seconds = {f"tests/symmetry/test_a.py::{i}": 0.01 for i in range(3)}
    seconds |= {f"tests/symmetry/proof/test_spec.py::{i}": 1.0 for i in range(2)}
    found = chosen(seconds, seconds, "sklmc/symmetry/_spec.py")
    assert found[:3] == [
        *(f"tests/symmetry/proof/test_spec.py::{i}" for i in range(2)),
        "tests/symmetry/test_a.py::0",
    ]
    assert sorted(found) == sorted(seconds)


def test_chosen_tests_are_few():
    seconds = {f"tests/symmetry/test_a.py::{i}": 0.001 for i in range(5 * MOST_TESTS)}
    assert len(chosen(seconds, seconds, "sklmc/symmetry/_spec.py")) == MOST_TESTS


def test_what_only_import_runs_is_tried_with_the_tests_of_its_room(tmp_path):
    seconds = {"tests/alignment/test_a.py::one": 0.1, "tests/symmetry/test_b.py::two": 0.1}
    (tmp_path / "times.json").write_text(json.dumps(seconds))
    text, path = "TABLE = (1,)\n\n\ndef f():\n    return 2\n", "sklmc/alignment/_toy.py"
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    at_import, in_function = find_mutants(text, path)
    covering = Covering(tmp_path, tmp_path)
    assert covering.tests_of(at_import) == ["tests/alignment/test_a.py::one"]
    assert covering.tests_of(in_function) == []


def test_every_room_has_files_and_no_file_is_in_two_rooms():
    files = [path for room in ROOMS for path in files_of(room, sampler.ROOT)]
    assert len(set(files)) == len(files)


def test_sample_repeats_and_does_not_draw_twice():
    first = sampler.sample(40, 3, ("least squares",), sampler.ROOT)
    assert first == sampler.sample(40, 3, ("least squares",), sampler.ROOT)
    assert first != sampler.sample(40, 4, ("least squares",), sampler.ROOT)
    assert first[:15] == sampler.sample(15, 3, ("least squares",), sampler.ROOT)
    assert len(set(first)) == 40


def test_results_are_found_again_but_for_what_is_to_be_forgotten(tmp_path):
    killed, alive = sampler.sample(2, 0, ("least squares",), sampler.ROOT)
    path = tmp_path / "results.jsonl"
    results = sampler.Results(path)
    results.add(killed, {"status": "killed"})
    results.add(alive, {"status": "survived"})
    with path.open("a") as file:
        file.write('{"key": "cut o')
    assert sampler.Results(path).known == results.known
    left = sampler.Results(path, forget=sampler.ALIVE).known
    assert [entry["status"] for entry in left.values()] == ["killed"]


def test_report_fails_where_too_many_survive(tmp_path, capsys):
    mutants = sampler.sample(10, 0, ("least squares",), sampler.ROOT)
    results = sampler.Results(tmp_path / "results.jsonl")
    for mutant in mutants:
        results.add(mutant, {"status": "killed"})
    results.add(mutants[0], {"status": "survived"})
    assert sampler.report(mutants, results) == 0
    results.add(mutants[1], {"status": "no test"})
    assert sampler.report(mutants, results) == 1
    printed = capsys.readouterr().out
    assert "least squares: 8 of 10 killed (80.0%)" in printed
    assert f"{mutants[0].path}:{mutants[0].line}" in printed
