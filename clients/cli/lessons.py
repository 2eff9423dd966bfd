"""``bilevel lessons``: what searches have learnt, and what that did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clients.cli.execution import EXIT_CODES, polite
from clients.cli.options import INNER_DEFAULT, InnerOption, JsonOption, RunArgument

if TYPE_CHECKING:
    from bilevel.v1 import trace_pb2

app = typer.Typer(no_args_is_help=True, help="Lessons of earlier runs: read, forget, carry elsewhere.")

TaskOption = Annotated[str, typer.Option(help="Only lessons of this task, as the task names itself.")]
LessonArgument = Annotated[str, typer.Argument(metavar="LESSON", help="A lesson's name or id.")]
MOST = 100_000


@app.command(name="list", epilog=EXIT_CODES)
@polite
async def list_(
    task: TaskOption = "",
    page_size: Annotated[int, typer.Option(min=1, max=1000, help="Lessons to show, the newest first.")] = 50,
    page_token: Annotated[str, typer.Option(help="Go on where an earlier page ended.")] = "",
    inner: InnerOption = INNER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """List lessons, newest first, with how often each was in view, cited, and by kept trials."""
    from rich.table import Table

    from clients.cli.comparison import terminal
    from clients.cli.refusals import in_flags
    from clients.cli.resources import print_json
    from clients.inner import InnerClient
    from clients.report.export import to_json

    async with InnerClient(inner) as client:
        with in_flags():
            page = await client.lessons_page(task, page_size, page_token)
    if json:
        listed = [to_json(lesson) for lesson in page.lessons]
        print_json({"lessons": listed, "next_page_token": page.next_page_token})
        return
    if not page.lessons:
        typer.echo("There are no lessons. Runs with lessons (`bilevel run`, --lessons) write them at checkpoints.")
        return
    table = Table("lesson", "task", "about", "shown", "helped", "cited", "cited, kept", "statement", show_edge=False)
    for lesson in page.lessons:
        counts = (lesson.times_shown, lesson.times_helped, lesson.times_cited, lesson.times_cited_kept)
        table.add_row(lesson.name, lesson.task, about(lesson), *map(str, counts), lesson.statement)
    terminal().print(table)
    if page.next_page_token:
        typer.echo(f"\nMore with --page-token {page.next_page_token}")


@app.command(epilog=EXIT_CODES)
@polite
async def show(name: LessonArgument, inner: InnerOption = INNER_DEFAULT, json: JsonOption = False) -> None:
    """One lesson: what it says, where it comes from, how it did."""
    from clients import wording
    from clients.cli.resources import print_json
    from clients.inner import InnerClient
    from clients.report.export import to_json

    async with InnerClient(inner) as client:
        lesson = await client.get_lesson(resource(name))
    if json:
        print_json(to_json(lesson))
        return
    author = f"{lesson.author or 'unknown'}{' (scripted, no language model)' if lesson.scripted else ''}"
    checked = "of another service, not checked here" if lesson.imported else "checked to exist when it was written"
    for label, text in (
        ("lesson", lesson.name),
        ("says", lesson.statement),
        ("about", about(lesson)),
        ("parameters", ", ".join(lesson.parameters) or wording.NOTHING),
        ("learnt on", f"{lesson.task}, {lesson.hardware or 'any hardware'}"),
        ("written by", author),
        ("written", wording.moment(lesson.create_time)),
        ("last evidence", wording.moment(lesson.update_time)),
        ("in view of", f"{wording.count(lesson.times_shown, 'trial')}, {lesson.times_helped} of them kept"),
        ("cited by", f"{wording.count(lesson.times_cited, 'trial')}, {lesson.times_cited_kept} of them kept"),
        ("evidence", f"{wording.count(len(lesson.evidence), 'trial')}, {checked}"),
    ):
        typer.echo(f"{label:<14}{text}")
    for trial in lesson.evidence:
        typer.echo(f"{'':<14}{trial}")


@app.command(epilog=EXIT_CODES)
@polite
async def effect(run: RunArgument = "latest", inner: InnerOption = INNER_DEFAULT, json: JsonOption = False) -> None:
    """What lessons had to do with a run, by its trace: in view, cited, and, where it compared, what they changed."""
    from clients.cli.resources import find_run, print_json
    from clients.history import RunHistory
    from clients.inner import InnerClient
    from clients.memory import lines, to_json

    async with InnerClient(inner) as client:
        name = await find_run(client, run)
        history = RunHistory.of([event async for event in client.watch_trace(name, follow=False)])
    if json:
        print_json(to_json(history))
    else:
        typer.echo("\n".join(lines(history)))


@app.command(epilog=EXIT_CODES)
@polite
async def forget(
    names: Annotated[list[str], typer.Argument(metavar="LESSON...", help="Names or ids.")],
    inner: InnerOption = INNER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Forget lessons; traces still say what they said."""
    from clients.cli.resources import print_json
    from clients.inner import InnerClient

    wanted = [resource(name) for name in names]
    async with InnerClient(inner) as client:
        for name in wanted:
            await client.get_lesson(name)  # all of them exist, or none is forgotten
        for name in dict.fromkeys(wanted):
            await client.delete_lesson(name)
            if not json:
                typer.echo(f"{name} is forgotten")
    if json:
        print_json({"forgotten": list(dict.fromkeys(wanted))})


@app.command(epilog=EXIT_CODES)
@polite
async def export(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to; standard output by default.")] = None,
    task: TaskOption = "",
    inner: InnerOption = INNER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Write lessons into a file, as JSON. --json says in JSON how many went into which file."""
    from json import dumps

    from clients import wording
    from clients.cli.resources import print_json
    from clients.inner import InnerClient
    from clients.lesson_files import document
    from service_kit.given_files import unwritable

    async with InnerClient(inner) as client:
        found = document(await client.list_lessons(task, MOST))
    if file is None:
        print_json(found)
        return
    try:
        file.write_text(dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise unwritable(file, "FILE", error, hint="Choose another file.") from None
    if json:
        print_json({"file": str(file), "lessons": len(found["lessons"])})
    else:
        typer.echo(f"{wording.count(len(found['lessons']), 'lesson')} written to {file}")


@app.command(name="import", epilog=EXIT_CODES)
@polite
async def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As `bilevel lessons export` writes it.")],
    inner: InnerOption = INNER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Take lessons from a file. They start with no credit and are marked; importing a file twice changes nothing."""
    from clients.cli.resources import print_json
    from clients.inner import InnerClient
    from clients.lesson_files import read, request_id

    lessons = read(file)
    async with InnerClient(inner) as client:
        before = {lesson.name for lesson in await client.list_lessons(limit=MOST)}
        taken = [(await client.create_lesson(one, request_id(one), imported=True)).name for one in lessons]
    new = [name for name in dict.fromkeys(taken) if name not in before]
    if json:
        print_json({"read": len(lessons), "new": new, "known": sorted(set(taken) - set(new))})
    else:
        typer.echo(f"{len(lessons)} read: {len(new)} new, {len(set(taken)) - len(new)} known already")


def resource(name: str) -> str:
    """The resource name of a lesson that a person named."""
    return name if name.startswith("lessons/") else f"lessons/{name}"


def about(lesson: trace_pb2.Lesson) -> str:
    """Kind and failure class in words."""
    from bilevel.v1 import trace_pb2

    from clients import wording

    kind = wording.member(trace_pb2.LessonKind.Name(lesson.kind), "LESSON_KIND_")
    if not lesson.failure:
        return kind
    return f"{kind}, {wording.member(trace_pb2.FailureClass.Name(lesson.failure), 'FAILURE_CLASS_')} failure"
