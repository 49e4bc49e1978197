"""Links from scikit-learn's HTML diagrams to the reference, and what a report of a fault needs."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

import pytest
import torch
from sklearn.utils import estimator_html_repr

import sklmc
from sklmc import NetClassifier, WeightAverager, _documentation
from sklmc.features import RedundancyReducer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def published(monkeypatch):
    """Make the metadata say where the documentation is."""
    monkeypatch.setattr(_documentation, "documentation_url", lambda: "https://docs.example")


@pytest.mark.parametrize(
    "estimator, page",
    [
        (NetClassifier(), "sklmc.NetClassifier"),
        (WeightAverager(NetClassifier()), "sklmc.WeightAverager"),
        (RedundancyReducer(), "sklmc.features.RedundancyReducer"),
    ],
)
def test_diagram_links_to_the_page_of_the_class(estimator, page, published):
    assert f'href="https://docs.example/api/{page}.html"' in estimator_html_repr(estimator)
    spec = importlib.util.spec_from_file_location("api_pages", ROOT / "docs" / "api_pages.py")
    api_pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api_pages)
    assert f"{page}.rst" in api_pages.pages()


def test_subclass_of_a_user_has_no_link(published):
    class Mine(NetClassifier):
        pass

    Mine.__module__ = "mine"
    assert Mine()._get_doc_link() == ""


def test_no_link_where_the_metadata_names_no_documentation():
    urls = dict(
        entry.split(", ", 1) for entry in metadata.metadata("sklmc").get_all("Project-URL") or ()
    )
    link = NetClassifier()._get_doc_link()
    assert bool(link) == ("Documentation" in urls)


def test_metadata_is_read_for_the_address(monkeypatch):
    class Metadata:
        def get_all(self, name):
            return {
                "Project-URL": ["Source, https://a.example", "Documentation, https://b.example/"]
            }[name]

    monkeypatch.setattr(metadata, "metadata", lambda name: Metadata())
    _documentation.documentation_url.cache_clear()
    try:
        assert _documentation.documentation_url() == "https://b.example"
    finally:
        monkeypatch.undo()
        _documentation.documentation_url.cache_clear()


def test_versions_name_the_package_what_it_needs_and_its_extras(capsys):
    sklmc.show_versions()
    printed = capsys.readouterr().out
    assert f"sklmc: {sklmc.__version__}\n" in printed
    assert f"torch: {torch.__version__}\n" in printed
    shown = {line.partition(":")[0] for line in printed.splitlines()}
    requirements = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    needed = requirements.partition("install_requires =")[2].partition("\n\n")[0].split()
    assert {name.partition(">=")[0] for name in needed} <= shown


def test_package_says_that_it_is_typed():
    assert (Path(sklmc.__file__).parent / "py.typed").is_file()
    assert "sklmc = py.typed" in (ROOT / "setup.cfg").read_text(encoding="utf-8")
