"""``bilevel watch`` at a real terminal, drawn by a terminal emulator, over live runs of real services."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.documentation.pages import free_port
from tests.end_to_end.conftest import Services, served
from tests.end_to_end.person import BILEVEL, User, wait_until
from tests.end_to_end.terminal import Terminal, at_terminal

LONG = ("run", "--task", "own", "--levels", "1", "--trials", "100000", "--confirm", "0", "--detach", "--name", "shop A")


@contextmanager
def watching(
    user: User, inner: str, run: str, columns: int, rows: int, *more: str, **environment: str
) -> Iterator[Terminal]:
    environment = user.environment(BILEVEL_INNER=inner, BILEVEL_OUTER="127.0.0.1:1", **environment)
    with at_terminal(
        [*BILEVEL, "watch", run, *more], columns, rows, folder=user.folder, environment=environment
    ) as seen:
        yield seen


@pytest.fixture
def live(services: Services) -> Iterator[str]:
    """Name of a run that goes on for as long as it is watched."""
    run = services.bilevel(*LONG).stdout.strip()
    yield run
    assert services.bilevel("cancel", run).returncode in (0, 6)


def row_of(terminal: Terminal, title: str) -> int:
    """Which row of the screen begins with the title; -1 where none does."""
    return next((row for row, line in enumerate(terminal.lines) if line.startswith(title)), -1)


def number(terminal: Terminal) -> int:
    found = re.search(r"trial (\d+)/100000", terminal.text)
    return int(found[1]) if found else -1


def test_a_live_run_fills_the_screen_obeys_keys_and_leaves_the_terminal_as_it_was(
    services: Services, live: str
) -> None:
    with watching(services.user, services.inner, live, 80, 24) as terminal:
        terminal.wait_for("connected", r"trial [1-9]\d*/100000", "●|·", "discarded|kept")
        terminal.wait_for("the outer service at 127.0.0.1:1 cannot be reached")
        first = terminal.lines
        assert first[0].startswith(" shop A")
        assert "running" in first[0]
        assert re.search(r"cost best \d+\.\d+  baseline \d+\.\d+  gain", first[1])
        assert "tokens  cost none (scripted)" in first[2]
        assert "scripted-researcher (scripted, no language model)" in first[3]
        terminal.wait_for(
            *(f"^ {title}$" for title in ("current trials", "mechanisms", "outer loop", "trials, newest first"))
        )
        assert re.search(r"q quit +p pause/resume +↓ j down +↑ k up +\? help", terminal.lines[23])
        seen = number(terminal)
        terminal.until(lambda: number(terminal) > seen, "another trial")
        terminal.press("p")
        terminal.wait_for(r"shop A .* paused", "paused; p goes on")
        terminal.press("p")
        terminal.wait_for(r"shop A .* running")
        terminal.press("?")
        terminal.wait_for("leave; the run goes on", "● kept  ◆ baseline  ✗ failed")
        terminal.press("\x1b")
        terminal.until(lambda: "leave; the run goes on" not in terminal.text, "the screen without the help")
        terminal.press("\x03")
        assert terminal.finish() == 130
        assert terminal.restored
        id_ = live.removeprefix("runs/")
        assert f"{live} goes on: `bilevel watch {id_}` comes back to it" in " ".join(terminal.text.split())
    assert "running" in services.bilevel("runs").stdout


@pytest.mark.long
def test_the_screen_scrolls_takes_a_new_size_and_has_no_colours_where_none_are_wanted(
    services: Services, live: str
) -> None:
    services.bilevel("pause", live)
    with watching(services.user, services.inner, live, 120, 40, NO_COLOR="1") as terminal:
        terminal.wait_for("connected", "paused; p goes on", "trials, newest first")
        assert "q quit" in terminal.lines[39]
        rows = terminal.lines.index(" trials, newest first")
        terminal.resize(80, 24)
        terminal.until(lambda: "q quit" in terminal.lines[23], "the smaller screen")
        terminal.wait_for(" trials, newest first", "paused; p goes on")
        assert terminal.lines.index(" trials, newest first") < rows
        terminal.resize(60, 15)
        terminal.until(lambda: "q quit" in terminal.lines[14], "the smallest screen")
        terminal.until(lambda: row_of(terminal, " current trials") == 11, "the current trials below the curve")
        terminal.press("jjj")
        terminal.until(lambda: row_of(terminal, " current trials") == 8, "the body three lines on")
        terminal.press("k\x1b[A\x1b[A")
        terminal.until(lambda: row_of(terminal, " current trials") == 11, "the body's beginning")
        assert {cell.fg for row in terminal.screen.buffer.values() for cell in row.values()} == {"default"}
        assert not re.search(r"\x1b\[([0-9]+;)*(3[0-8]|9[0-7])(;[0-9]+)*m", terminal.raw)
        terminal.press("q")
        assert terminal.finish() == 10, "the run goes on"
        assert terminal.restored


@pytest.mark.long
def test_a_killed_service_is_waited_for_and_the_run_goes_on_on_the_screen(user: User, own_task: str) -> None:
    with served(user, "researcher") as researcher:
        model = {"OPENAI_BASE_URL": f"http://{researcher}/v1", "BILEVEL_MODEL": "scripted-researcher",
                 "BILEVEL_LOG_LEVEL": "warning"}  # fmt: skip
        address = f"127.0.0.1:{free_port()}"
        ready = user.folder / "ready"
        service = ("serve", "inner", "--listen", address, "--address-file", str(ready), "--task", f"own={own_task}")
        first = user.start(*service, **model)
        wait_until(ready.exists, 60, "the inner service's address")
        run = user.bilevel(*LONG, BILEVEL_INNER=address).stdout.strip()
        with watching(user, address, run, 80, 24) as terminal:
            terminal.wait_for("connected", r"trial [1-9]\d*/100000")
            first.kill()
            first.communicate()
            terminal.wait_for("reconnecting to the inner service for .*; what is shown is older")
            seen = number(terminal)
            second = user.start(*service, **model)
            try:
                terminal.wait_for("connected")
                terminal.until(lambda: number(terminal) > seen, "another trial")
                terminal.process.kill(signal.SIGTERM)
                assert terminal.finish() == 143
                assert terminal.restored
            finally:
                second.terminate()
                second.communicate()


@pytest.mark.long
def test_a_finished_run_stays_on_the_screen_until_it_is_left(services: Services) -> None:
    done = services.bilevel("run", "--task", "own", "--levels", "1", "--trials", "3", "--confirm", "0", "--detach")
    run = done.stdout.strip()
    with watching(services.user, services.inner, run, 80, 24) as terminal:
        terminal.wait_for("the run is over; q leaves", "trial 3/3")
        terminal.press("p")
        terminal.wait_for("the run is finished: nothing")
        terminal.press("q")
        assert terminal.finish() == 0
        assert terminal.restored
        assert "trial 3/3" in terminal.text


@pytest.mark.long
def test_a_cancelled_run_says_so_when_it_is_left(services: Services, live: str) -> None:
    assert services.bilevel("cancel", live, "--reason", "seen enough").returncode == 0
    with watching(services.user, services.inner, live, 80, 24) as terminal:
        terminal.wait_for("the run is over; q leaves")
        terminal.press("q")
        assert terminal.finish() == 7
        assert terminal.restored
        assert f"{live} was cancelled: seen enough" in " ".join(terminal.text.split())


@pytest.mark.long
def test_ctrl_c_in_plain_lines_says_that_the_run_goes_on(services: Services, live: str) -> None:
    with watching(services.user, services.inner, live, 100, 24, "--plain") as terminal:
        terminal.wait_for(r"/100000  (kept|discarded)")
        terminal.press("\x03")
        assert terminal.finish() == 130
        assert f"{live} goes on: `bilevel watch" in " ".join(terminal.text.split())


@pytest.mark.long
def test_plain_lines_can_be_asked_for_at_a_terminal(services: Services) -> None:
    done = services.bilevel("run", "--task", "own", "--levels", "1", "--trials", "2", "--confirm", "0", "--detach")
    with watching(services.user, services.inner, done.stdout.strip(), 100, 24, "--plain") as terminal:
        assert terminal.finish() == 0
        assert [line.split()[0] for line in terminal.lines if "/2  " in line] == ["0/2", "1/2", "2/2"]
        assert terminal.lines[: len([line for line in terminal.lines if line])][-1].startswith("run finished")
        assert "\x1b[?1049h" not in terminal.raw


@pytest.mark.long
def test_a_run_that_does_not_exist_never_takes_the_screen(services: Services) -> None:
    with watching(services.user, services.inner, "nosuch", 80, 24) as terminal:
        assert terminal.finish() == 5
        assert "error: run 'runs/nosuch' does not exist" in terminal.text
        assert "\x1b[?1049h" not in terminal.raw
