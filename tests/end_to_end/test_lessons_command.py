"""``bilevel lessons`` as a user has it: two runs on real services, the second with the first one's lessons."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.end_to_end.conftest import Services


@pytest.fixture(scope="module")
def remembered(services: Services) -> tuple[Services, list[dict[str, Any]]]:
    """Services on which two runs with lessons have ended, and what they learnt."""
    for seed in ("3", "4"):
        done = services.bilevel(
            *("run", "--task", "own", "--levels", "1", "--lessons", "--compare-lessons", "--trials", "8"),
            *("--seed", seed, "--confirm", "0", "--json"),
        )
        assert done.returncode == 0, done.stderr
    listed = json.loads(services.bilevel("lessons", "list", "--json").stdout)
    assert listed["next_page_token"] == ""
    return services, listed["lessons"]


def test_lessons_carry_their_evidence_and_who_wrote_them(remembered) -> None:
    _, lessons = remembered
    assert lessons
    for lesson in lessons:
        assert lesson["statement"].startswith("scripted: ")
        assert lesson["scripted"] is True
        assert lesson["evidence"]
        assert lesson["task"] == "shop"
        assert lesson["parameters"]


def test_the_second_run_was_shown_them_and_cited_some(remembered) -> None:
    services, _ = remembered
    effect = json.loads(services.bilevel("lessons", "effect", "latest", "--json").stdout)
    assert effect["compared"] == 8
    assert any(lesson["cited"] for lesson in effect["lessons"])
    assert effect["changed"]
    said = services.bilevel("lessons", "effect").stdout
    assert "asked again without lessons 8 times" in said


def test_pages_go_on_where_they_ended(remembered) -> None:
    services, lessons = remembered
    page = json.loads(services.bilevel("lessons", "list", "--page-size", "1", "--json").stdout)
    rest = json.loads(services.bilevel("lessons", "list", "--page-token", page["next_page_token"], "--json").stdout)
    assert [one["name"] for one in (*page["lessons"], *rest["lessons"])] == [one["name"] for one in lessons]
    assert page["next_page_token"] in services.bilevel("lessons", "list", "--page-size", "1").stdout
    assert services.bilevel("lessons", "list", "--page-token", "nonsense").returncode == 2


def test_a_lesson_is_shown_forgotten_and_brought_back(remembered) -> None:
    services, lessons = remembered
    name = lessons[-1]["name"]
    shown = services.bilevel("lessons", "show", name.removeprefix("lessons/")).stdout
    assert lessons[-1]["statement"] in shown
    assert "scripted, no language model" in shown
    assert services.bilevel("lessons", "export", "all.json").returncode == 0
    assert services.bilevel("lessons", "forget", name, "lessons/none").returncode == 5
    assert services.bilevel("lessons", "show", name).returncode == 0, "all are forgotten, or none"
    assert f"{name} is forgotten" in services.bilevel("lessons", "forget", name).stdout
    assert "lessons/" in services.bilevel("lessons", "show", name).stderr
    first = json.loads(services.bilevel("lessons", "import", "all.json", "--json").stdout)
    again = json.loads(services.bilevel("lessons", "import", "all.json", "--json").stdout)
    assert (len(first["new"]), again["new"]) == (1, [])
    back = json.loads(services.bilevel("lessons", "show", first["new"][0], "--json").stdout)
    assert (back["statement"], back["imported"]) == (lessons[-1]["statement"], True)
    assert back.get("times_shown", 0) == 0
    assert services.bilevel("lessons", "import", "missing.json").returncode == 2
