"""Each thing that a user can get wrong gives one message that says what to do, a non-zero exit, and no stack trace."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Services, served
from tests.end_to_end.person import User

RUN = ("run", "--task", "own", "--levels", "1", "--trials", "2")


def test_the_same_task_by_its_address_needs_no_name(services: Services, own_task: str) -> None:
    address = own_task.replace("127.0.0.1", "localhost")
    done = services.bilevel("run", "--task", address, "--levels", "1", "--trials", "1", "--confirm", "0", "--json")
    assert done.returncode == 0, done.stderr
    assert f'"task": "{address}"' in done.stdout


@pytest.fixture
def refusing_endpoint() -> Iterator[str]:
    """A model endpoint to which every key is wrong."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(401)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"error": {"message": "Incorrect API key provided"}}')

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((*RUN, "--set", "ORDER_SIZ=3"), 2, "ORDER_SIZ: is not a parameter; did you mean ORDER_SIZE?"),
        ((*RUN, "--set", "ORDER_SIZE=9000"), 2, "ORDER_SIZE: must be an integer from 8 to 8192"),
        ((*RUN, "--set", "ORDER_SIZE=far"), 2, "ORDER_SIZE: must be an integer from 8 to 8192"),
        ((*RUN, "--set", "ORDER_SIZE=8", "--set", "ORDER_SIZE=9"), 2, "must name each parameter once; ORDER_SIZE is"),
        (
            (*RUN, "--seed", "99999999999999999999999"),
            2,
            "'--seed': Input should be less than or equal to 9223372036854",
        ),
        ((*RUN, "--seed", "-1"), 2, "'--seed': Input should be greater than or equal to 0"),
        (("demo", "--seed", "99999999999999999999999"), 2, "'--seed': Input should be less than or equal to"),
        (("demo", "--out", __file__), 2, f"--out: must be a folder; {__file__} is not one"),
        ((*RUN, "--out", f"{__file__}/below"), 2, f"--out: must be a folder; {__file__} is not one"),
        (
            ("run", "--task", "10.0.0.1:7000", "--levels", "1"),
            2,
            "--task: must be the name of a configured task, or",
        ),
        (("run", "--task", "localhost:1", "--levels", "1"), 3, "the task '127.0.0.1:1' at 127.0.0.1:1 cannot be"),
        (("watch", "nosuch"), 5, "`bilevel runs` lists those that exist"),
        (("lessons", "show", "nosuch"), 5, "`bilevel lessons list` lists those that exist"),
        ((*RUN, "--set", "ORDER_SIZE"), 2, "--set: must be NAME=VALUE"),
        (("run", "--task", "nosuch", "--levels", "1"), 5, "task 'nosuch' does not exist"),
        ((*RUN[:3], "--levels", "2"), 2, "--levels: must be 1, 1,1.5, 1,2 or 1,1.5,2; got '2'"),
        ((*RUN, "--trials", "0"), 2, "'--trials': Input should be greater than or equal to 1"),
        ((*RUN, "--parallel", "9"), 2, "error: --parallel: must be"),
        ((*RUN, "--parallel", "9", "--early-stopping", "median"), 2, "--early-stopping: must be left out"),
        ((*RUN, "--max-cost", "1"), 2, "error: --max-cost: needs the model's price"),
        ((*RUN, "--noise-repeats", "1"), 2, "--noise-repeats: must be 0 for off, or from 2 to 1000; got 1"),
        ((*RUN, "--asynchronous"), 2, "--asynchronous: needs --parallel of 2 or more"),
        ((*RUN, "--concurrent"), 2, "--concurrent: needs a level above 1"),
        ((*RUN, "--recursion"), 2, "--recursion: needs level 2"),
        ((*RUN, "--control", "noop"), 2, "--control: takes the place of level 2"),
        ((*RUN, "--compare-lessons"), 2, "--compare-lessons: needs --lessons"),
        ((*RUN, "--budget", "short"), 2, "--budget: is for a trainer that is started here: add --local"),
        ((*RUN, "--serve-task", "own=127.0.0.1:1"), 2, "--serve-task: is for services that are started here"),
        (("run", "--local", "--budget", "foo"), 2, "--budget: must be short, full, long or a number of"),
        (("run", "--local", "--budget", "0"), 2, "--budget: must be short, full, long or a number of seconds above 0"),
        (
            ("run", "--local", "--task", "own", "--serve-task", "own=127.0.0.1:1", "--budget", "2"),
            2,
            "--budget: has no effect",
        ),
        (("prompts", "show", "--round", "propose", "--context", "9"), 2, "--context: has no effect with --round"),
        ((*RUN, "--local", "--inner", "127.0.0.1:1"), 2, "--inner: cannot be combined with --local"),
        (("lessons", "list", "--page-token", "garbage"), 2, "error: --page-token: "),
        (("certs", "--host", "a b"), 2, "--host: must be a host name"),
        ((*RUN, "--local", "--detach"), 2, "--detach: cannot be combined with --local"),
        (
            ("run", "--local", "--task", "own"),
            2,
            "--task: must be gpt, localhost:PORT of a task that runs, or one given with --serve-task",
        ),
        (("watch", "nosuch"), 5, "run 'runs/nosuch' does not exist"),
        (("pause", "nosuch"), 5, "run 'runs/nosuch' does not exist"),
        (("resume", "nosuch"), 5, "run 'runs/nosuch' does not exist"),
        (("cancel", "nosuch"), 5, "run 'runs/nosuch' does not exist"),
        (("report", "nosuch"), 5, "run 'runs/nosuch' does not exist"),
        (("mechanisms", "list", "nosuch"), 5, "run 'runs/nosuch' does not exist"),
        (("mechanisms", "check", "nosuch.py"), 2, "FILE: must name a readable file"),
        (("mechanisms", "check", __file__, "--trace", "nosuch.json"), 2, "--trace: must name a readable file"),
        (("mechanisms", "check", __file__, "--trace", __file__), 2, "--trace: must name a run.json"),
        (("mechanisms", "check", __file__, "--run", "r", "--trace", "x"), 2, "--trace: cannot be combined with --run"),
        (("run", "--task", "own"), 3, "the outer service at 127.0.0.1:1 cannot be reached"),
        (("run", "--task", "own", "--inner", "127.0.0.1:1"), 3, "start every service itself: add --local"),
        (("runs", "--inner", "nonsense"), 2, "--inner: must be HOST:PORT"),
        (("runs", "--inner", "127.0.0.1:1"), 3, "the inner service at 127.0.0.1:1 cannot be reached"),
        (
            ("lessons", "export", "/nonexistent/x"),
            2,
            "FILE: must be a place that can be written; /nonexistent/x: no such",
        ),
        (("nosuch",), 2, "No such command 'nosuch'"),
    ],
)
def test_wrong_input_is_one_message(services: Services, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = services.bilevel(*arguments)
    assert message in " ".join(done.stderr.split()), done.stderr
    assert done.returncode == code
    assert not (services.user.folder / "bilevel-results").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (("watch", "nosuch"), 5, "NOT_FOUND"),
        (("runs", "--inner", "127.0.0.1:1"), 3, "UNAVAILABLE"),
        ((*RUN, "--set", "ORDER_SIZ=3"), 2, "INVALID_CONFIGURATION"),
        ((*RUN, "--parallel", "9"), 2, "INVALID_ARGUMENT"),
        ((*RUN, "--spec", "nosuch=1"), 2, "INVALID_ARGUMENT"),
        ((*RUN, "--set", "y=3"), 2, "INVALID_CONFIGURATION"),
    ],
)
def test_with_json_it_is_one_line_of_json(services: Services, arguments: tuple[str, ...], code: int, kind: str) -> None:
    done = services.bilevel(*arguments, "--json")
    error = json.loads(done.stderr)["error"]
    assert done.stdout == ""
    assert (done.returncode, error["exit_code"], error["kind"]) == (code, code, kind)
    assert error["next_step"] or error["fields"]
    if {"--set", "--spec"} & set(arguments):
        assert error["next_step"]


def test_a_run_that_a_budget_ends_has_a_code_of_its_own(services: Services) -> None:
    done = services.bilevel(*RUN[:3], "--levels", "1", "--trials", "30", "--confirm", "0", "--max-tokens", "30000",
                            "--json")  # fmt: skip
    assert done.returncode == 8
    assert json.loads(done.stdout)["state"] == "finished"
    error = json.loads(done.stderr)["error"]
    assert error["kind"] == "BUDGET_SPENT"
    assert "of 30 trials: the budget of 30000 tokens" in error["message"]
    watched = services.bilevel("watch", json.loads(done.stdout)["run"])
    assert (watched.returncode, "of 30 trials: the budget of 30000 tokens" in watched.stderr) == (8, True)


def test_who_is_not_let_in_is_told_so(user: User, own_task: str) -> None:
    token = user.bilevel("tokens", "add", "reader", "--role", "read").stdout.strip()
    with served(user, "inner", "--task", f"own={own_task}", BILEVEL_TOKENS=str(user.folder / "tokens.toml")) as inner:
        stranger = user.bilevel("runs", "--json", BILEVEL_INNER=inner)
        reader = {"BILEVEL_INNER": inner, "BILEVEL_TOKEN": token, "BILEVEL_INSECURE": "1"}
        read = user.bilevel("runs", "--json", **reader)
        driven = user.bilevel("run", "--task", "own", "--levels", "1", "--detach", "--json", **reader)
    assert (stranger.returncode, json.loads(stranger.stderr)["error"]["kind"]) == (4, "UNAUTHENTICATED")
    assert json.loads(stranger.stderr)["error"]["next_step"]
    assert (read.returncode, json.loads(read.stdout)) == (0, [])
    assert (driven.returncode, json.loads(driven.stderr)["error"]["kind"]) == (4, "PERMISSION_DENIED")
    assert "drive" in driven.stderr


def test_a_run_is_found_by_its_display_name_where_only_one_bears_it(services: Services) -> None:
    named = (*RUN[:3], "--levels", "1", "--trials", "1", "--confirm", "0", "--name", "my shop", "--detach")
    first = services.bilevel(*named)
    assert first.returncode == 0, first.stderr
    assert services.bilevel("watch", "my shop").returncode == 0
    misspelt = services.bilevel("watch", "my shp")
    assert (misspelt.returncode, "Did you mean my shop? `bilevel runs` lists" in misspelt.stderr) == (5, True)
    second = services.bilevel(*named)
    done = services.bilevel("watch", "my shop")
    assert done.returncode == 2
    for line in (first.stdout, second.stdout):
        assert line.strip().removeprefix("runs/") in done.stderr


def test_a_run_in_the_wrong_state_is_said(services: Services) -> None:
    assert services.bilevel(*RUN, "--confirm", "0").returncode == 0
    done = services.bilevel("resume", "latest")
    assert done.returncode == 6
    assert "cannot resume" in done.stderr
    assert "it is finished, must be paused" in done.stderr
    source = services.user.folder / "mechanism.py"
    source.write_text("class Mechanism: pass")
    for words in (("resume", "latest"), ("cancel", "latest"), ("mechanisms", "install", "latest", str(source))):
        said = services.bilevel(*words, "--json")
        error = json.loads(said.stderr)["error"]
        assert (error["kind"], bool(error["next_step"])) == ("WRONG_STATE", True), words


@pytest.mark.parametrize("service", ["inner", "outer", "researcher"])
def test_a_busy_port_is_said(user: User, service: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        database = tmp_path / "untouched.db"
        kept = ("--database", f"sqlite:///{database}")
        options = {"inner": ("--task", "own=127.0.0.1:1", *kept), "outer": ("--inner", "127.0.0.1:1", *kept)}
        done = user.bilevel("serve", service, "--listen", address, *options.get(service, ()))
    assert done.returncode == 2
    assert not database.exists(), "it was found before anything was opened"
    assert f"--listen: cannot listen on {address}: address already in use" in done.stderr


def test_what_a_service_is_told_and_cannot_use_is_wrong_input(user: User, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        tries: list[tuple[tuple[str, ...], dict[str, str], str]] = [
            (("serve", "trainer", "--listen", f"127.0.0.1:{port}"), {}, "--listen: cannot listen on"),
            (("serve", "trainer", "--listen", "0.0.0.0:0"), {}, "--listen: refusing to listen on"),
            (
                ("serve", "trainer", "--listen", "127.0.0.1:0"),
                {"BILEVEL_CACHE": str(blocked / "cache")},
                "BILEVEL_CACHE: must be a folder that can be written",
            ),
            (("serve", "inner", "--listen", "0.0.0.0:0"), {}, "--listen: refusing to listen on"),
            (
                ("serve", "inner", "--listen", "127.0.0.1:0"),
                {"BILEVEL_METRICS": f"127.0.0.1:{port}"},
                "BILEVEL_METRICS: cannot expose metrics",
            ),
            (("serve", "researcher", "--listen", "0.0.0.0:0"), {}, "--listen: refusing to listen on"),
            (("dashboard", "--port", port), {}, "--port: cannot listen on"),
            (("dashboard", "--host", "0.0.0.0"), {}, "--host: refusing to listen on"),
            (("dashboard", "--host", ""), {}, "--host: must be HOST:PORT"),
            (
                ("dashboard", "--port", "0"),
                {"BILEVEL_DASHBOARD_PASSWORD_FILE": str(tmp_path)},
                "BILEVEL_DASHBOARD_PASSWORD_FILE: cannot read the dashboard's password file",
            ),
            (("runs", "--inner", "192.0.2.1:1"), {"BILEVEL_TOKEN": "blv_secret"}, "BILEVEL_CA: refusing to send a"),
        ]
        for words, variables, message in tries:
            needed = ("--task", "own=127.0.0.1:1") if "inner" in words else ()
            done = user.bilevel(*words, *needed, **variables)
            assert (done.returncode, message in done.stderr) == (2, True), (words, done.stderr)
            assert "Errno" not in done.stderr
            assert "blv_secret" not in done.stderr


@pytest.mark.parametrize("service", ["inner", "outer", "trainer", "researcher"])
def test_a_services_help_names_the_command_that_was_typed(user: User, service: str) -> None:
    done = user.bilevel("serve", service, "--help")
    assert done.returncode == 0
    assert f"usage: bilevel serve {service} [" in " ".join(done.stdout.split()).replace("Usage", "usage")
    assert "python -m" not in done.stdout


@pytest.mark.parametrize(
    ("service", "variable", "value"),
    [
        ("inner", "BILEVEL_METRICS", "0.0.0.0:0"),
        ("inner", "BILEVEL_PATIENCE", "-1"),
        ("outer", "BILEVEL_PATIENCE", "-1"),
    ],
)
def test_a_wrong_setting_is_said_before_a_database_exists(
    user: User, service: str, variable: str, value: str, tmp_path: Path
) -> None:
    database = tmp_path / "untouched.db"
    needed = {"inner": ("--task", "own=127.0.0.1:1"), "outer": ("--inner", "127.0.0.1:1")}[service]
    arguments = ("--listen", "127.0.0.1:0", "--database", f"sqlite:///{database}", *needed)
    done = user.bilevel("serve", service, *arguments, **{variable: value})
    assert (done.returncode, database.exists()) == (2, False)
    assert f"{variable}: must be" in done.stderr
    assert "bilevel config show" in done.stderr


@pytest.mark.parametrize("service", ["inner", "outer", "researcher"])
def test_a_missing_port_is_said(user: User, service: str) -> None:
    options = {"inner": ("--task", "own=127.0.0.1:1"), "outer": ("--inner", "127.0.0.1:1"), "researcher": ()}
    done = user.bilevel("serve", service, "--listen", "127.0.0.1", *options[service])
    assert done.returncode == 2
    assert "--listen: must be HOST:PORT" in done.stderr


def test_an_unreachable_model_endpoint_is_found_before_anything_starts(user: User) -> None:
    done = user.bilevel("demo", OPENAI_BASE_URL="http://127.0.0.1:1/v1", BILEVEL_MODEL="m")
    assert done.returncode == 3
    assert "the model endpoint http://127.0.0.1:1/v1 cannot be reached" in done.stderr
    assert "OPENAI_BASE_URL" in done.stderr
    assert user.processes() == []


def test_a_wrong_key_is_found_before_anything_starts(user: User, refusing_endpoint: str) -> None:
    done = user.bilevel(
        "demo", OPENAI_BASE_URL=refusing_endpoint, OPENAI_API_KEY="sk-wrong-wrong", BILEVEL_MODEL="a-model"
    )
    assert done.returncode == 4
    assert "refuses the key (HTTP 401)" in done.stderr
    assert "sk-wrong" not in done.stderr


def test_a_key_without_a_model_is_said(user: User) -> None:
    done = user.bilevel("demo", OPENAI_API_KEY="sk-wrong-wrong")
    assert done.returncode == 2
    assert "BILEVEL_MODEL: must name the model" in done.stderr


def test_a_service_with_a_wrong_key_pauses_the_run_and_says_so(
    user: User, own_task: str, refusing_endpoint: str
) -> None:
    model = {"OPENAI_BASE_URL": refusing_endpoint, "OPENAI_API_KEY": "sk-wrong-wrong", "BILEVEL_MODEL": "a-model"}
    with served(user, "inner", "--task", f"own={own_task}", **model) as inner:
        done = user.bilevel(*RUN, BILEVEL_INNER=inner)
    assert done.returncode == 7
    assert "is paused" in done.stderr
    assert "OPENAI_API_KEY" in done.stderr
    assert "bilevel resume" in done.stderr
    assert "sk-wrong" not in done.stdout + done.stderr
