"""``bilevel serve trainer``: the command ``serve`` alone, under the name that a person typed."""

from __future__ import annotations

import typer

from gpt_trainer.__main__ import serve, settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(serve)

if __name__ == "__main__":
    settings()
    app(prog_name="bilevel serve trainer")
