"""``bilevel prompts``: exactly what a language model would get."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from clients.cli.execution import EXIT_CODES, polite
from clients.cli.options import INNER_DEFAULT, OUTER_DEFAULT, InnerOption, JsonOption, OuterOption

if TYPE_CHECKING:
    from bilevel.v1 import common_pb2

app = typer.Typer(no_args_is_help=True, help="Show what a language model would get.")


class Round(StrEnum):
    """What a model is asked for."""

    PROPOSE = "propose"
    LESSONS = "lessons"
    ANALYSE = "analyse"
    EXPLORE = "explore"
    CRITIQUE = "critique"
    SPECIFY = "specify"
    GENERATE = "generate"
    REPAIR = "repair"
    PROCEDURE = "procedure"


OF_THE_INNER_SERVICE = (Round.PROPOSE, Round.LESSONS)
"""Rounds whose prompts the inner service makes, within the context limit of its own model."""


@app.command(epilog=EXIT_CODES)
@polite
async def show(
    round_: Annotated[Round, typer.Option("--round", help="What the model is asked for.")] = Round.EXPLORE,
    run: Annotated[str, typer.Option(metavar="RUN", help="A run's name or id, or `latest`, as it is now.")] = "",
    example: Annotated[bool, typer.Option("--example", help="A written example; nothing has to run.")] = False,
    context: Annotated[
        int | None,
        typer.Option(min=0, help="Longest prompt in estimated tokens, 0 no limit; by default the service's."),
    ] = None,
    inner: InnerOption = INNER_DEFAULT,
    outer: OuterOption = OUTER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """The prompt of a round, message by message, with its size. Asks no model and changes nothing."""
    from clients.cli.resources import find_run, print_json
    from clients.inner import InnerClient
    from service_kit.errors import InvalidArgument, ServiceError
    from service_kit.llm.failures import Message
    from service_kit.llm.prompts import preview_document, preview_text

    if round_ in OF_THE_INNER_SERVICE and context is not None:
        raise InvalidArgument.of("--context", f"has no effect with --round {round_.value}")
    if example:
        if run:
            raise InvalidArgument.of("--example", "cannot be combined with --run")
        _become(round_, context or 0, json)
    async with InnerClient(inner) as client:
        name = await find_run(client, run or "latest")
        if round_ in OF_THE_INNER_SERVICE:
            told = await client.describe_search(name, lessons_prompt=round_ is Round.LESSONS)
            sent = list(told.lessons_prompt if round_ is Round.LESSONS else told.proposer_prompt)
            version = told.prompt_version
            if not sent:
                raise ServiceError(
                    f"this inner service sends no prompt of the round {round_.value} for {name}",
                    hint="It has none, or its BILEVEL_CONTEXT_TOKENS is too small for one.",
                )
        else:
            sent, version = await _researchers(outer, name, round_, context)
    messages = [Message(message.role, message.content) for message in sent]
    if json:
        print_json(preview_document(messages, version))
    else:
        typer.echo(preview_text(messages, version or "of the inner service"), nl=False)


async def _researchers(
    outer: str, run: str, round_: Round, context: int | None
) -> tuple[list[common_pb2.ChatMessage], str]:
    from bilevel.v1 import outer_pb2

    from clients.outer import OuterClient

    wire = (
        outer_pb2.RESEARCH_ROUND_UNSPECIFIED
        if round_ is Round.ANALYSE
        else outer_pb2.ResearchRound.Value(f"RESEARCH_ROUND_{round_.name}")
    )
    async with OuterClient(outer) as client:
        answer = await client.preview_prompt(run, wire, context)
    return list(answer.messages), answer.prompt_version


def _become(round_: Round, context: int, json: bool) -> None:
    """Replace this process by the service's own preview: only it knows its prompts."""
    rest = ["--round", round_.value]
    if round_ in OF_THE_INNER_SERVICE:
        rest = ["inner_service.preview", *rest]
    else:
        rest = ["outer_service.preview", *rest, "--context", str(context)]
    if json:
        rest.append("--json")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", *rest])  # noqa: S606
