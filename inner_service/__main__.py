"""``python -m inner_service``: serve the inner loop until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from inner_service.options import Options
from mechanisms.sandbox.limits import SandboxPolicy
from service_kit import logs
from service_kit.errors import InvalidArgument
from service_kit.server import ServerSettings, parse_address, run
from service_kit.settings import ModelSettings, PathSettings

TASKS_VARIABLE = "BILEVEL_TASKS"
_TASK_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


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
    tasks = _tasks(parsed.task, "--task") if parsed.task else _tasks(from_environment, TASKS_VARIABLE)
    if not tasks:
        hint = "For example --task gpt=127.0.0.1:7401, once `python -m gpt_trainer serve --listen 127.0.0.1:7401` runs."
        raise InvalidArgument.of("--task", f"must name at least one task, here or in {TASKS_VARIABLE}", hint=hint)
    server = ServerSettings(parsed.listen, parsed.address_file, insecure=parsed.insecure)
    database = parsed.database or PathSettings.load().database_url("inner")
    return Options(server, database, tasks, SandboxPolicy(allow_weak=parsed.allow_weak_sandbox))


def _tasks(entries: Iterable[str], field: str) -> dict[str, str]:
    tasks: dict[str, str] = {}
    for entry in entries:
        name, equals, address = entry.partition("=")
        if not equals or not _TASK_NAME.fullmatch(name):
            text = f"must be NAME=HOST:PORT with a name of lowercase letters, digits and dashes; got {entry!r}"
            raise InvalidArgument.of(field, text)
        if name in tasks:
            raise InvalidArgument.of(field, f"must name each task once; {name} is there twice")
        if not address.startswith("unix:"):
            parse_address(address, field)
        tasks[name] = address
    return tasks


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m inner_service",
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
    parser.add_argument("--insecure", action="store_true", help="allow an address that other machines can reach")
    parser.add_argument(
        "--allow-weak-sandbox",
        action="store_true",
        help="run mechanisms behind resource limits and deadlines only where the kernel is not Linux; for development",
    )
    return parser


if __name__ == "__main__":
    main()
