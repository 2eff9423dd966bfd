"""The command, as documented: what it prints, writes and exits with."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from clients.cli.shapes import SHAPES, Layout
from tests.clients.cli.shape_check import check
from tests.end_to_end.conftest import Services
from tests.end_to_end.person import ROOT

EXAMPLES = ROOT / "clients" / "examples"
BOLD = '''class Mechanism:
    """Bold steps: always a move of its own, beside the model's."""

    def __init__(self, space, settings, rng):
        self.space, self.rng = space, rng

    def revise(self, view, candidate):
        name = self.rng.choice([n for n in view.active if self.space.neighbours(n, view.incumbent.configuration[n])])
        value = self.rng.choice(self.space.neighbours(name, view.incumbent.configuration[name]))
        return {"changes": {name: value}, "hypothesis": "anywhere else"}
'''

INERT = '''class Mechanism:
    """Nothing."""

    def veto(self, view, candidate):
        return None
'''


def example(services: Services, name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments, "--inner", services.inner]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(services: Services) -> dict:
    """Summary of a finished run."""
    done = services.bilevel(
        "run", "--task", "own", "--levels", "1", "--trials", "6", "--confirm", "2", "--name", "the shop", "--json"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_ends_with_its_numbers(finished: dict) -> None:
    assert finished["state"] == "finished"
    assert finished["trials"] == 6
    assert finished["levels"] == "1"
    assert finished["best"] <= finished["baseline"]
    assert finished["search_gain"] == pytest.approx(finished["baseline"] - finished["best"])
    assert finished["confirmation_seeds"] == 2
    assert finished["scripted"] is True
    assert finished["cost_usd"] is None


def test_a_run_in_plain_lines_names_every_trial(services: Services) -> None:
    done = services.bilevel("run", "--task", "own", "--levels", "1", "--trials", "3", "--confirm", "0")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if "/3  " in line] == ["0/3", "1/3", "2/3", "3/3"]
    assert "The scripted researcher answered in place of a language model" in done.stdout


def test_watch_prints_the_same_trials_afterwards(services: Services, finished: dict) -> None:
    done = services.bilevel("watch", finished["run"])
    assert done.returncode == 0
    assert "6/6" in done.stdout
    assert "confirmed gain" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("runs",), ("watch", "RUN"), ("report", "RUN", "--out", "shapes"), ("mechanisms", "list", "RUN"),
        ("mechanisms", "effect", "RUN"), ("lessons", "list"), ("lessons", "effect", "RUN"), ("config", "show"),
        ("prompts", "show", "--round", "propose", "--run", "RUN"),
    ],
    ids=lambda command: " ".join(command[:2]),
)  # fmt: skip
def test_json_has_the_shape_that_is_documented(services: Services, finished: dict, command: tuple[str, ...]) -> None:
    done = services.bilevel(*(finished["run"] if word == "RUN" else word for word in command), "--json")
    assert done.returncode == 0, done.stderr
    name = " ".join(command[:2]) if " ".join(command[:2]) in SHAPES else command[0]
    lines = SHAPES[name].layout is Layout.LINES
    check(name, [json.loads(line) for line in done.stdout.splitlines()] if lines else json.loads(done.stdout))


def test_a_summary_has_the_shape_that_is_documented(finished: dict) -> None:
    check("run", finished)


def test_watch_as_json_resumes_from_any_number(services: Services, finished: dict) -> None:
    def events(after: int) -> list[dict]:
        done = services.bilevel("watch", finished["run"], "--json", "--after", str(after))
        return [json.loads(line) for line in done.stdout.splitlines()]

    everything = events(0)
    assert [int(event["sequence"]) for event in everything] == list(range(1, len(everything) + 1))
    assert events(7) == everything[7:]


def test_runs_are_listed_newest_first(services: Services, finished: dict) -> None:
    listed = json.loads(services.bilevel("runs", "--json").stdout)
    assert {run["name"]: run["usage"]["cost_usd"] for run in listed}[finished["run"]] is None
    times = [run["create_time"] for run in listed]
    assert times == sorted(times, reverse=True)
    assert "the shop" in services.bilevel("runs").stdout


def test_a_run_starts_where_it_is_told(services: Services) -> None:
    done = services.bilevel(
        *("run", "--task", "own", "--levels", "1", "--trials", "1", "--confirm", "0"),
        *("--set", "ORDER_SIZE=2**9", "--set", "REVIEW_DAYS=2", "--json"),
    )
    events = services.bilevel("watch", json.loads(done.stdout)["run"], "--json").stdout.splitlines()
    baseline = next(json.loads(e)["trial_proposed"]["trial"] for e in events if "trial_proposed" in e)
    assert baseline["configuration"]["values"]["ORDER_SIZE"]["int_value"] == "512"
    assert baseline["configuration"]["values"]["REVIEW_DAYS"]["int_value"] == "2"


def test_a_report_has_every_file(services: Services, finished: dict) -> None:
    done = services.bilevel("report", finished["run"], "--out", "report")
    assert done.returncode == 0
    folder = services.user.folder / "report"
    assert {path.name for path in folder.iterdir()} == {"report.html", "best_so_far.png", "results.tsv", "run.json"}
    page = (folder / "report.html").read_text()
    assert "the shop" in page
    assert "The scripted researcher answered here" in page
    assert (folder / "results.tsv").read_text().startswith("commit\tcost\tmemory_gb\tstatus\tdescription\n")
    assert json.loads((folder / "run.json").read_text())["summary"]["trials"] == 6


def test_a_mechanism_is_checked_without_a_server(services: Services) -> None:
    file = services.user.folder / "bold.py"
    file.write_text(BOLD)
    done = services.bilevel("mechanisms", "check", "bold.py", "--json")
    assert done.returncode == 0, done.stdout
    check("mechanisms check", json.loads(done.stdout))
    assert json.loads(done.stdout)["verdict"] == "accepted"
    file.write_text("import os\n" + BOLD.replace("self.rng.choice(self", "os.getcwd(self"))
    done = services.bilevel("mechanisms", "check", "bold.py")
    assert done.returncode == 1
    assert "language" in done.stdout
    assert "os" in done.stdout


def test_a_mechanism_is_checked_on_an_exported_run(services: Services, finished: dict) -> None:
    (services.user.folder / "bold.py").write_text(BOLD)
    assert services.bilevel("report", finished["run"], "--out", "exported").returncode == 0
    done = services.bilevel("mechanisms", "check", "bold.py", "--trace", "exported/run.json", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["replay"]["recorded"]["trials"] == 6
    assert report["replay"]["recorded"]["hooks"]["revise"]["changed"] > 0
    by_the_service = services.bilevel("mechanisms", "check", "bold.py", "--run", finished["run"], "--json")
    assert json.loads(by_the_service.stdout)["replayed_trials"] == 6


def test_checking_stops_after_the_language_where_it_is_told_to(services: Services) -> None:
    (services.user.folder / "inert.py").write_text(INERT)
    done = services.bilevel("mechanisms", "check", "inert.py", "--language-only", "--json")
    assert (done.returncode, json.loads(done.stdout)["stage"]) == (0, "conformance")
    assert services.bilevel("mechanisms", "check", "inert.py").returncode == 1
    assert services.bilevel("mechanisms", "check", "inert.py", "--allow-inert", "--allow-weak-sandbox").returncode == 0


def test_a_mechanism_is_installed_watched_and_removed_by_hand(services: Services) -> None:
    (services.user.folder / "bold.py").write_text(BOLD)
    started = services.bilevel(
        *("run", "--task", "own", "--levels", "1", "--trials", "100000", "--confirm", "0", "--detach", "--json")
    )
    run = json.loads(started.stdout)["run"]
    try:
        (services.user.folder / "inert.py").write_text(INERT)
        refused = services.bilevel("mechanisms", "install", run, "inert.py")
        assert refused.returncode == 1
        assert "inert" in refused.stdout
        assert refused.stderr == "error: the gate rejected mechanism 'inert'; its report is above\n"
        refused = services.bilevel("mechanisms", "install", run, "inert.py", "--json")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "inert" in json.loads(refused.stderr)["error"]["message"]
        installed = services.bilevel("mechanisms", "install", run, "bold.py")
        assert installed.returncode == 0, installed.stderr
        assert "installed as" in installed.stdout
        assert "active" in services.bilevel("mechanisms", "list", run).stdout
        for _ in range(50):
            effect = json.loads(services.bilevel("mechanisms", "effect", run, "--json").stdout)
            if effect["bold"]:
                break
        assert effect["bold"][0]["hook"] == "MECHANISM_HOOK_REVISE"
        assert "class Mechanism" in services.bilevel("mechanisms", "show", run, "bold").stdout
        shown = json.loads(services.bilevel("mechanisms", "show", run, "bold", "--json").stdout)
        check("mechanisms show", shown)
        check("mechanisms effect", effect)
        assert {"seccomp", "rlimits", "no_new_privs"} <= set(shown["sandbox_layers"])
        [listed] = json.loads(services.bilevel("mechanisms", "list", run, "--json").stdout)
        assert listed["state"] == "MECHANISM_STATE_ACTIVE"
        assert "is removed" in services.bilevel("mechanisms", "remove", run, "bold").stdout
        [listed] = json.loads(services.bilevel("mechanisms", "list", run, "--json").stdout)
        assert listed["state"] == "MECHANISM_STATE_UNINSTALLED"
        refused = services.bilevel("mechanisms", "install", run, "bold.py", "--json")
        assert (refused.returncode, "exists already" in refused.stderr) == (6, True)
        missing = services.bilevel("mechanisms", "show", run, "nosuch")
        assert missing.returncode == 5
        assert "Mechanisms of" in missing.stderr
    finally:
        assert services.bilevel("cancel", run).returncode == 0


def test_a_rejected_mechanism_is_refused_with_the_gates_findings(services: Services, finished: dict) -> None:
    (services.user.folder / "inert.py").write_text(INERT)
    done = services.bilevel("mechanisms", "check", "inert.py", "--run", finished["run"])
    assert done.returncode == 1
    assert "inert" in done.stdout


def test_a_run_is_paused_resumed_and_cancelled(services: Services) -> None:
    started = services.bilevel(
        "run", "--task", "own", "--levels", "1", "--trials", "100000", "--detach", "--confirm", "0"
    )
    run = started.stdout.strip()
    paused = services.bilevel("pause", run)
    assert paused.returncode == 0
    assert "pauses when its current trials have ended" in paused.stdout or "is paused" in paused.stdout
    assert services.bilevel("cancel", run, "--reason", "seen enough").returncode == 0
    assert "cancelled" in services.bilevel("runs").stdout
    watched = services.bilevel("watch", run)
    assert (watched.returncode, f"{run} was cancelled: seen enough" in watched.stderr) == (7, True)
    watched = services.bilevel("watch", run, "--json", "--after", "3")
    assert (watched.returncode, json.loads(watched.stderr)["error"]["kind"]) == (7, "RUN_FAILED")
    assert all(int(json.loads(line)["sequence"]) > 3 for line in watched.stdout.splitlines())


def test_a_run_is_driven_by_hand(services: Services) -> None:
    output = example(services, "drive_by_hand.py", "--task", "own", "--trials", "2")
    assert "trial 0: the starting configuration" in output
    assert "best cost: " in output


def test_a_trace_is_read_from_any_number_on(services: Services, finished: dict) -> None:
    lines = example(services, "watch_trace.py", finished["run"], "--after", "2").splitlines()
    assert lines[0].split()[0] == "3"
    assert lines[-1].split()[2] == "run_state_changed"


def test_every_command_documents_its_exit_codes(services: Services) -> None:
    for command in ("run", "watch", "runs", "pause", "resume", "cancel", "report", "demo"):
        assert "Exit codes" in services.bilevel(command, "--help").stdout, command


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("drive_by_hand.py", ("--task", "nosuch"), "task 'nosuch' does not exist"),
        ("watch_trace.py", ("runs/nosuch",), "run 'runs/nosuch' does not exist"),
        (
            "watch_trace.py",
            ("runs/one", "--inner", "127.0.0.1:1"),
            "the inner service at 127.0.0.1:1 cannot be reached",
        ),
    ],
)
def test_the_examples_say_what_is_wrong(
    services: Services, name: str, arguments: tuple[str, ...], message: str
) -> None:
    command = [sys.executable, str(EXAMPLES / name), "--inner", services.inner, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == (3 if "reached" in message else 5)
    assert done.stderr.startswith(f"error: {message}")
    assert "Traceback" not in done.stderr
