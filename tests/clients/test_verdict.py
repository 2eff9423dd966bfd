"""How ``bilevel run`` ends where the run did not finish, and what it refuses before it starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bilevel.v1 import trace_pb2

from clients.cli.endings import check_finished
from clients.cli.resources import check_folder, split_settings
from clients.searching import Search
from service_kit.errors import InvalidArgument, ServiceError


def paused() -> Search:
    search = Search("runs/r1", "campaigns/c1")
    changed = trace_pb2.RunStateChanged(to_state=trace_pb2.RUN_STATE_PAUSED, reason="it should end in /v1.")
    search.trace.apply(trace_pb2.TraceEvent(run="runs/r1", sequence=1, run_state_changed=changed))
    return search


def test_a_paused_run_on_a_service_can_be_resumed() -> None:
    with pytest.raises(ServiceError) as caught:
        check_finished(paused())
    assert "bilevel resume r1" in caught.value.hint
    assert caught.value.message.splitlines() == [
        "runs/r1 is paused: it should end in /v1.",
        "The outer loop: waiting for the first checkpoint",
    ]


def test_a_paused_run_on_a_stopped_stack_cannot() -> None:
    with pytest.raises(ServiceError) as caught:
        check_finished(paused(), Path("results"))
    assert "bilevel" not in caught.value.hint
    assert "results/logs" in caught.value.hint


def test_a_folder_that_does_not_exist_yet_is_not_created(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b", "--out")
    assert not (tmp_path / "a").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match=r"--out: must be a folder; .*/file is not one"):
        check_folder(tmp_path / "file" / "below", "--out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InvalidArgument, match="--out: must be a folder that can be written"):
        check_folder(tmp_path / "below", "--out")


def test_a_parameter_is_set_once() -> None:
    assert split_settings(["A=1", "B=2=3"]) == {"A": "1", "B": "2=3"}
    with pytest.raises(InvalidArgument, match="A is given twice"):
        split_settings(["A=1", " A=2"])
