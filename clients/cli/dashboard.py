"""``bilevel dashboard``: the runs and what changes them, in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clients.cli.execution import polite
from clients.cli.options import INNER_DEFAULT, OUTER_DEFAULT, InnerOption, OuterOption


@polite
def dashboard(
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Where to listen; other than loopback needs a login and TLS.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 7404,
    inner: InnerOption = INNER_DEFAULT,
    outer: OuterOption = OUTER_DEFAULT,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let whoever reaches the port come in, without TLS or a login.")
    ] = False,
    address_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the bound address is written once it is ready.")
    ] = None,
) -> None:
    """Show runs, mechanisms, research and cost in a browser, as they happen.

    BILEVEL_DASHBOARD_PASSWORD_FILE asks whoever comes for a password, BILEVEL_TLS_CERT and BILEVEL_TLS_KEY turn TLS on,
    BILEVEL_CA and BILEVEL_TOKEN_FILE are shown to the services. SIGTERM and Ctrl-C end it.
    """
    from clients.dashboard.serving import Dashboard, serve_dashboard
    from service_kit import logs
    from service_kit.server import run

    logs.configure("dashboard")
    listen = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    run(serve_dashboard(Dashboard(listen, inner, outer, insecure, address_file)))
