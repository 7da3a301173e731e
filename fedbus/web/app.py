"""The status page as an ASGI application: which path is which page, and what a request must have to be answered.

Pages know no HTTP, see `pages.seam`; what is decided about who asks stands in `auth`; what is known in `feed`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from fedbus.console.fetch import AskedInVainError
from fedbus.errors import FedbusError, JobSpecError
from fedbus.runtime.printable import printable
from fedbus.web import docs, job_view, live
from fedbus.web.auth import COOKIE_S, Door, Visitor
from fedbus.web.feed import Feed
from fedbus.web.guarded import Guarded
from fedbus.web.pages import abort, check, compare, job, jobs, left, scores, sites, submit
from fedbus.web.pages.seam import Asked, Goto, Page, Shown, Source
from fedbus.web.render import STATIC, STATIC_FOLDER, html

MOST_FORM_BYTES = 1 << 20
MOST_FIELDS = 64
MOST_BROWSERS = 512
PING_S = 15
SEND_S = 20.0
"""A browser that takes nothing for so long is left; it comes back by itself when it lives."""
WRONG_WORD_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the routes are made of."""

    feed: Feed
    answers: Source
    door: Door
    read_only: bool
    secure: bool
    cookie: str
    docs: Path | None = None

    def may_submit(self) -> bool:
        """Whether this page changes anything for anybody."""
        return self.feed.may_submit and not self.read_only


PAGES: tuple[tuple[str, str, Page, bool], ...] = (
    ("GET", "/", jobs.page, False),
    ("GET", "/sites", sites.page, False),
    ("GET", "/compare", compare.page, False),
    ("POST", "/compare", compare.compare, True),
    ("GET", "/left", left.page, False),
    ("GET", "/submit", submit.form, True),
    ("POST", "/submit", submit.submit, True),
    ("POST", "/check", submit.check, True),
    ("GET", "/jobs/{job}/scores", scores.page, False),
    ("POST", "/jobs/{job}/scores", scores.score, True),
    ("GET", "/jobs/{job}/check", check.page, False),
    ("GET", "/jobs/{job}/abort", abort.question, True),
    ("POST", "/jobs/{job}/abort", abort.abort, True),
)
"""Method, path, page, and whether only somebody who may submit gets it."""


def make_app(served: Served) -> Guarded:
    """The application; `served.feed` runs beside it."""
    routes = [
        Route(path, _route(served, page, submits=submits), methods=[method]) for method, path, page, submits in PAGES
    ]
    looks = live.Looks(served.feed, served.answers)
    of_job = partial(job.page, look=looks.view)
    routes += [
        Route("/jobs/{job}", _route(served, of_job, submits=False), methods=["GET"]),
        Route("/jobs/{job}/data.json", _data(looks), methods=["GET"]),
        Route("/live", _live(served, looks), methods=["GET"]),
        Route("/login", _login(served), methods=["GET", "POST"]),
        Route("/logout", _logout(served), methods=["POST"]),
        Route("/healthz", _health, methods=["GET"]),
    ]
    static = Mount(STATIC, StaticFiles(directory=STATIC_FOLDER))
    app = Starlette(routes=[*routes, *docs.routes(served.docs), static], exception_handlers={404: _no_page})
    return Guarded(app, served.door, cookie=served.cookie)


def _route(served: Served, page: Page, *, submits: bool) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        may_submit = served.may_submit()
        if submits and not may_submit:
            return _problem(request, 403, "This page only shows.", "Its login may not submit or abort jobs.")
        form = await _form(request) if request.method == "POST" else {}
        if form is None:
            return _problem(request, 413, "That is too much.", f"A form has {MOST_FORM_BYTES} bytes at most.")
        asked = Asked(
            path={name: str(value) for name, value in request.path_params.items()},
            query=dict(request.query_params),
            form=form,
            now=time.time(),
            may_submit=may_submit,
            part=request.headers.get("hx-request") == "true",
        )
        return await _answer(request, served, page, asked)

    return answer


async def _answer(request: Request, served: Served, page: Page, asked: Asked) -> Response:
    try:
        shown = await page(served.answers, asked)
    except AskedInVainError as exc:
        return _problem(request, 404, "There is no such job.", str(exc))
    except JobSpecError as exc:
        return _problem(request, 400, "The job was refused.", str(exc))
    except FedbusError as exc:
        return _away(request, served, exc)
    if isinstance(shown, Goto):
        return RedirectResponse(shown.path, status_code=303)
    return _html(request, shown, may_submit=asked.may_submit)


def _html(request: Request, shown: Shown, *, may_submit: bool) -> HTMLResponse:
    visitor: Visitor = request.scope["visitor"]
    context = {"who": visitor.who, "may_submit": may_submit, **shown.context}
    return HTMLResponse(html(shown.template, **context), status_code=shown.status)


def _problem(request: Request, status: int, what: str, why: str) -> Response:
    shown = Shown(template="problem.html", context=_told(what, why), status=status)
    return _html(request, shown, may_submit=False)


def _away(request: Request, served: Served, exc: FedbusError) -> Response:
    """Nothing is known yet of what was asked for: the page says why, and tries again by itself."""
    trouble = served.feed.trouble
    what = "No answer." if trouble is None else f"{trouble.what[:1].upper()}{trouble.what[1:]}."
    since = None if trouble is None else trouble.since
    context = _told(what, str(exc), since=since, again=True)
    return _html(request, Shown(template="problem.html", context=context, status=503), may_submit=False)


def _told(what: str, why: str, *, since: float | None = None, again: bool = False) -> dict[str, Any]:
    return {"title": what, "what": what, "why": printable(why), "since": since, "again": again}


async def _no_page(request: Request, exc: Exception) -> Response:
    return _problem(request, 404, "There is no such page.", request.url.path)


async def _health(request: Request) -> Response:
    return PlainTextResponse("ok\n")


def _data(looks: live.Looks) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            view = await looks.view(request.path_params["job"], _wanted(request))
        except AskedInVainError as exc:
            return JSONResponse({"error": printable(str(exc))}, status_code=404)
        except FedbusError as exc:
            return JSONResponse({"error": printable(str(exc))}, status_code=503)
        return JSONResponse(live.Sent().patch(view))

    return answer


def _wanted(request: Request) -> list[str]:
    return request.query_params.get("sites", "")[:2_000].split(",")[: job_view.MOST_DRAWN]


def _live(served: Served, looks: live.Looks) -> Callable[[Request], Awaitable[Response]]:
    looking = 0

    async def counted(messages: AsyncIterator[live.Message]) -> AsyncIterator[live.Message]:
        nonlocal looking
        looking += 1
        try:
            async with aclosing(messages) as found:  # type: ignore[type-var]  # both are generators
                async for message in found:
                    yield message
        finally:
            looking -= 1

    async def answer(request: Request) -> Response:
        if looking >= MOST_BROWSERS:
            return PlainTextResponse("too many look on\n", status_code=503, headers={"Retry-After": "10"})
        wanted = request.query_params.get("job")
        if wanted:
            messages = live.job_messages(served.feed, looks, wanted, _wanted(request))
        else:
            messages = live.beats(served.feed, served.answers)
        return EventSourceResponse(counted(messages), ping=PING_S, send_timeout=SEND_S)

    return answer


def _login(served: Served) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        if request.method == "GET":
            return _login_page(request, served, "")
        form = await _form(request) or {}
        if not served.door.keys.right(form.get("token", "").strip()):
            await asyncio.sleep(WRONG_WORD_S)
            return _login_page(request, served, "That is not the word.", status=401)
        response = RedirectResponse(_own_path(form.get("next", "/")), status_code=303)
        word = served.door.keys.cookie(now=time.time())
        response.set_cookie(
            served.cookie, word, max_age=COOKIE_S, httponly=True, samesite="strict", secure=served.secure, path="/"
        )
        return response

    return answer


def _login_page(request: Request, served: Served, wrong: str, *, status: int = 200) -> Response:
    context = {
        "title": "Sign in",
        "wrong": wrong,
        "by_token": served.door.keys.needed,
        "next": _own_path(request.query_params.get("next", "/")),
    }
    return _html(request, Shown(template="login.html", context=context, status=status), may_submit=False)


def _logout(served: Served) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        response = RedirectResponse("/login", status_code=303)
        response.delete_cookie(served.cookie, path="/")
        return response

    return answer


def _own_path(path: str) -> str:
    """A path of this page; `/` for what would lead elsewhere."""
    plain = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return quote(path, safe="/?=&%.-_~") if plain else "/"


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of a form that was sent, of a name that is there twice the last; None for one that is too large."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_FORM_BYTES:
            return None
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        return {}
    return dict(fields)
