"""``python -m gpt_trainer``: train once, sample from the model, serve the benchmark as a task, prepare its data."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from gpt_trainer.clock import ClockKind
from gpt_trainer.corpus import find_corpus
from gpt_trainer.dataset import prepare as prepare_dataset
from gpt_trainer.event_files import EventFiles, check_tensorboard
from gpt_trainer.gpus import assign
from gpt_trainer.hyperparameters import parameter_space
from gpt_trainer.presets import CLIMBMIX, PRESETS, Preset, budget_seconds, find_preset
from gpt_trainer.printing import end_progress, preset_lines, print_lines, say, show_progress
from gpt_trainer.shards import DEFAULT_SHARDS, download_shards
from gpt_trainer.text_files import SPLITS
from gpt_trainer.trial import Progress, TrialRequest, code_identity, plan, result_lines
from service_kit.addresses import parse_address
from service_kit.complaint import complain
from service_kit.errors import InvalidArgument, InvalidConfiguration, ServiceError
from service_kit.exit_codes import ExitCode
from service_kit.parameters import Outcome, Split, Value
from service_kit.settings import PathSettings
from service_kit.settings_file import apply_config_file
from service_kit.typed_text import parse_value

app = typer.Typer(
    help="Karpathy's GPT pre-training benchmark: one training run, or a task for a search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DataOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Train on this text instead of the preset's: a folder, glob or file of text, Markdown, JSONL or parquet.",
    ),
]
TensorboardOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Write TensorBoard event files there (needs the extra tensorboard).")
]
PresetOption = Annotated[str, typer.Option(help="laptop, workstation or karpathy; see `presets`.")]
BudgetOption = Annotated[
    str, typer.Option(help="Training budget: short, full, with the preset laptop also long, or seconds of the clock.")
]
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
    """Errors that a user can meet become one message and an exit code."""

    @wraps(command)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (ServiceError, InvalidConfiguration) as error:
            raise typer.Exit(complain(error)) from None

    return wrapped


@app.callback()
@_polite
def settings() -> None:
    """Karpathy's GPT pre-training benchmark: one training run, or a task for a search."""
    apply_config_file()


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
    data: DataOption = None,
    budget: BudgetOption = "full",
    seed: Annotated[int, typer.Option(help="Seed of initialisation and data order.")] = 0,
    split: Annotated[Split, typer.Option(help="Validation text to measure on.")] = Split.SEARCH,
    clock: ClockOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    precision: PrecisionOption = "auto",
    keep: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Keep the trained model in this file, for `sample`.")
    ] = None,
    tensorboard: TensorboardOption = None,
) -> None:
    """Train once and print the result as plain `name: value` lines."""
    size = with_data(find_preset(preset), data)
    changes = read_settings(size, settings or [])
    seconds, cache = budget_seconds(size, budget), PathSettings.load().cache
    kind = read_choice("--clock", clock, CLOCKS)
    read_choice("--precision", precision, PRECISIONS)
    plan(size, TrialRequest(changes, seed, seconds, ClockKind.VIRTUAL if kind == "virtual" else ClockKind.WALL))
    if tensorboard is not None:
        check_tensorboard()
    if keep is not None:
        check_target(keep)
    dataset = prepare_dataset(size, cache, say)

    from gpt_trainer.device import Precision, open_device  # torch takes two seconds: only when all is well
    from gpt_trainer.execution import execute

    opened = open_device(device, threads, Precision(precision), cache)
    request = TrialRequest(changes, seed, seconds, ClockKind.choose(kind, opened.is_cpu), split)
    plan(size, request)  # once more: only the device decides what auto means
    say(f"training on {opened.name} in {str(opened.compute).removeprefix('torch.')}, {threads} thread(s)")
    with contextlib.ExitStack() as stack:
        events = stack.enter_context(EventFiles(tensorboard)) if tensorboard is not None else None

        def report(progress: Progress) -> None:
            show_progress(progress)
            if events is not None:
                events.progress(progress)

        result = execute(size, dataset, opened, request, report, keep)
        if events is not None:
            events.result(result)
    end_progress()
    print_lines(result_lines(result, request))
    if result.outcome is not Outcome.SUCCEEDED:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
@_polite
def serve(
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 takes any free one.")] = "127.0.0.1:7401",
    address_file: Annotated[Path | None, typer.Option(help="File that receives the bound address.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Trials at a time; by default one for each GPU, else 2 where there are two cores."),
    ] = None,
    preset: PresetOption = "laptop",
    data: DataOption = None,
    budget: BudgetOption = "full",
    clock: ClockOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    precision: PrecisionOption = "auto",
    memory_limit: Annotated[float | None, typer.Option(min=64, help="MB of memory that a trial may take.")] = None,
    hard_limit: Annotated[
        float | None, typer.Option(min=1, help="Wall-clock seconds after which a trial is killed.")
    ] = None,
    tensorboard: TensorboardOption = None,
    insecure: Annotated[bool, typer.Option(help="Allow an address that other machines can reach.")] = False,
) -> None:
    """Serve the benchmark as a TaskService until SIGTERM or Ctrl-C."""
    from gpt_trainer.serving import ServeOptions, run_server
    from gpt_trainer.workers import WorkerSettings
    from service_kit import logs
    from service_kit.server import ServerSettings

    logs.configure("gpt_trainer")
    size = with_data(find_preset(preset), data)
    read_choice("--precision", precision, PRECISIONS)
    if tensorboard is not None:
        check_tensorboard()
    if not listen.startswith("unix:"):
        parse_address(listen, "--listen")
    options = ServeOptions(
        preset=size,
        budget=budget_seconds(size, budget),
        clock=read_choice("--clock", clock, CLOCKS),
        hard_limit=hard_limit,
        slots=assign(device, workers),
        workers=WorkerSettings(preset, PathSettings.load().cache, device, threads, precision, memory_limit),
        server=ServerSettings.secured(listen, address_file, insecure=insecure),
        tensorboard=tensorboard,
    )
    asyncio.run(run_server(options))


@app.command()
@_polite
def presets() -> None:
    """Show the sizes at which the benchmark runs."""
    for preset in PRESETS.values():
        print("\n".join(preset_lines(preset)))


@app.command()
@_polite
def prepare(
    preset: PresetOption = "laptop",
    data: DataOption = None,
    shards: Annotated[
        int | None,
        typer.Option(min=1, help=f"ClimbMix: training shards of some 90 MB to download; {DEFAULT_SHARDS} by default."),
    ] = None,
) -> None:
    """Download what the corpus lacks, train the tokeniser and pack the text now, so that no trial waits for it."""
    size, cache = with_data(find_preset(preset), data), PathSettings.load().cache
    if size.corpus == CLIMBMIX and (shards is not None or not any((cache / CLIMBMIX).glob("*.parquet"))):
        download_shards(cache / CLIMBMIX, shards or DEFAULT_SHARDS, say)
    elif shards is not None:
        raise InvalidArgument.of("--shards", f"only the corpus {CLIMBMIX} has shards; this is {size.corpus}")
    dataset = prepare_dataset(size, cache, say)
    print_lines({"corpus": dataset.corpus, "tokenizer": dataset.tokenizer, "folder": dataset.folder})
    print_lines({f"{split}_tokens": len(dataset.rows(split)) * (dataset.row_length - 1) for split in SPLITS})


@app.command()
@_polite
def sample(
    checkpoint: Annotated[Path, typer.Argument(help="File that `train --keep` wrote.")],
    prompt: Annotated[str, typer.Option(help="Text to go on from; empty for the beginning of a document.")] = "",
    tokens: Annotated[int, typer.Option(min=1, max=100_000, help="Tokens to write, at most.")] = 200,
    temperature: Annotated[
        float, typer.Option(min=0.0, max=10.0, help="0 always takes the likeliest token; 1 draws as the model says.")
    ] = 0.8,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    threads: ThreadsOption = 1,
) -> None:
    """Write text with a kept model, to see what its val_bpb means."""
    import torch  # takes two seconds

    from gpt_trainer.checkpoint import load
    from gpt_trainer.sampling import continue_text

    torch.set_num_threads(threads)
    kept = load(checkpoint)
    say(", ".join(f"{name} {kept.facts[name]}" for name in ("val_bpb", "num_params_M", "corpus") if name in kept.facts))
    if kept.facts.get("code") != code_identity():
        say("note: another version of this program trained the model")
    text, ended = continue_text(kept.model, kept.tokenizer, prompt, tokens, temperature, seed)
    print(prompt + text)
    if ended:
        say("the model ended its document here")


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


def with_data(preset: Preset, data: str | None) -> Preset:
    """The preset on the text that ``--data`` names. Raises InvalidArgument when nothing is there."""
    if data is None:
        return preset
    find_corpus(data, PathSettings.load().cache)
    return dataclasses.replace(preset, corpus=data)


def check_target(path: Path) -> None:
    """Refuse, before hours of training, a path that cannot be written. Raises InvalidArgument."""
    if path.is_dir():
        raise InvalidArgument.of("--keep", f"must be a file; {path} is a folder")
    if not path.absolute().parent.is_dir():
        raise InvalidArgument.of("--keep", f"must lie in a folder that exists; {path.absolute().parent} does not")
    if not os.access(path.absolute().parent, os.W_OK):
        raise InvalidArgument.of(
            "--keep", f"must lie in a folder that you may write to; {path.absolute().parent} is not"
        )


def read_choice(field: str, text: str, allowed: tuple[str, ...]) -> str:
    """``text`` where it is one of ``allowed``. Raises InvalidArgument."""
    if text not in allowed:
        raise InvalidArgument.of(field, f"must be one of {', '.join(allowed)}; got {text!r}")
    return str(text)


if __name__ == "__main__":
    app()
