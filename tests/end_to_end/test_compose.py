"""The containers as a user runs them: a search, a kill, a restart, a way without TLS and one with it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.end_to_end.person import ROOT, wait_until

COMPOSE = shutil.which("docker-compose") or ""
COMPOSE_2 = os.environ.get("BILEVEL_TEST_COMPOSE_2", "")
"""A second Compose, of version 2, whose binary .ci/run fetches: it does a shorter round."""
IMAGE = "python:3.11-slim-bookworm"
SERVICES = {"researcher", "trainer", "inner", "outer", "dashboard"}


def engine() -> bool:
    if not COMPOSE or shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode == 0


needs_engine = pytest.mark.skipif(not engine(), reason=f"needs docker-compose and an engine with the image {IMAGE}")


def described() -> dict[str, Any]:
    """docker-compose.yml as it is written."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


def test_every_setting_of_the_compose_files_is_explained_and_every_explained_one_exists() -> None:
    text = "".join((ROOT / name).read_text() for name in ("docker-compose.yml", "docker-compose.gpu.yml"))
    used = set(re.findall(r"\$\{([A-Z_]+)", text)) - {"COLUMNS"}
    explained = set(re.findall(r"^# ([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert used == explained


def test_services_are_confined_and_reachable_from_this_machine_only() -> None:
    for name, service in described()["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} publishes {port}"
        if name in SERVICES:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert service["restart"] == "unless-stopped", name
            assert service["mem_limit"], name
            assert service["healthcheck"], name


def test_the_files_say_nothing_that_compose_2_calls_obsolete_or_that_compose_1_does_not_know() -> None:
    description = described()
    assert "version" not in description, "obsolete since the Compose Specification"
    services = description["services"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, f"{name}: Compose 1.29 knows no other key here"
            assert services[needed]["healthcheck"], f"{name} waits for the health of {needed}, which has no check"
            profiles = services[needed].get("profiles", [])
            assert not profiles or profiles == service["profiles"], f"{name} needs {needed}, which may be switched off"


@needs_engine
@pytest.mark.parametrize("command", [command for command in (COMPOSE, COMPOSE_2) if command])
def test_the_files_with_every_profile_and_the_gpus_are_read_without_a_remark(command: str) -> None:
    every = Compose("bilevel-test", command, COMPOSE_PROFILES="command,tls,postgres,ollama")
    assert every("config", "--quiet").stderr == ""
    with_gpus = every("-f", "docker-compose.yml", "-f", "docker-compose.gpu.yml", "config")
    assert with_gpus.stderr == ""
    [device] = yaml.safe_load(with_gpus.stdout)["services"]["trainer"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert device["count"] in ("all", -1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Compose:
    """One project of docker-compose: its own containers, network and volumes."""

    def __init__(self, project: str, command: str = COMPOSE, **settings: str) -> None:
        self.project = project
        self.command = command
        self.settings = settings

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.command, "--project-name", self.project, *arguments],
            cwd=ROOT,
            env={**os.environ, **self.settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        if check and done.returncode:
            pytest.fail(f"docker-compose {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-3000:]}")
        return done

    def bilevel(self, *arguments: str) -> str:
        """What the command prints."""
        return self("run", "--rm", "-T", "bilevel", *arguments).stdout

    def run_state(self, run: str) -> dict[str, Any]:
        rows = json.loads(self.bilevel("runs", "--json"))
        [found] = [row for row in rows if row["name"] == run]
        state: dict[str, Any] = found
        return state

    def page(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and text of what the dashboard answers, over TLS where the settings say so."""
        port, context = int(self.settings["BILEVEL_DASHBOARD_PORT"]), ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        if "BILEVEL_TLS_CERT" in self.settings:
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def healthy(self, service: str) -> bool:
        return str(self.container(service)["State"]["Health"]["Status"]) == "healthy"

    def container(self, service: str) -> dict[str, Any]:
        """What the engine says of a service's container."""
        [identity] = self("ps", "--quiet", service).stdout.split()
        shown = subprocess.run(["docker", "inspect", identity], capture_output=True, text=True, check=True)
        [container] = json.loads(shown.stdout)
        found: dict[str, Any] = container
        return found


@pytest.fixture(scope="module")
def images() -> None:
    Compose("bilevel-test", TORCH_INDEX_URL="")("build", "--quiet", *SERVICES, "bilevel")


@pytest.fixture
def compose(images: None, request: pytest.FixtureRequest) -> Iterator[Compose]:
    ports = {f"BILEVEL_{name}_PORT": str(free_port()) for name in ("INNER", "OUTER", "DASHBOARD")}
    project = Compose(f"bilevel-test-{os.getpid()}", BILEVEL_BUDGET="1", TORCH_INDEX_URL="", **ports)
    try:
        yield project
    finally:
        project("down", "--volumes", "--timeout", "5", check=False)


@pytest.mark.long
@pytest.mark.timeout(1500)
@needs_engine
def test_a_bilevel_run_finishes_in_containers_through_kills_and_survives_down_and_up(compose: Compose) -> None:
    compose("up", "--detach")
    started = json.loads(
        compose.bilevel("run", "--trials", "20", "--confirm", "1", "--set", "WINDOW_PATTERN=LLLL", "--detach", "--json")
    )
    run = started["run"]
    wait_until(lambda: compose.run_state(run).get("decided_trials", 0) >= 4, 300, "four trials")

    wait_until(lambda: compose.healthy("dashboard"), 120, "the dashboard's health")
    assert compose.page("/healthz") == (200, "ok\n")
    status, page = compose.page(f"/{run}", Accept="text/html")
    assert (status, run.removeprefix("runs/") in page) == (200, True)
    assert compose.page("/", Host="rebound.example")[0] == 421

    compose("kill")
    compose("up", "--detach")
    wait_until(lambda: compose.run_state(run).get("decided_trials", 0) >= 8, 300, "trials after the kill")

    # A service that dies by itself comes back without anyone: the restart policy, then the trace.
    before = compose.container("inner")["RestartCount"]
    os.kill(compose.container("inner")["State"]["Pid"], signal.SIGKILL)
    wait_until(lambda: compose.container("inner")["RestartCount"] > before, 60, "the restart")

    wait_until(lambda: compose.run_state(run)["state"] == "RUN_STATE_FINISHED", 600, "the end of the run")
    finished = compose.run_state(run)
    assert finished["decided_trials"] == 20
    installed = json.loads(compose.bilevel("mechanisms", "list", run, "--json"))
    layers = {layer for mechanism in installed for layer in mechanism["sandbox_layers"]}
    assert {"clean_environment", "closed_descriptors", "no_new_privs", "rlimits", "seccomp"} <= layers

    compose("down")
    compose("up", "--detach")
    assert compose.run_state(run) == finished


@pytest.mark.long
@pytest.mark.timeout(900)
@needs_engine
def test_with_tls_and_tokens_the_containers_talk_and_nobody_else_does(compose: Compose, tmp_path: Path) -> None:
    compose("run", "--rm", "certs")
    compose.settings |= {
        "BILEVEL_TLS_CERT": "/certs/server.pem",
        "BILEVEL_TLS_KEY": "/certs/server.key",
        "BILEVEL_TOKENS": "/certs/tokens.toml",
        "BILEVEL_CA": "/certs/ca.pem",
        "BILEVEL_TOKEN_FILE": "/certs/token",
        "BILEVEL_DASHBOARD_PASSWORD_FILE": "/certs/dashboard.password",
        "BILEVEL_TASKS": "",
        "BILEVEL_TASKS_FILE": "/certs/tasks.toml",
    }
    compose("up", "--detach")
    report = compose.bilevel("run", "--trials", "2", "--confirm", "0", "--levels", "1,1.5", "--out", "/results/tls")
    assert "finished" in report
    denied = compose("run", "--rm", "-T", "-e", "BILEVEL_TOKEN_FILE=", "bilevel", "runs", check=False)
    assert denied.returncode == 4
    assert "wants a token" in denied.stderr
    clear = compose("run", "--rm", "-T", "-e", "BILEVEL_CA=", "bilevel", "runs", check=False)
    assert clear.returncode == 3
    assert "cannot be reached" in clear.stderr
    wait_until(lambda: compose.healthy("dashboard"), 120, "the dashboard's health")
    assert compose.page("/", Accept="*/*")[0] == 401
    assert "asks for its password" in compose.page("/login")[1]


@pytest.mark.long
@pytest.mark.timeout(600)
@needs_engine
def test_a_run_on_the_profiles_databases_and_endpoint_outlives_the_database(compose: Compose) -> None:
    """With Compose 2 where there is one. The endpoint is the scripted researcher under ollama's name."""
    for name in ("postgres", "ollama"):
        folder = ROOT / "tests/end_to_end/stand_ins" / name
        subprocess.run(["docker", "build", "-q", "-t", f"bilevel-test/{name}", folder], capture_output=True, check=True)
    compose.command = COMPOSE_2 or COMPOSE
    databases = {
        f"BILEVEL_{n}_DATABASE": f"postgresql://bilevel:of-a-test@postgres/{n.lower()}_loop" for n in ("INNER", "OUTER")
    }
    compose.settings |= databases | {
        "COMPOSE_PROFILES": "postgres,ollama",
        "POSTGRES_IMAGE": "bilevel-test/postgres",
        "POSTGRES_PASSWORD": "of-a-test",
        "OLLAMA_IMAGE": "bilevel-test/ollama",
        "OPENAI_BASE_URL": "http://ollama:11434/v1",
        "BILEVEL_MODEL": "scripted-researcher",
    }
    compose("up", "--detach", "--no-build")
    options = ("--trials", "8", "--confirm", "0", "--set", "WINDOW_PATTERN=LLLL", "--detach", "--json")
    run = json.loads(compose.bilevel("run", *options))["run"]
    wait_until(lambda: compose.run_state(run).get("decided_trials", 0) >= 2, 120, "two trials")
    compose("kill", "postgres")
    compose("up", "--detach", "--no-build")
    wait_until(lambda: compose.run_state(run)["state"] == "RUN_STATE_FINISHED", 240, "the end of the run")
    assert compose.run_state(run)["decided_trials"] == 8
    for database, table in (("inner_loop", "events"), ("outer_loop", "events")):
        count = ["psql", "-h", "127.0.0.1", "-U", "bilevel", "-d", database, "-Atc", f"SELECT count(*) FROM {table}"]
        rows = compose("exec", "-T", "-e", "PGPASSWORD=of-a-test", "postgres", *count).stdout
        assert int(rows) > 0, database
    assert "POST /v1/chat/completions" in compose("logs", "ollama").stdout
    wait_until(lambda: compose.healthy("dashboard"), 60, "the dashboard's health")
    assert compose.page("/healthz") == (200, "ok\n")


@pytest.mark.long
@needs_engine
def test_services_run_as_an_ordinary_user_and_hold_no_torch(images: None) -> None:
    for name in ("inner", "outer", "researcher", "dashboard", "client"):
        program = "import importlib.util, os; print(os.getuid(), importlib.util.find_spec('torch'))"
        command = ["docker", "run", "--rm", "--entrypoint", "python", f"bilevel-autoresearch/{name}", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.split() == ["10001", "None"], name
