"""``bilevel mechanisms``: check a source, install it, see what it did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clients.cli.execution import EXIT_CODES, polite
from clients.cli.options import INNER_DEFAULT, InnerOption, JsonOption, RunArgument
from service_kit.exit_codes import ExitCode, exit_codes

if TYPE_CHECKING:
    from bilevel.v1 import trace_pb2

    from clients.inner import InnerClient
    from mechanisms.report import GateReport as Judgement
    from service_kit.errors import RemoteError

app = typer.Typer(no_args_is_help=True, help="Check, install and watch mechanisms.")

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Python source with one class Mechanism.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The mechanism's id within the run.")]
InertOption = Annotated[bool, typer.Option("--allow-inert", help="Accept one that changes nothing, as a control.")]

MOST_BYTES = 2**20
"""Largest source that is read; the gate takes far smaller ones only."""


@app.command(epilog=exit_codes(done="accepted", failed="rejected"))
@polite
async def check(
    file: FileArgument,
    run: Annotated[
        str, typer.Option(metavar="RUN", help="Check against this run's space and trace, by the inner service.")
    ] = "",
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Replay this exported run, a run.json as `bilevel report` writes it."),
    ] = None,
    language_only: Annotated[
        bool, typer.Option("--language-only", help="Stop after language and conformance.")
    ] = False,
    allow_inert: InertOption = False,
    allow_weak_sandbox: Annotated[
        bool, typer.Option(help="Run it where the kernel is not Linux: limits and deadlines only, for development.")
    ] = False,
    inner: InnerOption = INNER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Run the gate on a file: on a run's trace, on an exported one, or on a synthetic history alone.

    Only --run needs a server.
    """
    from clients.cli.resources import find_run, print_json
    from clients.inner import InnerClient
    from clients.report.export import to_json
    from service_kit.errors import InvalidArgument

    source = read_source(file)
    if run:
        local = {"--language-only": language_only, "--trace": trace, "--allow-weak-sandbox": allow_weak_sandbox}
        if given := [option for option, value in local.items() if value]:
            raise InvalidArgument.of(given[0], "cannot be combined with --run: the inner service checks by its trace")
        async with InnerClient(inner) as client:
            report = await client.check_mechanism(await find_run(client, run), source, allow_inert=allow_inert)
        accepted, text, document = report.verdict == 1, report.text, to_json(report)
    else:
        verdict = await check_here(source, trace, allow_inert, language_only, allow_weak_sandbox)
        accepted, text, document = verdict.accepted, verdict.render(), verdict.to_json()
    if json:
        print_json(document)
    else:
        typer.echo(text)
    if not accepted:
        raise typer.Exit(ExitCode.FAILED)


@app.command(epilog=EXIT_CODES)
@polite
async def install(
    run: RunArgument,
    file: FileArgument,
    name: Annotated[str, typer.Option("--id", help="Its id within the run; the file's name by default.")] = "",
    author: Annotated[str, typer.Option(help="Who wrote it, for the trace.")] = "a person",
    allow_inert: InertOption = False,
    inner: InnerOption = INNER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Install a mechanism into a run; it acts from the next trial on."""
    from clients.cli.resources import find_run, print_json
    from clients.inner import InnerClient
    from clients.report.export import to_json
    from service_kit.errors import RemoteError, ServiceError

    source, id_ = read_source(file), name or file.stem.lower().replace("_", "-")
    async with InnerClient(inner) as client:
        try:
            mechanism = await client.install_mechanism(
                await find_run(client, run), id_, source, allow_inert=allow_inert, author=author
            )
        except RemoteError as error:
            if not (texts := gate_texts(error)):
                raise
            if not json:
                typer.echo("\n".join(texts))
            said = "\n".join(texts) if json else "its report is above"
            raise ServiceError(f"the gate rejected mechanism {id_!r}; {said}") from None
    if json:
        print_json(to_json(mechanism))
        return
    typer.echo(mechanism.report.text)
    typer.echo(f"\ninstalled as {mechanism.name}; sandbox: {', '.join(mechanism.sandbox_layers)}")


@app.command(name="list", epilog=EXIT_CODES)
@polite
async def list_(run: RunArgument = "latest", inner: InnerOption = INNER_DEFAULT, json: JsonOption = False) -> None:
    """The mechanisms of a run, removed and suspended ones included."""
    from rich.table import Table

    from clients import wording
    from clients.cli.comparison import terminal
    from clients.cli.resources import find_run, print_json
    from clients.inner import InnerClient
    from clients.report.export import to_json

    async with InnerClient(inner) as client:
        name = await find_run(client, run)
        found = await client.list_mechanisms(name)
    if json:
        print_json([to_json(mechanism) for mechanism in found])
        return
    if not found:
        typer.echo(f"{name} has no mechanisms.")
        return
    table = Table("id", "state", "hooks", "changed", "proposed", "kept", "author", "summary", show_edge=False)
    for mechanism in found:
        table.add_row(
            mechanism.name.rpartition("/")[2],
            state_of(mechanism),
            ", ".join(wording.hook(hook) for hook in mechanism.hooks),
            str(mechanism.effect.changed_decisions),
            str(mechanism.effect.proposed_trials),
            str(mechanism.effect.kept_trials),
            mechanism.author,
            mechanism.summary,
        )
    terminal().print(table)


@app.command(epilog=EXIT_CODES)
@polite
async def show(
    run: RunArgument, name: NameArgument, inner: InnerOption = INNER_DEFAULT, json: JsonOption = False
) -> None:
    """A mechanism's source, gate report and sandbox."""
    from clients.cli.resources import print_json
    from clients.inner import InnerClient
    from clients.report.export import to_json

    async with InnerClient(inner) as client:
        mechanism = await find_mechanism(client, run, name)
    if json:
        print_json(to_json(mechanism))
        return
    reason = f" ({mechanism.state_reason})" if mechanism.state_reason else ""
    typer.echo(f"{mechanism.name}: {state_of(mechanism)}{reason}\nwritten by {mechanism.author}\n{mechanism.summary}\n")
    typer.echo(f"{mechanism.report.text}\nsandbox: {', '.join(mechanism.sandbox_layers)}\n")
    typer.echo(mechanism.source)


@app.command(epilog=EXIT_CODES)
@polite
async def effect(
    run: RunArgument,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="One mechanism; all by default.")] = "",
    inner: InnerOption = INNER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """What mechanisms did, by the trace: calls of each hook, and every decision they changed."""
    from clients import wording
    from clients.cli.resources import find_run, print_json
    from clients.history import RunHistory
    from clients.inner import InnerClient
    from clients.report.export import to_json
    from service_kit.errors import NotFound

    async with InnerClient(inner) as client:
        run_name = await find_run(client, run)
        history = RunHistory.of([event async for event in client.watch_trace(run_name, follow=False)])
    chosen = [m for m in history.mechanisms.values() if not name or m.name == name]
    if name and not chosen:
        known = ", ".join(history.mechanisms) or "none"
        raise NotFound("mechanism", name, hint=f"Mechanisms of {run_name}: {known}.")
    if json:
        print_json({m.name: [to_json(change) for change in m.changes] for m in chosen})
        return
    for mechanism in chosen:
        typer.echo(f"{mechanism.name}: {wording.count(len(mechanism.changes), 'changed decision')}")
        for hook, n in mechanism.hooks.items():
            each = wording.duration(n.seconds / n.calls) if n.calls else "-"
            typer.echo(f"  {wording.hook(hook):<8} {n.calls:>5} calls, {n.changed:>4} changed, {each} a call")
        for change in mechanism.changes:
            typer.echo(f"  trial {change.trial:>3} {wording.hook(change.hook)}: {change.before} → {change.after}")
    if not chosen:
        typer.echo(f"{run_name} has no mechanisms.")


@app.command(epilog=EXIT_CODES)
@polite
async def remove(
    run: RunArgument,
    name: NameArgument,
    reason: Annotated[str, typer.Option(help="Kept on the trace.")] = "removed from the command line",
    inner: InnerOption = INNER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Remove an installed mechanism; the run goes on without it."""
    from clients.cli.resources import find_run, print_json
    from clients.inner import InnerClient
    from clients.report.export import to_json

    async with InnerClient(inner) as client:
        mechanism = await client.uninstall_mechanism(f"{await find_run(client, run)}/mechanisms/{name}", reason)
    if json:
        print_json(to_json(mechanism))
    else:
        typer.echo(f"{mechanism.name} is removed; it changed {mechanism.effect.changed_decisions} decisions")


async def check_here(
    source: str, trace: Path | None, allow_inert: bool, language_only: bool, allow_weak: bool
) -> Judgement:
    """The gate's verdict in this process and its workers. Raises ServiceError where this machine has no sandbox."""
    from clients.cli.exported_trace import ExportedTrace, read_trace
    from clients.cli.sample_space import OBJECTIVE, SPACE
    from mechanisms import gate
    from mechanisms.sandbox.failures import SandboxUnavailable
    from mechanisms.sandbox.limits import SandboxPolicy
    from service_kit.errors import ServiceError

    run = read_trace(trace) if trace is not None else ExportedTrace(SPACE, OBJECTIVE, (), 0)
    try:
        return await gate.check(
            source,
            space=run.space,
            objective=run.objective,
            history=run.history,
            seed=run.seed,
            synthetic_seed=run.seed,
            allow_inert=allow_inert,
            language_only=language_only,
            policy=SandboxPolicy(allow_weak),
        )
    except SandboxUnavailable as error:
        raise ServiceError(
            str(error), hint="Add --allow-weak-sandbox to run it with limits and deadlines only."
        ) from None


def gate_texts(error: RemoteError) -> list[str]:
    """The gate's reports that a refusal carries, as text."""
    from bilevel.v1 import trace_pb2

    report = trace_pb2.GateReport()
    return [report.text for attachment in error.attachments if attachment.Unpack(report)]


async def find_mechanism(client: InnerClient, run: str, name: str) -> trace_pb2.Mechanism:
    """The mechanism called ``name``. Raises NotFound with the names that there are."""
    from clients.cli.resources import find_run
    from service_kit.errors import NotFound

    run_name = await find_run(client, run)
    found = {mechanism.name.rpartition("/")[2]: mechanism for mechanism in await client.list_mechanisms(run_name)}
    if name not in found:
        raise NotFound("mechanism", name, hint=f"Mechanisms of {run_name}: {', '.join(found) or 'none'}.")
    return found[name]


def state_of(mechanism: trace_pb2.Mechanism) -> str:
    from bilevel.v1 import trace_pb2

    from clients import wording

    return wording.member(trace_pb2.MechanismState.Name(mechanism.state), "MECHANISM_STATE_")


def read_source(file: Path) -> str:
    """The file's text. Raises InvalidArgument where it cannot be read; whether it is Python is the gate's business."""
    from service_kit.given_files import read_given_text

    return read_given_text(file, "FILE", MOST_BYTES, hint="`bilevel mechanisms check FILE` judges a Python source.")
