"""What a browser is told about the pages: where scripts may come from, and that nobody may frame them.

NiceGUI's client evaluates templates and handlers, which needs ``unsafe-eval``, and Quasar and ECharts set styles in
elements, which needs ``unsafe-inline`` for styles. Scripts in a page run only with the nonce of that answer, which
NiceGUI's own template gets here as its text is read: what is filled into the template later gets none.
"""

from __future__ import annotations

from jinja2 import Environment
from jinja2.ext import Extension
from starlette.datastructures import MutableHeaders

NONCE = "bilevel.nonce"
"""Where a request's scope keeps the nonce of its answer."""

_COMMON = "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"


def content_security_policy(nonce: str) -> str:
    """For the pages that NiceGUI makes."""
    return (
        f"default-src 'self'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        f"img-src 'self' data:; font-src 'self' data:; connect-src 'self'; {_COMMON}"
    )


def login_security_policy(nonce: str) -> str:
    """For the page that asks for the password: no script at all."""
    return f"default-src 'none'; style-src 'nonce-{nonce}'; {_COMMON}"


def protect(headers: MutableHeaders, nonce: str) -> None:
    """Add what is not there yet."""
    headers.setdefault("Content-Security-Policy", content_security_policy(nonce))
    headers.setdefault("X-Frame-Options", "DENY")
    headers.setdefault("X-Content-Type-Options", "nosniff")
    # Not no-referrer: with it browsers send "Origin: null" with a form of our own.
    headers.setdefault("Referrer-Policy", "same-origin")
    headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
    headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    headers.setdefault("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
    headers.setdefault("Cache-Control", "no-store")


class ScriptNonce(Extension):
    """Gives the script tags that are written in a template the nonce of the request it is rendered for."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return source.replace("<script", f"<script nonce=\"{{{{ request.scope['{NONCE}'] }}}}\"")


def give_scripts_their_nonce(environment: Environment) -> None:
    """Must be called before ``environment`` reads its first template."""
    environment.add_extension(ScriptNonce)
