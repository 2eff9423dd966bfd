"""The web application: NiceGUI's pages in a FastAPI application that any ASGI server runs."""

from __future__ import annotations

from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui

from clients.dashboard.feeds import Feeds
from clients.dashboard.frame import serve_static
from clients.dashboard.pages import compare, cost, lessons, library, mechanisms, overview, research, run, trial, trials
from clients.dashboard.services import Services

PAGES = (overview, run, trials, trial, compare, mechanisms, research, lessons, cost, library)
"""Every page's module; each has ``register(services, feeds)``."""


def register_pages(services: Services, feeds: Feeds) -> None:
    """Serve every page, over these connections. Once a process: NiceGUI's pages are the process's."""
    serve_static()
    for page in PAGES:
        page.register(services, feeds)

    async def close() -> None:
        await feeds.close()
        await services.close()

    nicegui_app.on_shutdown(close)


def create_app(inner_address: str, outer_address: str) -> FastAPI:
    """The dashboard of the services at these addresses (HOST:PORT). Once a process."""
    services = Services(inner_address, outer_address)
    register_pages(services, Feeds(services))
    application = FastAPI(title="Bilevel dashboard", docs_url=None, redoc_url=None, openapi_url=None)
    ui.run_with(application, title="Bilevel", dark=None, tailwind=False, language="en-GB", show_welcome_message=False)
    return application
