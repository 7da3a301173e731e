"""How a page becomes HTML: the templates, with every value escaped, made printable and bounded as in reports."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from fedbus import __version__
from fedbus.report.page import environment, when
from fedbus.web.words import ago, bytes_words, clock, share, state_class

STATIC = "/static"
STATIC_FOLDER = Path(__file__).parent / "static"
PAGES = (
    ("jobs", "/", "Jobs"),
    ("sites", "/sites", "Sites"),
    ("compare", "/compare", "Compare"),
    ("left", "/left", "What left"),
    ("submit", "/submit", "Submit"),
)
"""Key, path and name in the bar at the top."""


def html(template: str, **context: Any) -> str:
    """A page. Every page is given `title`, `page` (a key of PAGES), `who` and `may_submit`."""
    return _templates().get_template(template).render(**context) + "\n"


@cache
def _templates() -> Environment:
    made = environment(Path(__file__).parent / "templates")
    made.filters |= {
        "ago": ago,
        "bytes": bytes_words,
        "clock": clock,
        "share": share,
        "state_class": state_class,
        "when": when,
    }
    made.globals |= {
        "pages": PAGES,
        "release": __version__,
        "static": STATIC,
        "who": "",
        "may_submit": False,
        "page": "",
    }
    return made
