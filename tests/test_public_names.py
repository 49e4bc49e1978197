"""Every public name is sorted, documented, has a running example and a page in the reference."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
from pathlib import Path

import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate

ROOT = Path(__file__).resolve().parents[1]

# Checks of numpydoc.validate; the two that name a missing section are asked of some objects only.
DOCSTRING_CHECKS = {
    "GL03",  # no double blank lines
    "GL05",  # no tabs
    "GL06",  # known sections only
    "GL07",  # sections in numpydoc's order
    "GL08",  # there is a docstring
    "PR01",  # every parameter is documented
    "PR02",  # and no other
    "PR03",  # in the signature's order
    "PR04",  # with its type
    "PR07",  # and a description
    "PR10",  # a space before the colon of a type
    "RT01",  # what is returned is documented
    "RT03",  # with a description
    "SS01",  # a summary
    "SS02",  # that begins with a capital letter
    "SS03",  # ends with a full stop
    "SS04",  # has no leading space
    "SS06",  # and fits on one line
    "YD01",  # what is yielded is documented
}


def _load_api_pages():
    path = ROOT / "docs" / "api_pages.py"
    spec = importlib.util.spec_from_file_location("api_pages", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


api_pages = _load_api_pages()
ROOMS = [room.__name__ for room in api_pages.public_rooms()]
NAMES = [f"{room}.{name}" for room, names in api_pages.public_names().items() for name in names]


def _resolve(path):
    room, _, name = path.rpartition(".")
    return getattr(importlib.import_module(room), name)


def _public_methods(path):
    """List methods and properties that sklmc itself defines on a public class.

    Not ``set_fit_request`` and its kin, which scikit-learn's metadata routing puts there, nor the
    fields of named tuples and slots, which the class documents.
    """
    cls = _resolve(path)
    if not inspect.isclass(cls):
        return []
    ours = [base for base in cls.__mro__ if base.__module__.split(".")[0] == "sklmc"]
    return sorted(
        {
            f"{path}.{name}"
            for base in ours
            for name, value in vars(base).items()
            if not name.startswith("_")
            and not name.endswith("_request")
            and hasattr(value, "__get__")
            and (isinstance(value, property) or not inspect.isdatadescriptor(value))
        }
    )


METHODS = [method for path in NAMES for method in _public_methods(path)]


def _has_fields_for_parameters(item):
    """Tell whether a class documents all that its constructor takes, as attributes or parameters.

    Results that sklmc hands out are described by their attributes: users do not construct them.
    """
    if not inspect.isclass(item):
        return False
    doc = NumpyDocString(inspect.getdoc(item))
    rows = [*doc["Parameters"], *doc["Attributes"]]
    documented = {name.strip() for row in rows for name in row.name.split(",")}
    return set(inspect.signature(item).parameters) <= documented


def _complaints(path):
    checks = set(DOCSTRING_CHECKS)
    if path in NAMES and _has_fields_for_parameters(_resolve(path)):
        checks.remove("PR01")
    found = validate(path)["errors"]
    return [f"{path}: {code} {text}" for code, text in found if code in checks]


def test_names_were_found():
    assert "sklmc" in ROOMS
    assert "sklmc.average_models" in NAMES


@pytest.mark.parametrize("room", ROOMS)
def test_all_is_sorted_unique_and_importable(room):
    module = importlib.import_module(room)
    assert list(module.__all__) == sorted(set(module.__all__))
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("path", NAMES)
def test_public_name_has_numpydoc_docstring(path):
    assert _complaints(path) == []


@pytest.mark.parametrize("path", METHODS)
def test_public_method_has_numpydoc_docstring(path):
    assert _complaints(path) == []


@pytest.mark.parametrize("path", NAMES)
def test_public_name_has_example_that_the_doctests_collect(path):
    """pytest's doctests collect an object where it is defined: that must be inside sklmc."""
    item = _resolve(path)
    assert item.__module__.split(".")[0] == "sklmc"
    section = "\n".join(NumpyDocString(inspect.getdoc(item))["Examples"])
    assert doctest.DocTestParser().get_examples(section)
    assert "doctest: +SKIP" not in section
    home = importlib.import_module(item.__module__)
    collected = {test.name for test in doctest.DocTestFinder().find(home) if test.examples}
    assert f"{item.__module__}.{item.__qualname__}" in collected


def test_every_public_name_has_a_page_in_the_reference():
    pages = api_pages.pages()
    for path in NAMES:
        assert path in pages[f"{path}.rst"]
        assert f"<{path}>`" in pages["index.rst"]


def test_reference_pages_are_written_and_stale_ones_removed(tmp_path):
    (tmp_path / "sklmc.gone.rst").write_text("gone", encoding="utf-8")
    api_pages.write_pages(tmp_path)
    assert {page.name for page in tmp_path.iterdir()} == set(api_pages.pages())
