"""``python -m clients.scripted_researcher``: serve until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
from pathlib import Path

import structlog

from service_kit import logs
from service_kit.addresses import is_loopback, parse_address
from service_kit.errors import InvalidArgument
from service_kit.extras import optional
from service_kit.server import run

log = structlog.get_logger("clients.scripted_researcher")


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(
        prog="bilevel serve researcher",
        description="The scripted researcher, which stands in for a language model: an OpenAI-compatible endpoint, a "
        "script and no model. Serves until SIGTERM or Ctrl-C.",
    )
    parser.add_argument("--listen", default="127.0.0.1:7400", help="HOST:PORT; port 0 takes any free port")
    parser.add_argument("--address-file", type=Path, help="where the bound address is written once it is ready")
    parser.add_argument("--insecure", action="store_true", help="allow an address that other machines can reach")
    arguments = parser.parse_args()
    logs.configure("scripted_researcher")
    run(serve(arguments.listen, arguments.address_file, insecure=arguments.insecure))


async def serve(listen: str, address_file: Path | None, *, insecure: bool = False) -> None:
    """Serve on ``listen`` until a signal. Raises :class:`InvalidArgument` when the address cannot be had."""
    if not is_loopback(parse_address(listen, "--listen")[0]) and not insecure:
        raise InvalidArgument.of(
            "--listen",
            f"refusing to listen on {listen}: other machines can reach it",
            hint="Listen on 127.0.0.1, or say --insecure if that is what you want.",
        )

    for module in ("starlette", "uvicorn"):
        optional(module, "researcher", "to stand in for a language model")
    from clients.scripted_researcher.server import MODEL, application
    from clients.web_server import WebSettings, serve_web

    def say(address: str) -> None:
        log.info("listening", name=MODEL, address=address, note="a script, not a language model")

    await serve_web(application(), WebSettings(listen, address_file), say)


if __name__ == "__main__":
    main()
