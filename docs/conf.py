"""Sphinx configuration: everything is built from this checkout, without the network."""

import re
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import api_pages  # noqa: E402

import sklmc  # noqa: E402

project = "sklmc"
author = "the sklmc developers"
copyright = "2026, the sklmc developers"
version = release = sklmc.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/**/*.ipynb", "gallery/**/*.py", "gallery/**/*.md5"]
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_title = f"sklmc {release}"
html_show_sourcelink = False
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}

autodoc_typehints = "none"
autodoc_member_order = "groupwise"
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"/(?!plot_)[^/]*\.py$",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
}
warnings.filterwarnings("ignore", message=".*Agg.*cannot be shown", category=UserWarning)


def skip_metadata_requests(app, what, name, item, skip, options):
    """Leave out ``set_fit_request`` and its kin, which scikit-learn puts on every estimator."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def quote_shapes(app, what, name, item, options, lines):
    """Set shapes as code: ``(n_features_in_,)`` would read as a link, for its underscore."""
    lines[:] = [re.sub(r"(\bof shape )(\([^()]*\))(?!`)", r"\1``\2``", line) for line in lines]


def setup(app):
    """Write the reference pages before Sphinx looks for sources."""
    app.connect("autodoc-process-docstring", quote_shapes, priority=400)
    app.connect("autodoc-skip-member", skip_metadata_requests)
    api_pages.write_pages(HERE / "api")
