"""The documentation under /docs: pages that `deploy/docs-site build` has made, as they lie in their folder.

They have no inline script, so the page's own policy fits them but for pictures that stand in their style sheet.
"""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

PATH = "/docs"
HOME = f"{PATH}/index.html"
BUILT = Path(__file__).parents[2] / "build" / "docs"
"""Where `deploy/docs-site build` puts them in a checkout."""
MISSING = (
    "The documentation is not built here. In a checkout of fedbus: deploy/docs-site build; elsewhere build it with\n"
    "--to DIR and set FEDBUS_WEB_DOCS to that folder. The same pages are deploy/docs/*.md in the repository.\n"
)


def routes(given: Path | None) -> list[BaseRoute]:
    """What answers below /docs, from the folder that is given or where a checkout has them."""
    folder = (BUILT if given is None else given).absolute()
    if not (folder / "index.html").is_file():
        return [Route(f"{PATH}{rest}", _missing, methods=["GET"]) for rest in ("", "/{path:path}")]
    return [
        Route(PATH, _home, methods=["GET"]),
        Route(f"{PATH}/", _home, methods=["GET"]),
        Mount(PATH, StaticFiles(directory=folder)),
    ]


async def _home(request: Request) -> Response:
    return RedirectResponse(HOME)


async def _missing(request: Request) -> Response:
    return PlainTextResponse(MISSING, 404)
