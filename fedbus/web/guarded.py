"""What stands before every page: the door's questions, and the headers that every answer has."""

from __future__ import annotations

import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedbus.web.auth import Asking, Door, Visitor

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src"
    " 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # with no-referrer a browser would say "null" for the origin of our own forms
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
DOCS_POLICY = HEADERS["Content-Security-Policy"].replace("img-src 'self'", "img-src 'self' data:")
"""The icons of the documentation stand in its style sheet."""
OPEN_TO_ALL = ("/static/", "/login", "/healthz")
LOGIN = "/login"
SAFE = ("GET", "HEAD")


class Guarded:
    """An application behind the door. Every request that passes has its visitor in the scope."""

    def __init__(self, app: ASGIApp, door: Door, *, cookie: str) -> None:
        self._app = app
        self._door = door
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope)
        app = self._app if refusal is None else refusal
        await app(scope, receive, self._with_headers(scope, send))

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        asking = self._asking(scope, headers)
        if not self._door.known_host(asking.host):
            return _plain(421, "this page is not called so; open it by its address, or name it in FEDBUS_WEB_HOSTS")
        path: str = scope["path"]
        visitor = self._door.visitor(asking, now=time.time())
        by_token = visitor is not None and visitor.by_token
        if asking.method not in SAFE and not by_token and not self._door.own_origin(asking):
            return _plain(403, "a form of another page was sent here: nothing is done")
        if visitor is None and not path.startswith(OPEN_TO_ALL):
            if asking.method in SAFE and "text/html" in headers.get("accept", ""):
                return RedirectResponse(f"{LOGIN}?next={quote(path)}", status_code=303)
            return PlainTextResponse(
                "sign in: send the token as Authorization: Bearer TOKEN\n", 401, {"WWW-Authenticate": "Bearer"}
            )
        scope["visitor"] = visitor or Visitor()
        return None

    def _asking(self, scope: Scope, headers: Headers) -> Asking:
        proxy_header = self._door.proxy_header
        return Asking(
            method=scope["method"],
            peer=scope["client"][0] if scope.get("client") else "",
            host=headers.get("host", "").lower(),
            origin=headers["origin"].lower() if "origin" in headers else None,
            authorization=headers.get("authorization", ""),
            cookie=_cookie(headers.get("cookie", ""), self._cookie),
            said_by_proxy=headers.getlist(proxy_header) if proxy_header else (),
        )

    @staticmethod
    def _with_headers(scope: Scope, send: Send) -> Send:
        static = scope["path"].startswith(("/static/", "/docs/"))
        docs = scope["path"].startswith("/docs/")

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if docs:
                    headers["Content-Security-Policy"] = DOCS_POLICY
                headers["Cache-Control"] = "no-cache" if static else "no-store"
            await send(message)

        return sending


def _plain(status: int, text: str) -> PlainTextResponse:
    return PlainTextResponse(f"{text}\n", status_code=status)


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value
