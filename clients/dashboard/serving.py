"""From a command line to a dashboard that answers: the door first, then the pages behind it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import structlog

from clients.dashboard.door.events import EventGuard
from clients.dashboard.door.guard import Guard
from clients.dashboard.door.headers import give_scripts_their_nonce
from clients.dashboard.door.login import SESSION
from clients.dashboard.door.sessions import Session
from clients.dashboard.door.settings import DoorSettings
from clients.web_server import WebSettings, serve_web
from service_kit.addresses import is_loopback, parse_address
from service_kit.errors import InvalidArgument
from service_kit.extras import optional
from service_kit.security.channels import ChannelSecurity
from service_kit.security.tls import ServerTls
from service_kit.settings import ServerNetworkSettings

log = structlog.get_logger("clients.dashboard")


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What one start of the dashboard is told."""

    listen: str
    """HOST:PORT."""
    inner: str
    """Address of the inner service, HOST:PORT."""
    outer: str
    """Address of the outer service, HOST:PORT."""
    insecure: bool = False
    """Allow other machines to come in without TLS or a login."""
    address_file: Path | None = None
    """Where the bound address is written."""


async def serve_dashboard(dashboard: Dashboard) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises :class:`InvalidArgument` for wrong settings, and where the dashboard would be open to more than its user
    without ``insecure``; :class:`ServiceError` for an address that cannot be had.
    """
    host = parse_address(dashboard.listen, "--host")[0]
    door, network = DoorSettings.load(), ServerNetworkSettings.load()
    door.digests()
    tls = None
    if network.certificate is not None and network.key is not None:
        tls = ServerTls(network.certificate, network.key, network.client_ca)
    if not dashboard.insecure and not is_loopback(host) and (tls is None or not door.wants_login):
        raise InvalidArgument.of(
            "--host",
            f"refusing to listen on {dashboard.listen}: other machines can reach it without TLS and a login",
            hint="Listen on 127.0.0.1; or set BILEVEL_DASHBOARD_PASSWORD_FILE, BILEVEL_TLS_CERT and BILEVEL_TLS_KEY, "
            "for which `bilevel certs` makes files; or pass --insecure if the network is trusted.",
        )
    if not door.wants_login and ChannelSecurity.load().current_token() is not None:
        raise InvalidArgument.of(
            "BILEVEL_DASHBOARD_PASSWORD_FILE",
            "refusing to serve without a login: the dashboard holds a token of the services, and whoever reaches it "
            "could use it, every user of this machine at least",
            hint="Set BILEVEL_DASHBOARD_PASSWORD_FILE to a file that holds a password.",
        )
    optional("nicegui", "dashboard", "to show the dashboard")
    from nicegui import core
    from nicegui.client import Client, templates

    from clients.dashboard.app import create_app

    def opened_by(client_id: str) -> Session | None:
        page = Client.instances.get(client_id)
        session = page.request.scope.get(SESSION) if page is not None else None
        return session if isinstance(session, Session) else None

    give_scripts_their_nonce(templates.env)
    EventGuard(core.sio, opened_by)
    scheme = "https" if tls is not None else "http"
    guarded = Guard(create_app(dashboard.inner, dashboard.outer), door, frozenset({host.lower()}))
    settings = WebSettings(dashboard.listen, dashboard.address_file, tls, lifespan=True, field="--port")
    await serve_web(guarded, settings, lambda address: log.info("listening", url=f"{scheme}://{address}/"))
