"""The rubric example: written and judged through the model endpoint, here by the scripted researcher's stated rules."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from bilevel.v1 import common_pb2

from clients.scripted_researcher import sentences
from clients.scripted_researcher.answers import answer
from clients.scripted_researcher.state import BadRequest
from service_kit.parameters import Outcome
from service_kit.processes import spawn

ROOT = Path(__file__).resolve().parents[3]
BETTER = "Write. Use short sentences. Give an example. Say what is uncertain."


@pytest.fixture
async def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The scripted researcher as a process; the environment names it as the model endpoint."""
    file = tmp_path / "researcher"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    command = [sys.executable, "-m", "clients.scripted_researcher", "--listen", "127.0.0.1:0"]
    async with await spawn([*command, "--address-file", str(file)], env=environment, cwd=ROOT) as group:
        async with asyncio.timeout(60):
            while not file.exists():
                assert group.returncode is None
                await asyncio.sleep(0.02)
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://{file.read_text().strip()}/v1")
        monkeypatch.setenv("BILEVEL_MODEL", "scripted-researcher")
        monkeypatch.setenv("BILEVEL_MODEL_RETRIES", "0")
        yield file.read_text().strip()
        await group.terminate(10)


@pytest.mark.long
async def test_better_instructions_score_better_and_the_answers_are_labelled(
    endpoint: str, serve: Any, python_task: Callable[[str], list[str]]
) -> None:
    async with serve(python_task("rubric_article")) as task:
        described, _ = await task.describe()
        assert (described.has_held_out_split, described.objective.direction) == (True, common_pb2.DIRECTION_MAXIMIZE)
        outcome, default = await task.evaluate(words=120)
        assert (outcome, default.side_metrics["calls"]) == (Outcome.SUCCEEDED, 8)
        assert "scripted, no language model" in default.message
        outcome, better = await task.evaluate(words=120, instructions=BETTER)
        assert better.metric > default.metric + 1
        assert better.side_metrics["spread_of_judges"] > 0
        assert "for example" in better.identity["article"].lower()
        again, other_seed = await task.evaluate(words=120, instructions=BETTER, seed=5)
        assert (again, other_seed.metric != better.metric) == (Outcome.SUCCEEDED, True)  # the judges' mood
        outcome, held_out = await task.evaluate(words=120, split=common_pb2.SPLIT_HELD_OUT)
        assert (outcome, held_out.side_metrics["calls"]) == (Outcome.SUCCEEDED, 4)


@pytest.mark.long
async def test_without_a_model_a_trial_crashes_with_what_to_do(
    serve: Any, python_task: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("BILEVEL_MODEL", "some-model")
    monkeypatch.setenv("BILEVEL_MODEL_RETRIES", "0")
    async with serve(python_task("rubric_article")) as task:
        outcome, ended = await task.evaluate()
    assert outcome is Outcome.CRASHED
    assert "cannot be reached" in ended.message
    assert not ended.HasField("metric")


def test_the_scripted_judge_follows_its_stated_rules_and_refuses_what_it_cannot_read() -> None:
    def judged(article: str) -> dict[str, float]:
        brief = {
            "facts": ["Yeast produces bubbles quickly."],
            "article": article,
            "judge": "an editor",
            "sitting": 0,
            "rubric": {"coverage": "", "example": "", "style": ""},
        }
        content = f"Score it.\n\n```json brief\n{json.dumps(brief)}\n```\n"
        scores = answer("judge", [{"role": "user", "content": content}])["scores"]
        return {score["criterion"]: score["score"] for score in scores}

    nothing, good = judged("Nothing."), judged("Yeast produces bubbles quickly. For example here.")
    assert nothing["coverage"] <= 1 < 9 <= good["coverage"]
    assert nothing["example"] <= 4 < 8 <= good["example"]
    assert 4 <= good["style"] <= 6
    for content in ("no block", "```json brief\n{}\n```\n", "```json brief\nnonsense\n```\n"):
        with pytest.raises(BadRequest, match="brief"):
            answer("judge", [{"role": "user", "content": content}])


def test_the_scripted_researcher_toggles_one_sentence_of_a_text() -> None:
    text = "Write an article."
    longer = sentences.variants(text, 500)
    assert len(longer) == len(sentences.SENTENCES)
    assert all(variant.startswith(text) for variant in longer)
    assert text in sentences.variants(longer[2], 500)
    assert sentences.variants(text, len(text)) == []


@pytest.mark.long
async def test_a_bilevel_search_runs_over_instructions(
    endpoint: str, serve: Any, search: Any, python_task: Callable[[str], list[str]]
) -> None:
    async with serve(python_task("rubric_article")) as task:
        summary = await search(task.address)
    assert (summary["state"], summary["trials"], summary["scripted"]) == ("finished", 6, True)
    assert summary["best"] > summary["baseline"]
