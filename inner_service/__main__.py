"""``python -m inner_service``: serve the inner loop until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from inner_service.options import Options
from inner_service.task_address import TaskAddress, from_entries, from_file
from mechanisms.sandbox.limits import SandboxPolicy
from service_kit import logs
from service_kit.addresses import parse_address
from service_kit.errors import InvalidArgument
from service_kit.server import ServerSettings, run
from service_kit.settings import ModelSettings, PathSettings

TASKS_VARIABLE = "BILEVEL_TASKS"
TASKS_FILE_VARIABLE = "BILEVEL_TASKS_FILE"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and serve."""
    parsed = _parser().parse_args(arguments)
    run(_main(parsed))


async def _main(parsed: argparse.Namespace) -> None:
    logs.configure("inner_service")
    options, model_settings = options_of(parsed), ModelSettings.load().or_scripted()

    from inner_service.server import serve_inner_loop  # the model's client takes a second: only when all is well

    await serve_inner_loop(options, model_settings)


def options_of(parsed: argparse.Namespace) -> Options:
    """Raises :class:`InvalidArgument` naming the option or variable."""
    if not parsed.listen.startswith("unix:"):
        parse_address(parsed.listen, "--listen")
    from_environment = [part.strip() for part in os.environ.get(TASKS_VARIABLE, "").split(",") if part.strip()]
    tasks = from_entries(parsed.task, "--task") if parsed.task else from_entries(from_environment, TASKS_VARIABLE)
    file = parsed.tasks or (Path(named) if (named := os.environ.get(TASKS_FILE_VARIABLE)) else None)
    if file is not None:
        in_file = from_file(file)
        if twice := tasks.keys() & in_file.keys():
            raise InvalidArgument.of("--tasks", f"must name each task once; {min(twice)} is there and in --task")
        tasks = {**in_file, **tasks}
    loopback = (
        parsed.loopback_tasks if parsed.loopback_tasks is not None else TaskAddress(parsed.listen).on_this_machine
    )
    if not tasks and not loopback:
        hint = "For example --task gpt=127.0.0.1:7401, once `bilevel serve trainer` runs."
        raise InvalidArgument.of("--task", f"must name at least one task, here or in {TASKS_VARIABLE}", hint=hint)
    server = ServerSettings.secured(parsed.listen, parsed.address_file, insecure=parsed.insecure)
    paths, sandbox = PathSettings.load(), SandboxPolicy(allow_weak=parsed.allow_weak_sandbox)
    database = parsed.database or paths.database_url("inner")
    return Options(server, database, tasks, loopback, paths.lease_seconds, sandbox)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bilevel serve inner",
        description="The inner loop: owns runs, trials, the trace, lessons and mechanisms, and serves "
        "bilevel.v1.InnerLoopService.",
        epilog="The language model is read from OPENAI_BASE_URL, OPENAI_API_KEY and BILEVEL_MODEL. Without an endpoint "
        "and a key it is the scripted researcher at 127.0.0.1:7400, and every result says so.",
    )
    parser.add_argument(
        "--listen",
        default="127.0.0.1:7402",
        metavar="HOST:PORT",
        help="port 0 takes any free port; default %(default)s",
    )
    parser.add_argument(
        "--address-file", type=Path, metavar="FILE", help="receives the bound address once the service is ready"
    )
    parser.add_argument(
        "--database", metavar="URL", help="SQLAlchemy URL; default BILEVEL_DATABASE, else inner.db in BILEVEL_HOME"
    )
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="NAME=HOST:PORT",
        help=f"a task that runs can name; repeatable; default {TASKS_VARIABLE}=NAME=HOST:PORT,...",
    )
    parser.add_argument(
        "--tasks",
        type=Path,
        metavar="FILE",
        help="TOML file with a table [tasks.NAME] for each task: address, and for TLS and a token ca_file, "
        f"certificate_file, key_file, server_name, token_file; default {TASKS_FILE_VARIABLE}",
    )
    parser.add_argument(
        "--loopback-tasks",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether a run may name a task by its address on this machine, as in localhost:7500; by default it may "
        "where this service listens on loopback itself",
    )
    parser.add_argument("--insecure", action="store_true", help="allow an address that other machines can reach")
    parser.add_argument(
        "--allow-weak-sandbox",
        action="store_true",
        help="run mechanisms behind resource limits and deadlines only where the kernel is not Linux; for development",
    )
    return parser


if __name__ == "__main__":
    main()
