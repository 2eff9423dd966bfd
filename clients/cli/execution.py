"""How commands run: one message for an error, never a stack trace, and everything stopped on Ctrl-C and SIGTERM."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

import typer

from service_kit.exit_codes import ExitCode, exit_codes

_Arguments = ParamSpec("_Arguments")

_LISTED_BY = {
    "run": "bilevel runs",
    "campaign": "bilevel campaign list",
    "lesson": "bilevel lessons list",
    "library entry": "bilevel library list",
}
"""What to type where a service names its own call."""

EXIT_CODES = exit_codes()


def polite(command: Callable[_Arguments, Coroutine[Any, Any, None] | None]) -> Callable[_Arguments, None]:
    """A command whose errors are one message and an exit code; a coroutine is run to its end.

    With its option ``--json``, the message is a line of JSON.
    """

    @functools.wraps(command)
    def run(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        json = bool(kwargs.get("json"))
        try:
            result = command(*args, **kwargs)
            if result is not None:
                _run(result, json)
        except KeyboardInterrupt:
            raise typer.Exit(_say("INTERRUPTED", "interrupted", json=json)) from None
        except BrokenPipeError:
            # Whoever read our output has left; nothing more can be said, at exit neither.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.PIPE_CLOSED) from None
        except typer.Exit:
            raise
        except Exception as error:  # noqa: BLE001 (the boundary to the terminal)
            raise typer.Exit(_complain(error, json)) from None

    return run


def _run(main: Coroutine[Any, Any, None], json: bool) -> None:
    """Run ``main``; SIGTERM and SIGHUP cancel it as Ctrl-C does, so that it can stop what it started."""
    from service_kit import context

    received: list[int] = []

    async def cancellable() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stop(number: int) -> None:
            received.append(number)
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop, number)
        with context.bound(request=context.new_request()):  # one command is one request, however many calls it makes
            await main

    try:
        asyncio.run(cancellable())
    except asyncio.CancelledError:
        if not received:
            raise
        kind = "STOPPED" if received[0] == signal.SIGTERM else "HUNG_UP"
        raise typer.Exit(_say(kind, "stopped", json=json)) from None


def _complain(error: Exception, json: bool) -> ExitCode:
    """Say what went wrong; returns the exit code."""
    from service_kit.complaint import complain
    from service_kit.errors import RemoteError, ServiceError
    from service_kit.parameters import InvalidConfiguration

    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, RemoteError) and error.code == "NOT_FOUND":
        resource = error.metadata.get("resource", "")
        if resource in _LISTED_BY:
            error.hint = f"`{_LISTED_BY[resource]}` lists those that exist."
    if isinstance(error, ServiceError | InvalidConfiguration):
        return complain(error, json=json)
    if os.environ.get("BILEVEL_LOG_LEVEL", "").lower() == "debug":
        import traceback

        traceback.print_exception(error)
    message = f"unexpected {type(error).__name__}: {error}"
    hint = "This is a defect of bilevel. BILEVEL_LOG_LEVEL=debug shows where it comes from."
    return _say("DEFECT", message if json else f"error: {message}\n       {hint}", hint, json=json)


def _say(kind: str, message: str, hint: str = "", *, json: bool) -> ExitCode:
    from service_kit.complaint import say_json
    from service_kit.exit_codes import OF_KIND

    if json:
        return say_json(kind, message, next_step=hint)
    sys.stderr.write(message + "\n")
    return OF_KIND[kind]
