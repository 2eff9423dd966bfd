"""``python -m gpt_trainer``: train once, serve the benchmark as a task, prepare its data, show its presets."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from gpt_trainer.clock import ClockKind
from gpt_trainer.dataset import prepare as prepare_dataset
from gpt_trainer.hyperparameters import parameter_space
from gpt_trainer.presets import PRESETS, Preset, budget_seconds, find_preset
from gpt_trainer.trial import Progress, TrialRequest, TrialResult, plan
from service_kit.errors import InvalidArgument, InvalidConfiguration, ServiceError
from service_kit.parameters import Outcome, Split, Value, parse_value
from service_kit.server import complain, parse_address
from service_kit.settings import PathSettings

app = typer.Typer(
    help="Karpathy's GPT pre-training benchmark: one training run, or a task for a search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

PresetOption = Annotated[str, typer.Option(help="laptop, workstation or karpathy; see `presets`.")]
BudgetOption = Annotated[str, typer.Option(help="Training budget: short, full, or seconds of the clock.")]
ClockOption = Annotated[
    str, typer.Option(help="virtual (a frozen analytic price), wall, or auto: virtual on a CPU, wall on a GPU.")
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto for a GPU where there is one.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="CPU threads of one training run.")]
PrecisionOption = Annotated[str, typer.Option(help="bfloat16, float32, or auto for what is faster here.")]

CLOCKS = ("auto", *ClockKind)
PRECISIONS = ("auto", "bfloat16", "float32")

_Arguments = ParamSpec("_Arguments")


def _polite(command: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """Errors that a user can meet become one message and an exit code: 2 for wrong input, 1 for the rest."""

    @wraps(command)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (ServiceError, InvalidConfiguration) as error:
            raise typer.Exit(complain(error)) from None

    return wrapped


@app.command()
@_polite
def train(
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A hyperparameter, for example TOTAL_BATCH_SIZE=2**12; repeatable."
        ),
    ] = None,
    preset: PresetOption = "laptop",
    budget: BudgetOption = "full",
    seed: Annotated[int, typer.Option(help="Seed of initialisation and data order.")] = 0,
    split: Annotated[Split, typer.Option(help="Validation text to measure on.")] = Split.SEARCH,
    clock: ClockOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    precision: PrecisionOption = "auto",
) -> None:
    """Train once and print the result as plain `name: value` lines."""
    size = find_preset(preset)
    changes = read_settings(size, settings or [])
    seconds, cache = budget_seconds(size, budget), PathSettings.load().cache
    kind = read_choice("clock", clock, CLOCKS)
    read_choice("precision", precision, PRECISIONS)
    plan(size, TrialRequest(changes, seed, seconds, ClockKind.VIRTUAL if kind == "virtual" else ClockKind.WALL))
    dataset = prepare_dataset(size, cache, _say)

    from gpt_trainer.device import Precision, open_device  # torch takes two seconds: only when all is well
    from gpt_trainer.execution import execute

    opened = open_device(device, threads, Precision(precision), cache)
    request = TrialRequest(changes, seed, seconds, ClockKind.choose(kind, opened.is_cpu), split)
    plan(size, request)  # once more: only the device decides what auto means
    _say(f"training on {opened.name} in {str(opened.compute).removeprefix('torch.')}, {threads} thread(s)")
    result = execute(size, dataset, opened, request, _show)
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    _print_result(result, request)
    if result.outcome is not Outcome.SUCCEEDED:
        raise typer.Exit(1)


@app.command()
@_polite
def serve(
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 takes any free one.")] = "127.0.0.1:0",
    address_file: Annotated[Path | None, typer.Option(help="File that receives the bound address.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time; by default 2 on two cores or more, 1 on a GPU.")
    ] = None,
    preset: PresetOption = "laptop",
    budget: BudgetOption = "full",
    clock: ClockOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    precision: PrecisionOption = "auto",
    memory_limit: Annotated[float | None, typer.Option(min=64, help="MB of memory that a trial may take.")] = None,
    hard_limit: Annotated[
        float | None, typer.Option(min=1, help="Wall-clock seconds after which a trial is killed.")
    ] = None,
    insecure: Annotated[bool, typer.Option(help="Allow an address that other machines can reach.")] = False,
) -> None:
    """Serve the benchmark as a TaskService until SIGTERM or Ctrl-C."""
    from gpt_trainer.serving import ServeOptions, run_server
    from gpt_trainer.workers import WorkerSettings
    from service_kit import logs
    from service_kit.server import ServerSettings

    logs.configure("gpt_trainer")
    size = find_preset(preset)
    read_choice("precision", precision, PRECISIONS)
    if not listen.startswith("unix:"):
        parse_address(listen)
    options = ServeOptions(
        preset=size,
        budget=budget_seconds(size, budget),
        clock=read_choice("clock", clock, CLOCKS),
        hard_limit=hard_limit,
        count=workers or default_workers(device),
        workers=WorkerSettings(preset, PathSettings.load().cache, device, threads, precision, memory_limit),
        server=ServerSettings(listen, address_file, insecure=insecure),
    )
    asyncio.run(run_server(options))


@app.command()
@_polite
def presets() -> None:
    """Show the sizes at which the benchmark runs."""
    for preset in PRESETS.values():
        h = parameter_space(preset).defaults()
        budgets = ", ".join(f"{name} {seconds:g} s" for name, seconds in preset.budgets.items())
        print(f"{preset.name}: {preset.summary}")
        print(
            f"  corpus {preset.corpus}, vocabulary {preset.vocabulary:,}, context {preset.context:,}; budgets {budgets}"
        )
        print("  " + " ".join(f"{name}={_value_text(value)}" for name, value in h.items()))


@app.command()
@_polite
def prepare(preset: PresetOption = "laptop") -> None:
    """Train the tokeniser and pack the corpus now, so that no trial waits for it."""
    dataset = prepare_dataset(find_preset(preset), PathSettings.load().cache, _say)
    print(f"corpus: {dataset.corpus}\ntokenizer: {dataset.tokenizer}\nfolder: {dataset.folder}")
    for split in ("train", "search", "held_out"):
        print(f"{split}_tokens: {len(dataset.rows(split)) * (dataset.row_length - 1)}")


def read_settings(preset: Preset, settings: list[str]) -> dict[str, Value]:
    """``NAME=VALUE`` texts as typed values. Raises InvalidConfiguration, or InvalidArgument without an ``=``."""
    space, values = parameter_space(preset), dict[str, Value]()
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InvalidArgument.of(
                "--set", f"must be NAME=VALUE, for example TOTAL_BATCH_SIZE=2**12; got {setting!r}"
            )
        values[name.strip()] = parse_value(space[name.strip()], text)
    return values


def read_choice(field: str, text: str, allowed: tuple[str, ...]) -> str:
    """``text`` where it is one of ``allowed``. Raises InvalidArgument."""
    if text not in allowed:
        raise InvalidArgument.of(field, f"must be one of {', '.join(allowed)}; got {text!r}")
    return str(text)


def default_workers(device: str) -> int:
    """One worker a GPU; on a CPU two where two cores are allowed, each with one thread."""
    if device.startswith(("cuda", "mps")) or (device == "auto" and Path("/dev/nvidiactl").exists()):
        return 1
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(2, cores)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def _show(progress: Progress) -> None:
    line = (
        f"{progress.phase} {progress.fraction:4.0%}  step {progress.step}  loss {progress.train_loss:.4f}  "
        f"{progress.tokens / 1e3:.0f} k tokens  {progress.clock_seconds:.1f} s"
    )
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
    elif progress.phase == "evaluating":
        print(line, file=sys.stderr)


def _print_result(result: TrialResult, request: TrialRequest) -> None:
    lines: dict[str, object] = {"outcome": result.outcome.value}
    if result.val_bpb is not None:
        lines["val_bpb"] = f"{result.val_bpb:.6f}"
    lines |= _formatted(result.side_metrics)
    if result.message:
        lines["message"] = result.message
    lines |= {"seed": request.seed, "split": request.split.value, "budget_seconds": f"{request.budget:g}"}
    lines |= result.identity
    for name, value in lines.items():
        print(f"{name}: {value}")


def _formatted(metrics: Mapping[str, float]) -> dict[str, str]:
    shown: dict[str, str] = {}
    for name, value in metrics.items():
        if name == "total_tokens":
            shown["total_tokens_M"] = f"{value / 1e6:.3f}"
        elif name in ("num_steps", "epochs"):
            shown[name] = f"{value:.0f}"
        else:
            shown[name] = f"{value:.3f}"
    return shown


def _value_text(value: Value) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    app()
