"""Every error has one exit code, in words and as JSON alike."""

from __future__ import annotations

import json

import pytest
import typer

from clients.cli.endings import BudgetSpent, RunNotFinished
from clients.cli.execution import polite
from service_kit.complaint import complain
from service_kit.errors import InvalidArgument, InvalidConfiguration, RemoteError, ServiceError, Violation
from service_kit.exit_codes import OF_KIND, ExitCode
from tests.service_kit.test_errors import EXAMPLES

OF_THE_CATALOGUE = {
    "INVALID_ARGUMENT": 2,
    "INVALID_CONFIGURATION": 2,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "WRONG_STATE": 6,
    "CONFLICT": 6,
    "EXHAUSTED": 6,
    "PERMISSION_DENIED": 4,
    "UNAUTHENTICATED": 4,
    "DEPENDENCY_UNAVAILABLE": 3,
    "DRAINING": 3,
    "CUT_OFF": 3,
    "STORAGE_FAILED": 3,
    "UNIMPLEMENTED": 1,
    "REFUSED": 1,
}


@pytest.mark.parametrize(("error", "code", "reason"), EXAMPLES, ids=[reason for *_, reason in EXAMPLES])
def test_an_error_of_the_catalogue_has_its_exit_code_here_and_from_afar(
    error: Exception, code: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(error, ServiceError | InvalidConfiguration)
    assert complain(error) == OF_THE_CATALOGUE[reason]
    assert complain(RemoteError(str(error), code=code, reason=reason)) == OF_THE_CATALOGUE[reason]
    assert capsys.readouterr().err.startswith("error: ")
    complain(error, json=True)
    said = json.loads(capsys.readouterr().err)["error"]
    assert (said["kind"], said["exit_code"]) == (reason, OF_THE_CATALOGUE[reason])


@pytest.mark.parametrize(
    ("code", "expected"), [("UNAVAILABLE", 3), ("DEADLINE_EXCEEDED", 3), ("UNAUTHENTICATED", 4), ("INTERNAL", 1)]
)
def test_a_status_without_a_reason_has_one_by_its_code(code: str, expected: int) -> None:
    assert complain(RemoteError("x", code=code)) == expected


def test_how_a_run_ended_has_codes_of_its_own() -> None:
    assert complain(RunNotFinished("it failed")) == ExitCode.RUN_FAILED == 7
    assert complain(BudgetSpent("its time is over")) == ExitCode.BUDGET_SPENT == 8


def test_json_names_every_field_and_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = [Violation("--trials", "must be 1 or more"), Violation("--seed", "must be 0 or more")]
    complain(InvalidArgument(wrong, hint="Try 30."), json=True)
    assert json.loads(capsys.readouterr().err) == {
        "error": {
            "kind": "INVALID_ARGUMENT",
            "message": "--trials: must be 1 or more; --seed: must be 0 or more",
            "fields": [
                {"field": "--trials", "problem": "must be 1 or more"},
                {"field": "--seed", "problem": "must be 0 or more"},
            ],
            "next_step": "Try 30.",
            "exit_code": 2,
        }
    }


@pytest.mark.parametrize(
    ("raised", "code", "kind"),
    [(RuntimeError("oops"), 70, "DEFECT"), (KeyboardInterrupt(), 130, "INTERRUPTED")],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_what_no_service_refused_ends_a_command_with_a_code_too(
    raised: BaseException, code: int, kind: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    @polite
    def command(json: bool) -> None:
        raise raised

    with pytest.raises(typer.Exit) as ended:
        command(json=as_json)
    assert ended.value.exit_code == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    if as_json:
        assert json.loads(said)["error"]["kind"] == kind


def test_codes_above_128_are_signals_and_no_two_are_the_same() -> None:
    assert {code.name: code.value - 128 for code in ExitCode if code > 128} == {
        "HUNG_UP": 1,
        "INTERRUPTED": 2,
        "PIPE_CLOSED": 13,
        "STOPPED": 15,
    }
    assert len({code.value for code in ExitCode}) == len(list(ExitCode))
    assert all(code.meaning for code in ExitCode)
    assert set(OF_KIND.values()) | {
        ExitCode.DONE,
        ExitCode.FAILED,
        ExitCode.UNDECIDED,
        ExitCode.LEFT,
        ExitCode.PIPE_CLOSED,
    } == set(ExitCode)
