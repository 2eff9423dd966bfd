"""The sandbox, the model endpoint, the databases, and the services that should be running."""

from __future__ import annotations

import difflib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from clients.addresses import INNER, OUTER, ServiceAddress
from clients.connection import Connection, connect
from clients.doctor.finding import Finding, bad, good, note
from clients.doctor.machine import installed
from service_kit.errors import RemoteError, ServiceError, Violation
from service_kit.settings import KNOWN_VARIABLES, ModelSettings, PathSettings
from service_kit.waits import HEALTH_NAME, WAITS

PROBE = '''class Mechanism:
    """Prefers smaller steps."""

    def rank(self, view, candidates):
        return [-len(candidate.changes) for candidate in candidates]
'''
"""The smallest mechanism that the gate runs for real."""
REQUIRED = ("clean_environment", "closed_descriptors", "no_new_privs", "rlimits", "seccomp")
SECONDS = 5.0
"""For each question to another process."""
_EXTRA = "It is part of the extra of the inner and the outer service."


async def sandbox() -> Finding:
    """Starts a real worker and asks which layers the kernel granted."""
    if not installed("RestrictedPython"):
        return note("sandbox", "not examined: RestrictedPython is missing", _EXTRA)
    from clients.cli.sample_space import OBJECTIVE, SPACE
    from mechanisms import gate
    from mechanisms.sandbox.failures import SandboxUnavailable

    try:
        report = await gate.check(PROBE, space=SPACE, objective=OBJECTIVE, history=(), allow_inert=True)
    except SandboxUnavailable as error:
        advice = "Mechanisms need Linux with seccomp; `--allow-weak-sandbox` of the inner service is for development."
        return bad("sandbox", f"mechanisms cannot run here: {error}", advice)
    missing = [layer for layer in REQUIRED if layer not in report.layers]
    if not report.accepted or missing:
        found = f"layers {', '.join(report.layers) or 'none'}; missing {', '.join(missing) or 'none'}"
        return bad("sandbox", f"a harmless mechanism did not pass: {found}", "See docs/security.md for the layers.")
    return good("sandbox", f"mechanisms run behind {', '.join(report.layers)}")


async def model() -> Finding:
    """Whether the endpoint answers and offers the model; no tokens are spent."""
    settings = ModelSettings.load()
    if not settings.configured:
        return note(
            "model",
            "none is configured: the scripted researcher answers, which is no evidence for the method",
            "Set OPENAI_BASE_URL, OPENAI_API_KEY and BILEVEL_MODEL; docs/models.md has examples.",
        )
    if not installed("openai"):
        return note("model", "not examined: openai is missing", _EXTRA)
    import openai

    key = settings.api_key.get_secret_value() if settings.api_key is not None else "none"
    where = settings.base_url or "api.openai.com"
    try:
        async with openai.AsyncOpenAI(
            base_url=settings.base_url, api_key=key, timeout=SECONDS, max_retries=0
        ) as client:
            offered = [entry.id async for entry in client.models.list()]
    except openai.APIStatusError as error:
        advice = (
            "Check OPENAI_API_KEY." if error.status_code in (401, 403) else "Check OPENAI_BASE_URL: it ends in /v1."
        )
        return bad("model", f"{where} answers {error.status_code}", advice)
    except openai.APIConnectionError as error:
        return bad(
            "model", f"{where} cannot be reached ({type(error).__name__})", "Check OPENAI_BASE_URL, and that it runs."
        )
    if settings.model is None:
        some = ", ".join(offered[:5])
        return bad(
            "model", f"{where} answers, but no model is named", f"Set BILEVEL_MODEL, for example to one of: {some}."
        )
    if settings.model not in offered:
        some = ", ".join(offered[:5]) or "none"
        return bad("model", f"{where} does not offer {settings.model}", f"It offers for example: {some}.")
    return good("model", f"{settings.model} at {where}")


async def databases() -> list[Finding]:
    """Whether each service's database can be used; nothing is created or changed."""
    paths = PathSettings.load()
    return [await _database(service, paths.database_url(service)) for service in ("inner", "outer")]


async def _database(service: str, text: str) -> Finding:
    if not installed("sqlalchemy"):
        return note("database", f"{service}: not examined: sqlalchemy is missing", _EXTRA)
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except ArgumentError:
        return bad("database", f"{service}: BILEVEL_DATABASE is no URL", "For example postgresql://user@host/database.")
    if url.get_backend_name() == "sqlite":
        return _sqlite(service, Path(url.database or ""))
    if not installed("psycopg"):
        return bad("database", f"{service}: PostgreSQL needs psycopg", "pip install 'bilevel-autoresearch[postgres]'")
    import psycopg

    shown = url.render_as_string(hide_password=True)
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        async with await psycopg.AsyncConnection.connect(plain, connect_timeout=int(SECONDS)) as connection:
            row = await (await connection.execute("SHOW server_version")).fetchone()
    except psycopg.Error as error:
        return bad("database", f"{service}: {shown}: {str(error).strip()}", "Check BILEVEL_DATABASE and the server.")
    return good("database", f"{service}: PostgreSQL {row[0] if row else '?'} at {shown}")


def _sqlite(service: str, path: Path) -> Finding:
    if not path.exists():
        return good("database", f"{service}: {path} will be created with the first start")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=SECONDS)) as connection:
            [(verdict,), *_] = connection.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.Error as error:
        return bad("database", f"{service}: {path}: {error}", "Bring the file back from a copy, or move it away.")
    if verdict != "ok":
        return bad("database", f"{service}: {path} is damaged: {verdict}", "Bring the file back from a copy.")
    return good("database", f"{service}: {path} is sound")


async def running(inner: str = INNER.address, outer: str = OUTER.address) -> list[Finding]:
    """Whether the services answer; it is no fault when they do not run."""
    return [
        await _service(INNER.at(inner), "bilevel runs"),
        await _service(OUTER.at(outer), "bilevel campaign list"),
    ]


async def _service(target: ServiceAddress, shows: str) -> Finding:
    """``shows`` is the command that lists what the service works on."""
    where = f"the {target.service} at {target.address}"
    try:
        connection = connect(target)
        try:
            healthy = await connection.healthy(SECONDS)
            stored = await _stores(connection)
        finally:
            await connection.close()
    except ServiceError as error:
        if isinstance(error, RemoteError) and error.code == "UNAVAILABLE":
            return note("service", f"{where} does not run", f"`{target.start}` starts it.")
        return bad("service", f"{where}: {error.message}", error.hint or "See its log.")
    if not healthy:
        return bad("service", f"{where} says that it does not serve", "See its log.")
    if not stored:
        advice = f"`{shows}` says since when and why. Make space, or make it writable: all goes on by itself."
        return bad("service", f"{where} {WAITS}", advice)
    return good("service", f"{where} serves")


async def _stores(connection: Connection) -> bool:
    """Whether nothing waits for the service's database; one that does not say is believed."""
    try:
        return await connection.healthy(SECONDS, HEALTH_NAME)
    except RemoteError as error:
        if error.code == "NOT_FOUND":
            return True
        raise


def invalid_settings(wrong: Sequence[Violation]) -> list[Finding]:
    """Settings whose values cannot be used."""
    advice = "Mend or unset it; `bilevel config show` says what it means and where it comes from."
    return [bad("settings", f"{violation.field}: {violation.description}", advice) for violation in wrong]


def unknown_settings(environment: Sequence[str]) -> list[Finding]:
    """Variables that look like settings and are none."""
    findings = []
    for name in sorted(environment):
        if name.startswith("BILEVEL_") and name not in KNOWN_VARIABLES:
            close = difflib.get_close_matches(name, KNOWN_VARIABLES, n=1)
            advice = f"Did you mean {close[0]}?" if close else "`bilevel config show` lists the settings."
            findings.append(bad("settings", f"{name} is set, but nothing reads it", advice))
    return findings
