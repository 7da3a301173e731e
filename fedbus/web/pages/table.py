"""Which page is where: method and path to the page that answers."""

from __future__ import annotations

from dataclasses import dataclass

from fedbus.web.pages import abort, check, compare, left, scores, sites, submit
from fedbus.web.pages.seam import Page


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """`changes`: only for who may submit, and only with a token of the form."""

    path: str
    page: Page
    method: str = "GET"
    changes: bool = False


PLACES = (
    Place(path="/sites", page=sites.page),
    Place(path="/left", page=left.page),
    Place(path="/compare", page=compare.page),
    Place(path="/compare", page=compare.compare, method="POST", changes=True),
    Place(path="/jobs/{job}/scores", page=scores.page),
    Place(path="/jobs/{job}/scores", page=scores.score, method="POST", changes=True),
    Place(path="/jobs/{job}/check", page=check.page),
    Place(path="/jobs/{job}/abort", page=abort.question, changes=True),
    Place(path="/jobs/{job}/abort", page=abort.abort, method="POST", changes=True),
    Place(path="/submit", page=submit.form, changes=True),
    Place(path="/submit", page=submit.submit, method="POST", changes=True),
    Place(path="/check", page=submit.check, method="POST", changes=True),
)
