"""The pages before the door: a form that asks for the password, the way out, and a sign of life."""

from __future__ import annotations

import secrets
from urllib.parse import parse_qs, quote

import structlog
from jinja2 import Environment, PackageLoader
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from clients.dashboard.door.headers import NONCE, login_security_policy
from clients.dashboard.door.limits import Limits
from clients.dashboard.door.sessions import Session, Sessions
from clients.dashboard.door.settings import DoorSettings
from service_kit.errors import ServiceError

SESSION = "bilevel.session"
"""Where a request's scope keeps its :class:`Session`."""
LIVES = "bilevel.session_lives"
"""Where it keeps a function that says whether that session still lives."""
COOKIE = "bilevel_session"
_BEFORE = "bilevel_login"
"""Cookie that binds the form to the browser that it was sent to."""
_MOST_BYTES = 4096
"""Largest form."""

log = structlog.get_logger("clients.dashboard.door")


class LoginPages:
    """The Starlette application of the pages that need no session."""

    def __init__(self, settings: DoorSettings, sessions: Sessions, limits: Limits) -> None:
        self._settings, self._sessions, self._limits = settings, sessions, limits
        loader = PackageLoader("clients.dashboard.door")
        self._form = Environment(loader=loader, autoescape=True).get_template("login.html.j2")
        self.application = Starlette(
            routes=[
                Route("/healthz", self._health),
                Route("/login", self._ask),
                Route("/login", self._log_in, methods=["POST"]),
                Route("/logout", self._ask_to_leave),
                Route("/logout", self._log_out, methods=["POST"]),
            ],
            exception_handlers={ServiceError: _unusable},
        )

    async def _health(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _ask(self, request: Request) -> Response:
        following = _local(request.query_params.get("next", "/"))
        if not self._settings.wants_login or SESSION in request.scope:
            return RedirectResponse(following, 303)
        return self._page(request, following=following)

    async def _log_in(self, request: Request) -> Response:
        form = await _form(request)
        following = _local(form.get("next", "/"))
        if not self._settings.wants_login:
            return RedirectResponse("/", 303)
        address = request.client.host if request.client is not None else ""
        if (seconds := self._limits.login(address)) is not None:
            log.warning("too many attempts to log in", address=address)
            answer = self._page(request, following=following, problem=_later(seconds), status=429)
            answer.headers["Retry-After"] = str(int(seconds) + 1)
            return answer
        if not self._sessions.form_token_holds(form.get("csrf", ""), request.cookies.get(_BEFORE, "")):
            return self._page(request, following=following, problem="The form was too old. Try again.", status=403)
        access = self._settings.access_of(form.get("password", ""))
        if access is None:
            self._limits.login_failed(address)
            log.warning("wrong password", address=address)
            return self._page(request, following=following, problem="That is not the password.", status=403)
        cookie = self._sessions.begin(access)
        log.info("logged in", address=address, access=access.value)
        answer = RedirectResponse(following, 303)
        seconds_left = int(self._settings.lifetime.total_seconds())
        answer.set_cookie(COOKIE, cookie, seconds_left, httponly=True, samesite="strict", secure=_secure(request))
        answer.delete_cookie(_BEFORE)
        return answer

    async def _ask_to_leave(self, request: Request) -> Response:
        session = request.scope.get(SESSION)
        if not isinstance(session, Session) or not self._settings.wants_login:
            return RedirectResponse("/", 303)
        return self._page(request, leaving=self._sessions.form_token(session.identity))

    async def _log_out(self, request: Request) -> Response:
        session = request.scope.get(SESSION)
        if isinstance(session, Session) and self._settings.wants_login:
            form = await _form(request)
            if not self._sessions.form_token_holds(form.get("csrf", ""), session.identity):
                problem = "The form was too old. Try again."
                return self._page(
                    request, leaving=self._sessions.form_token(session.identity), problem=problem, status=403
                )
            self._sessions.end(session)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE)
        return answer

    def _page(
        self, request: Request, *, following: str = "/", leaving: str = "", problem: str = "", status: int = 200
    ) -> Response:
        before, nonce = request.cookies.get(_BEFORE) or secrets.token_urlsafe(18), request.scope[NONCE]
        csrf = leaving or self._sessions.form_token(before)
        text = self._form.render(nonce=nonce, csrf=csrf, following=following, problem=problem, leaving=bool(leaving))
        answer = Response(text, status, {"Content-Security-Policy": login_security_policy(nonce)}, "text/html")
        if not leaving:
            answer.set_cookie(_BEFORE, before, 3600, httponly=True, samesite="strict", secure=_secure(request))
        return answer


async def _unusable(_: Request, error: Exception) -> Response:
    log.error("nobody can log in", reason=str(error))
    return PlainTextResponse("The dashboard cannot read its password file; its log says why.\n", 500)


def login_address(path: str, query: str) -> str:
    """Where someone without a session is sent, to come back to ``path`` afterwards."""
    wanted = f"{path}?{query}" if query else path
    return "/login" if wanted == "/" else f"/login?next={quote(wanted, safe='')}"


def _local(address: str) -> str:
    """``address`` where it is a path on this server, else the first page."""
    inside = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if inside else "/"


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form; empty where it is not one."""
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > _MOST_BYTES:
            return {}
    fields = parse_qs(received.decode("utf-8", "replace"), max_num_fields=16)
    return {name: values[-1] for name, values in fields.items()}


def _later(seconds: float) -> str:
    minutes = int(seconds) // 60 + 1
    return f"Too many attempts. Try again in {minutes} minute{'s' if minutes > 1 else ''}."


def _secure(request: Request) -> bool:
    return request.url.scheme == "https"
