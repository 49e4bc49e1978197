"""Where the reference of the public classes is, for the links in scikit-learn's HTML diagrams."""

from __future__ import annotations

import functools
import sys
from importlib import metadata


@functools.cache
def documentation_url() -> str | None:
    """Return where the installed package says that its documentation is; None where it does not.

    The address has one home, `project_urls` of setup.cfg, under the name "Documentation".
    """
    try:
        entries = metadata.metadata("sklmc").get_all("Project-URL") or ()
    except metadata.PackageNotFoundError:  # run from a clone
        return None
    urls = dict(entry.split(", ", 1) for entry in entries)
    return urls["Documentation"].rstrip("/") if "Documentation" in urls else None


class LinksDocumentation:
    """Mixin of estimators: the question mark in an HTML diagram leads to the page of the class."""

    _doc_link_module = "sklmc"

    @property
    def _doc_link_template(self) -> str:
        url = documentation_url()
        return f"{url}/api/{{page}}.html" if url else ""  # scikit-learn leaves an empty link out

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        """Name the page: the class in the room that users import it from."""
        kind = type(self)
        room = ".".join(kind.__module__.split(".")[:2])
        at_top = kind.__name__ in sys.modules["sklmc"].__all__
        return {"page": f"{'sklmc' if at_top else room}.{kind.__name__}"}
