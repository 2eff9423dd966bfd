"""What the command line shows: progress on standard error, results as ``name: value`` lines on standard output."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import typer

from gpt_trainer.clock import ClockKind
from gpt_trainer.hyperparameters import parameter_space
from gpt_trainer.presets import Preset
from gpt_trainer.trial import Progress, value_text


def say(sentence: str) -> None:
    """A sentence for the person who waits."""
    typer.echo(sentence, err=True)


def show_progress(progress: Progress) -> None:
    """One line that renews itself on a terminal; elsewhere one for each estimate and the evaluation."""
    line = (
        f"{progress.phase} {progress.fraction:4.0%}  step {progress.step}  loss {progress.train_loss:.4f}  "
        f"{progress.tokens / 1e3:.0f} k tokens  {progress.clock_seconds:.1f} s"
    )
    if progress.val_bpb_estimate is not None:
        line += f"  val_bpb about {progress.val_bpb_estimate:.3f}"
    if sys.stderr.isatty():
        ending = "\n" if progress.val_bpb_estimate is not None else ""
        sys.stderr.write(f"\r\033[K{line}{ending}")
        sys.stderr.flush()
    elif progress.phase == "evaluating" or progress.val_bpb_estimate is not None:
        say(line)


def end_progress() -> None:
    """Clear the line that renews itself."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")


def print_lines(lines: Mapping[str, object]) -> None:
    """``name: value``, one a line."""
    for name, value in lines.items():
        typer.echo(f"{name}: {value}")


def preset_lines(preset: Preset) -> list[str]:
    """What a preset is, for people."""
    budgets = ", ".join(f"{name} {seconds:g} s" for name, seconds in preset.budgets.items())
    values = parameter_space(preset).defaults().items()
    clocks = f"{ClockKind.choose('auto', on_cpu=True)} clock on a CPU, {ClockKind.choose('auto', on_cpu=False)} clock"
    return [
        f"{preset.name}: {preset.summary}",
        f"  corpus {preset.corpus}, vocabulary {preset.vocabulary:,}, context {preset.context:,}",
        f"  budgets {budgets}; {clocks} on a GPU; measured on {preset.evaluation_tokens:,} tokens",
        "  " + " ".join(f"{name}={value_text(value)}" for name, value in values),
    ]
