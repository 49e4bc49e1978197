"""The house: one home for metadata, an import without side effects, warnings that are errors."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import sklmc

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(sklmc.__file__).resolve().parent

OPTIONAL = ("dask", "distributed", "matplotlib", "pytest", "torchvision", "transformers")


@pytest.fixture(scope="module")
def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def metadata():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def _requirements(text):
    return [Requirement(line) for line in text.splitlines() if line.strip()]


def _run_python(code, tmp_path):
    """Run code in a new interpreter, away from the checkout, with a bare environment."""
    bare = {"PATH": os.defpath, "HOME": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=bare,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


def test_metadata_has_one_home(pyproject, metadata):
    """A [project] table beside setup.cfg breaks the build."""
    assert "project" not in pyproject
    assert metadata["metadata"]["name"] == "sklmc"
    assert metadata["metadata"]["version"] == sklmc.__version__


def test_extra_all_joins_plot_and_distributed(metadata):
    (everything,) = _requirements(metadata["options.extras_require"]["all"])
    assert everything.name == "sklmc"
    assert everything.extras == {"plot", "distributed"}


def _pins(which):
    """Read what a file of constraints pins."""
    text = (ROOT / f"constraints{which}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: version for name, _, version in (line.partition("==") for line in lines)}


@pytest.mark.parametrize("which", ["", "-oldest", "-newest"])
def test_constraints_fit_the_requirements(metadata, which):
    pins = _pins(which)
    assert "torch" in pins
    wanted = _requirements(metadata["options"]["install_requires"])
    for text in metadata["options.extras_require"].values():
        wanted += _requirements(text)
    assert set(pins) <= {requirement.name for requirement in wanted}
    for requirement in wanted:
        if requirement.name in pins:
            assert requirement.specifier.contains(pins[requirement.name]), requirement


def test_oldest_constraints_are_the_lower_bounds_of_the_requirements(metadata):
    """Torch alone may be newer: with its oldest releases some kinds of nets are refused."""
    pins = _pins("-oldest")
    for requirement in _requirements(metadata["options"]["install_requires"]):
        (bound,) = requirement.specifier
        pinned = pins[requirement.name]
        lowest = pinned == bound.version or pinned.startswith(f"{bound.version}.")
        assert lowest or requirement.name == "torch", requirement


def test_pytest_collects_doctests_of_the_package_and_the_guide(pyproject):
    options = pyproject["tool"]["pytest"]["ini_options"]
    assert "--doctest-modules" in options["addopts"]
    assert {"sklmc", "README.md", "docs/guide.rst"} <= set(options["testpaths"])
    assert options["xfail_strict"] is True


@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning, PendingDeprecationWarning])
def test_deprecation_raised_from_sklmc_is_an_error(category):
    with pytest.raises(category, match="goes away"):
        warnings.warn_explicit("goes away", category, "_view.py", 1, module="sklmc.models._view")


@pytest.mark.slow
def test_import_is_quiet_and_leaves_optional_packages_alone(tmp_path):
    code = f"import sys, sklmc; print([n for n in {OPTIONAL!r} if n in sys.modules])"
    done = _run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


@pytest.mark.slow
def test_every_module_imports_without_optional_packages(tmp_path):
    code = (
        "import importlib, pkgutil, sys\n"
        f"sys.modules.update(dict.fromkeys({OPTIONAL!r}))\n"
        "import sklmc\n"
        "for module in pkgutil.walk_packages(sklmc.__path__, 'sklmc.'):\n"
        "    importlib.import_module(module.name)\n"
    )
    done = _run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_import_leaves_threads_generators_and_filters_alone(tmp_path):
    code = (
        "import random, warnings, numpy, torch, pandas, scipy, sklearn, skorch\n"
        "def world():\n"
        "    return (torch.get_num_threads(), torch.get_rng_state().tolist(),\n"
        "            torch.get_default_dtype(), torch.is_grad_enabled(),\n"
        "            str(numpy.random.get_state()), random.getstate(), list(warnings.filters))\n"
        "before = world()\n"
        "import sklmc\n"
        "assert world() == before\n"
    )
    done = _run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_import_adds_little_to_what_it_stands_on(tmp_path):
    """Loose on purpose: only work at import time (tracing, reading data) can cross it."""
    code = (
        "import time, pandas, safetensors.torch, scipy.optimize, skorch, torch, tqdm\n"
        "import sklearn.model_selection, sklearn.metrics, sklearn.frozen\n"
        "start = time.process_time()\n"
        "import sklmc\n"
        "print(time.process_time() - start)\n"
    )
    done = _run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 5.0


def test_the_tasks_of_the_review_name_files_that_are_there_three_at_most():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (?:add|change|find) .*\|$", text, flags=re.MULTILINE)
    assert len(rows) == 12
    for row in rows:
        files = re.findall(r"`([\w/]+\.py)`", row)
        assert 1 <= len(files) <= 3, row
        for file in files:
            assert (ROOT / "sklmc" / file).exists(), file
