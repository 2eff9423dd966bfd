"""``python -m clients.scripted_researcher``: serve until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import uvicorn

from clients.scripted_researcher.server import MODEL, application
from service_kit import logs
from service_kit.errors import ServiceError
from service_kit.server import is_loopback, parse_address, run

GRACE = 5
"""Seconds that running requests get to finish after SIGTERM."""

log = structlog.get_logger("clients.scripted_researcher")


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m clients.scripted_researcher", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:7400", help="HOST:PORT; port 0 takes any free port")
    parser.add_argument("--address-file", type=Path, help="where the bound address is written once it is ready")
    parser.add_argument("--insecure", action="store_true", help="allow an address that other machines can reach")
    arguments = parser.parse_args()
    logs.configure("scripted_researcher")
    run(serve(arguments.listen, arguments.address_file, insecure=arguments.insecure))


async def serve(listen: str, address_file: Path | None, *, insecure: bool = False) -> None:
    """Serve on ``listen`` until a signal. Raises :class:`ServiceError` when the address cannot be had."""
    host, port = parse_address(listen)
    if not is_loopback(host) and not insecure:
        raise ServiceError(
            f"refusing to listen on {listen}: other machines can reach it",
            hint="Listen on 127.0.0.1, or say --insecure if that is what you want.",
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        hint = "Choose another address with --listen HOST:PORT; port 0 takes any free port."
        raise ServiceError(f"cannot listen on {listen}: {error.strerror}", hint=hint) from error
    bound = f"[{host}]:{listener.getsockname()[1]}" if ":" in host else f"{host}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        application(),
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE,
        lifespan="off",
    )
    server = _Server(config, bound, address_file)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.stop)
    await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """A server that says where it listens, and ends with success after a signal."""

    def __init__(self, config: uvicorn.Config, address: str, address_file: Path | None) -> None:
        super().__init__(config)
        self._address, self._address_file = address, address_file

    def stop(self) -> None:
        """Begin to stop; a second call ends running requests at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # ours are set already; uvicorn's would end the process by the signal

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _publish(self._address_file, self._address)
            log.info("listening", name=MODEL, address=self._address, note="a script, not a language model")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._address_file is not None:
            self._address_file.unlink(missing_ok=True)
        await super().shutdown(sockets)


def _publish(file: Path | None, address: str) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        draft.write_text(address + "\n")
        draft.replace(file)


if __name__ == "__main__":
    main()
