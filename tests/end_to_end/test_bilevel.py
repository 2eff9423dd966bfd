"""The whole loop as a user has it: a task of one's own, every level, one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Services
from tests.end_to_end.person import User


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, own_task: str) -> tuple[User, dict]:
    """A user whose bilevel run has ended, and its summary."""
    user = User(tmp_path_factory.mktemp("bilevel"))
    done = user.bilevel(
        *("run", "--local", "--task", "own", "--serve-task", f"own={own_task}", "--name", "shop"),
        *("--trials", "30", "--seed", "1", "--confirm", "3", "--out", "out", "--json"),
    )
    assert done.returncode == 0, done.stderr
    return user, json.loads(done.stdout)


def export(user: User) -> dict:
    return json.loads((user.folder / "out" / "run.json").read_text())


def test_every_trial_was_decided_and_the_result_confirmed(searched: tuple[User, dict]) -> None:
    _, summary = searched
    assert summary["state"] == "finished"
    assert summary["levels"] == "1 + 1.5 + 2"
    assert summary["trials"] == 30
    assert summary["search_gain"] > 0
    assert summary["confirmation_seeds"] == 3
    assert summary["confirmed_low"] <= summary["confirmed_gain"] <= summary["confirmed_high"]
    assert summary["confirmed_split"] == "held-out data"


def test_a_generated_mechanism_was_installed_and_changed_decisions(searched: tuple[User, dict]) -> None:
    user, summary = searched
    assert summary["mechanisms_installed"] >= 1
    assert summary["mechanisms_effective"] >= 1
    events = export(user)["events"]
    changed = [event for event in events if "decision_changed" in event]
    installed = {
        event["mechanism_installed"]["mechanism"]["name"] for event in events if "mechanism_installed" in event
    }
    assert len(changed) == summary["changed_decisions"] > 0
    assert {event["decision_changed"]["mechanism"] for event in changed} <= {n.rpartition("/")[2] for n in installed}


def test_the_mechanism_acts_only_after_its_installation(searched: tuple[User, dict]) -> None:
    kinds = [next(iter(set(event) - {"run", "sequence", "time"})) for event in export(searched[0])["events"]]
    assert kinds.index("mechanism_installed") < kinds.index("decision_changed")


def test_level_one_and_a_half_looked_every_five_trials(searched: tuple[User, dict]) -> None:
    events = export(searched[0])["campaign_events"]
    looks = [event["cycle_started"]["decided_trials"] for event in events if "cycle_started" in event]
    assert looks[:5] == [5, 10, 15, 20, 25]


def test_every_answer_is_labelled_as_scripted(searched: tuple[User, dict]) -> None:
    user, summary = searched
    assert summary["scripted"] is True
    calls = [event["model_called"] for event in export(user)["events"] if "model_called" in event]
    assert calls
    assert all(call["scripted"] for call in calls)
    page = (user.folder / "out" / "report.html").read_text()
    assert "The scripted researcher answered here" in page


def test_the_report_shows_the_dialogue_and_the_mechanism(searched: tuple[User, dict]) -> None:
    page = (searched[0].folder / "out" / "report.html").read_text()
    for text in (
        "1. explore",
        "2. critique",
        "3. specify",
        "4. generate",
        "class Mechanism",
        "changed decision",
        "seccomp",
    ):
        assert text in page, text


def test_an_endpoint_in_the_environment_is_used_for_both_loops(
    services: Services, tmp_path: Path, own_task: str
) -> None:
    """The scripted researcher stands for any endpoint here: it is asked over HTTP, and not started."""
    user, endpoint = User(tmp_path), f"http://{services.researcher}/v1"
    done = user.bilevel(
        *("run", "--local", "--task", "own", "--serve-task", f"own={own_task}", "--trials", "6", "--confirm", "0"),
        *("--out", "out"),
        OPENAI_BASE_URL=endpoint,
        OPENAI_API_KEY="sk-any-key-1",
        BILEVEL_MODEL="scripted-researcher",
    )
    assert done.returncode == 0, done.stderr
    logs = user.folder / "out" / "logs"
    assert not (logs / "researcher.log").exists()
    for loop in ("inner", "outer"):
        assert endpoint in (logs / f"{loop}.log").read_text()
        assert "sk-any-key-1" not in (logs / f"{loop}.log").read_text()
    assert "level 1.5" in done.stdout


def test_nothing_runs_any_more(searched: tuple[User, dict]) -> None:
    user: User = searched[0]
    assert user.processes() == []
    assert list(Path(user.folder / "out" / "run").iterdir()) == []
