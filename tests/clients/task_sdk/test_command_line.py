"""A task's own command line, run as its author runs it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import grpc
import pytest
from bilevel.v1 import task_pb2, task_pb2_grpc

from service_kit.processes import spawn

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = '''
from clients.task_sdk import Context, Integer, task

@task(metric="distance", goal="minimize", unit="m", space={"x": Integer(0, 9, doc="Where."), "fast": bool})
def walk(x, fast, *, context: Context):
    """How far it is."""
    context.report(0.5, x=x)
    print("on standard output")
    return abs(x - 3)

@walk.check
def slow(x, fast):
    """x must be at most 5 where fast is set"""
    return x <= 5 or not fast

if __name__ == "__main__":
    walk.serve()
'''


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "walk.py"
    file.write_text(SCRIPT)
    return file


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=False)


def change(script: Path) -> None:
    script.write_text(SCRIPT.replace("x - 3", "x - 4"))


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "COLUMNS": "120", "NO_COLOR": "1"}


def test_try_evaluates_one_configuration(script: Path) -> None:
    done = run(script, "try", "x=5")
    assert (done.returncode, done.stdout) == (0, "outcome: succeeded\ndistance: 2 m\n")
    assert "50%" in done.stderr
    assert "on standard output" in done.stderr


def test_describe_shows_the_space(samples: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        samples.endings.serve(["describe"])
    shown = capsys.readouterr().out
    assert "endings: minimize latency_ms ms" in shown
    assert "threads = 8, an integer from 1 to 64, Worker threads." in shown
    assert "constraint: threads must be at most 32 unless cached is set" in shown


def test_a_configuration_that_is_not_measured_is_an_exit_code(
    samples: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        samples.endings.serve(["try", "threads=40", "cached=false"])
    assert ended.value.code == 1
    assert capsys.readouterr().out == "outcome: infeasible\nmessage: threads must be at most 32 unless cached is set\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["try", "y=5"], 2, "y: is not a parameter"),
        (["try", "x=50"], 2, "x: must be an integer from 0 to 2; got 50"),
        (["try", "x"], 2, "must name a parameter and its value; got 'x'"),
        (["try", "x=2"], 1, "its check forgets raised ZeroDivisionError"),
        (["try", "--held-out"], 2, "has no held-out data"),
        (["try", "--budget-fraction", "2"], 2, "--budget-fraction: must be above 0 and at most 1"),
        (["--listen", "nowhere"], 2, "listen: must be HOST:PORT"),
        (["--listen", "0.0.0.0:0"], 2, "--listen: refusing to listen on 0.0.0.0:0"),
    ],
)
def test_what_a_user_gets_wrong_is_one_message(
    samples: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        samples.misjudged.serve(arguments)
    assert ended.value.code == code
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


async def test_a_script_serves_itself_until_sigterm_and_notices_that_it_changed(script: Path, tmp_path: Path) -> None:
    file = tmp_path / "address"
    command = [sys.executable, str(script), "--listen", "127.0.0.1:0", "--address-file", str(file)]
    async with await spawn(command, env=environment(), cwd=tmp_path) as group:
        async with asyncio.timeout(30):
            while not file.exists():
                assert group.returncode is None
                await asyncio.sleep(0.02)
        async with grpc.aio.insecure_channel(file.read_text().strip()) as channel:
            stub = task_pb2_grpc.TaskServiceStub(channel)
            events = [event async for event in stub.Evaluate(task_pb2.EvaluateRequest())]
            assert [event.result.metric for event in events if event.HasField("result")] == [1.0]
            change(script)
            events = [event async for event in stub.Evaluate(task_pb2.EvaluateRequest())]
            assert "walk.py has changed since it is being served: start the server again" in events[-1].result.message
        assert await group.terminate(20) in (0, -signal.SIGTERM)
    assert not file.exists()
