"""``python -m outer_service``: serve the outer loop until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog
from bilevel.v1 import outer_pb2_grpc

from mechanisms.sandbox.limits import SandboxPolicy
from outer_service.inner_client import InnerClient
from outer_service.service import NAME, OuterLoopServicer
from outer_service.store import Store
from outer_service.supervisor import Supervisor
from service_kit import logs
from service_kit.addresses import parse_address
from service_kit.llm.cassette import Cassette
from service_kit.llm.client import LanguageModel
from service_kit.patience import PatienceSettings
from service_kit.security.channels import ChannelSecurity
from service_kit.security.quota import Quota
from service_kit.server import ServerSettings, must_be_free, run, serve
from service_kit.settings import ModelSettings, PathSettings
from service_kit.telemetry.serving import MetricsSettings

log = structlog.get_logger("outer_service")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    server: ServerSettings
    database: str
    """SQLAlchemy URL."""
    inner: str
    """Address of the inner service."""
    sandbox: SandboxPolicy
    """What sources that are judged here run under."""
    lease_seconds: float
    """How long a campaign rests when the service that supervises it has died, where several share a database."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and serve."""
    run(_main(_parser().parse_args(arguments)))


async def _main(parsed: argparse.Namespace) -> None:
    logs.configure("outer_service")
    await serve_outer_loop(options_of(parsed), ModelSettings.load().or_scripted())


async def serve_outer_loop(options: Options, model_settings: ModelSettings) -> None:
    """Serve until a signal; unfinished campaigns go on. Raises :class:`ServiceError` for what is configured wrongly."""
    patience, quota, security = PatienceSettings.load().seconds, Quota.load(), ChannelSecurity.load()
    MetricsSettings.load()
    must_be_free(options.server)  # all of it before anything is opened or brought to a newer revision
    draining = asyncio.Event()
    model = LanguageModel(model_settings, cassette=Cassette.of(model_settings, "outer"))
    store = await Store.open(options.database, options.lease_seconds)
    inner = InnerClient(options.inner, security)
    supervisor = Supervisor(store, inner, model, patience, options.sandbox)

    def register(server: grpc.aio.Server) -> Iterable[str]:
        servicer = OuterLoopServicer(
            store,
            inner,
            supervisor,
            draining,
            priced=model.priced,
            context_tokens=model_settings.context_tokens,
            sandbox=options.sandbox,
            quota=quota,
        )
        outer_pb2_grpc.add_OuterLoopServiceServicer_to_server(servicer, server)
        return [NAME]

    async def stop() -> None:
        await supervisor.close()
        await inner.close()
        await model.close()
        await store.close()

    scripted = model.scripted
    log.info("model", name=model.name, endpoint=model_settings.base_url or "api.openai.com", scripted=scripted)
    log.info("inner loop", address=options.inner)
    await supervisor.recover()
    await serve(register, options.server, name="outer loop", draining=draining, on_stop=stop, waits=store.waits)


def options_of(parsed: argparse.Namespace) -> Options:
    """Raises :class:`InvalidArgument` naming the option or variable."""
    for option, address in (("--listen", parsed.listen), ("--inner", parsed.inner)):
        if not address.startswith("unix:"):
            parse_address(address, option)
    server = ServerSettings.secured(parsed.listen, parsed.address_file, insecure=parsed.insecure)
    paths, sandbox = PathSettings.load(), SandboxPolicy(allow_weak=parsed.allow_weak_sandbox)
    database = parsed.database or paths.database_url("outer")
    return Options(server, database, parsed.inner, sandbox, paths.lease_seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bilevel serve outer",
        description="The outer loop: supervises runs with campaigns, researches mechanisms, keeps the library; serves "
        "bilevel.v1.OuterLoopService.",
        epilog="The language model is read from OPENAI_BASE_URL, OPENAI_API_KEY and BILEVEL_MODEL. Without an endpoint "
        "and a key it is the scripted researcher at 127.0.0.1:7400, and every result says so.",
    )
    parser.add_argument(
        "--listen",
        default="127.0.0.1:7403",
        metavar="HOST:PORT",
        help="port 0 takes any free port; default %(default)s",
    )
    parser.add_argument(
        "--address-file", type=Path, metavar="FILE", help="receives the bound address once the service is ready"
    )
    parser.add_argument(
        "--database", metavar="URL", help="SQLAlchemy URL; default BILEVEL_DATABASE, else outer.db in BILEVEL_HOME"
    )
    parser.add_argument(
        "--inner", default="127.0.0.1:7402", metavar="HOST:PORT", help="the inner service; default %(default)s"
    )
    parser.add_argument(
        "--allow-weak-sandbox",
        action="store_true",
        help="judge imported mechanisms and research procedures with limits and deadlines only where the kernel is not "
        "Linux; for development",
    )
    parser.add_argument("--insecure", action="store_true", help="allow an address that other machines can reach")
    return parser


if __name__ == "__main__":
    main()
