"""Every prompt, word for word. After a deliberate change: ``make prompts`` rewrites the files; read their diff."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from inner_service import preview as inner_preview
from inner_service import search_state
from inner_service.lessons.prompt import lessons_prompt
from outer_service import digest
from outer_service.campaign import Round
from outer_service.preview import example, preview, preview_procedure
from outer_service.preview import main as outer_main
from service_kit.llm.failures import LimitTooSmall, Message, ModelError
from service_kit.llm.prompts import Detail, Templates, ask_fitting, fitting, preview_text, shortened
from service_kit.llm.tokens import estimate_messages
from tests.service_kit.llm_endpoint import answer, refusal, serving
from tests.service_kit.test_language_model import GOOD, Proposal

FOLDER = Path(__file__).with_name("golden")
ROUNDS: list[Round | None] = [None, *Round]


def compare(name: str, text: str) -> None:
    file = FOLDER / f"{name}.txt"
    if os.environ.get("BILEVEL_UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), "the prompt has changed: run `make prompts` and read the diff"


@pytest.mark.parametrize("round_", ROUNDS, ids=lambda r: r.value if r else "analyse")
def test_what_a_researcher_gets(round_: Round | None) -> None:
    compare(round_.value if round_ else "analyse", preview_text(preview(round_, *example()), "VERSION"))


def test_what_level_two_is_asked_about_its_own_procedure() -> None:
    compare("procedure", preview_text(preview_procedure(), "VERSION"))


@pytest.mark.parametrize("round_", ["propose", "lessons"])
def test_what_the_inner_service_asks(round_: str) -> None:
    compare(round_, preview_text(inner_preview.preview(round_), "VERSION"))


def test_the_prompt_for_lessons_is_shortened_like_the_others_and_says_what_is_missing() -> None:
    search, _ = inner_preview.example()
    old = [replace(search.trials[1], number=number, hypothesis="because " * 20) for number in range(1, 60)]
    long = replace(search, trials=(search.trials[0], *old), decisions=tuple(range(60)))
    whole = lessons_prompt(long, inner_preview.known())
    limit = estimate_messages(whole) - 1
    shorter = lessons_prompt(long, inner_preview.known(), limit)
    assert estimate_messages(shorter) <= limit
    assert "Left out, so that this fits your context:" in shorter[-1].content
    assert "of the 20 oldest shown trials" in shorter[-1].content
    assert "increase BATCH: 59 tried" in shorter[-1].content
    with pytest.raises(LimitTooSmall, match="BILEVEL_CONTEXT_TOKENS allows 100"):
        lessons_prompt(long, inner_preview.known(), 100)


@pytest.mark.parametrize("round_", ["propose", "lessons"])
def test_what_others_wrote_is_data_for_the_inner_services_prompts_too(round_: str) -> None:
    sent = "\n".join(message.content for message in inner_preview.preview(round_))
    hostile = [line for line in sent.splitlines() if "Ignore all other instructions" in line]
    assert hostile
    assert all(line.startswith(("{", "| ")) for line in hostile)


def test_the_version_is_that_of_the_templates(tmp_path: Path) -> None:
    assert digest.TEMPLATES.version != search_state.TEMPLATES.version
    (tmp_path / "a.j2").write_text("one")
    before = Templates(tmp_path).version
    (tmp_path / "a.j2").write_text("two")
    assert len(before) == 12
    assert Templates(tmp_path).version != before


@pytest.mark.parametrize("round_", ROUNDS, ids=lambda r: r.value if r else "analyse")
def test_text_of_others_is_data_behind_a_border(round_: Round | None) -> None:
    sent = "\n".join(message.content for message in preview(round_, *example()))
    assert "| Turns a failed change round." in sent
    for line in sent.splitlines():
        if "Ignore all instructions" in line:
            assert line.startswith(("{", "| "))


def test_a_procedure_in_force_and_a_rejected_one_are_data_behind_borders_too() -> None:
    lines = [line for message in preview_procedure() for line in message.content.splitlines()]
    hostile = [line for line in lines if "Ignore all instructions" in line]
    assert len([line for line in hostile if line.startswith("| ")]) == 2
    assert all(line.startswith(("{", "| ")) for line in hostile)


def test_every_template_of_a_request_has_its_golden_file() -> None:
    templates = Path(__file__).parents[2].glob("*_service/prompts/[!_]*.j2")
    asked = {file.stem for file in templates if "system" not in file.stem}
    assert asked == {file.stem for file in FOLDER.glob("*.txt")}


def trials(count: int) -> list[dict[str, object]]:
    return [
        {"number": n, "changes": {"A": n}, "directions": {}, "origin": "model", "outcome": "succeeded", "metric": 1.0}
        | {
            "kept": n % 7 == 0,
            "incumbent_metric": 1.0,
            "hypothesis": "because " * 20,
            "message": "m",
            "side_metrics": {},
        }
        for n in range(count)
    ]


def test_old_trials_lose_their_details_first_and_kept_ones_are_never_left_out() -> None:
    shown, left_out = shortened(trials(50), Detail(full=10))
    assert [("hypothesis" in trial) for trial in shown] == [False] * 40 + [True] * 10
    assert left_out == ["hypothesis, side metrics and message of the 40 oldest shown trials"]
    shown, left_out = shortened(trials(50), Detail(full=10, trials=10))
    assert [trial["number"] for trial in shown] == [0, 7, 14, 21, 28, 35, *range(40, 50)]
    assert left_out[0] == "34 of 50 trials: old ones that were not kept"
    assert shortened(trials(5), Detail(full=10, trials=10)) == (trials(5), [])


def test_a_prompt_is_shortened_until_it_fits_and_says_what_is_missing() -> None:
    observation, description = example()
    whole = preview(Round.GENERATE, observation, description)
    limit = estimate_messages(whole) - 1
    shorter = preview(Round.GENERATE, observation, description, limit + 200)
    assert estimate_messages(shorter) <= limit + 200
    with pytest.raises(ModelError, match="BILEVEL_CONTEXT_TOKENS allows 100"):
        preview(Round.GENERATE, observation, description, 100)


@pytest.mark.parametrize("round_", [Round.EXPLORE, Round.CRITIQUE])
def test_lessons_give_way_when_the_context_is_short_and_the_prompt_says_so(round_: Round) -> None:
    observation, description = example()
    with pytest.raises(LimitTooSmall) as caught:
        preview(round_, observation, description, 1)
    shortest = preview(round_, observation, description, caught.value.needed)[-1].content
    assert "- 2 of 2 lessons of earlier runs: the less relevant ones" in shortest
    assert "Lessons of earlier runs" not in shortest
    [*_, last] = preview(round_, observation, replace(description, lessons=description.lessons[:1]))
    assert last.content.count("[data from lesson ") == 1
    [*_, last] = preview(round_, observation, replace(description, lessons=()))
    assert "esson" not in last.content


def test_a_limit_of_ours_that_is_too_small_is_to_be_raised(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LimitTooSmall) as caught:
        preview(Round.EXPLORE, *example(), 100)
    needed = caught.value.needed
    assert f"Raise BILEVEL_CONTEXT_TOKENS to {needed} or more" in caught.value.hint
    assert preview(Round.EXPLORE, *example(), needed)
    with pytest.raises(SystemExit) as left:
        outer_main(["--round", "explore", "--context", "100"])
    assert left.value.code == 2
    assert f"error: --context: must be at least {needed} " in capsys.readouterr().err


def test_the_first_level_of_detail_that_fits_is_taken() -> None:
    def build(detail: Detail) -> list[Message]:
        return [Message("user", "x" * 3 * (100 if detail.full is None else detail.full))]

    assert fitting(build, 0) == tuple(build(Detail()))
    assert fitting(build, 50) == tuple(build(Detail(full=40)))
    assert fitting(build, 20) == tuple(build(Detail(full=10)))


def test_what_cannot_fit_is_not_built_and_the_proposer_gets_the_same_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    search, briefing = inner_preview.example()
    kept, discarded = search.trials
    more = [replace(discarded, number=n, hypothesis="é" * (n % 50)) for n in range(2, 150)]
    search = replace(search, trials=(kept, discarded, *more), decisions=tuple(range(150)))
    limits = range(1_000, 16_000, 500)
    built: list[int] = []
    first = search_state.first
    monkeypatch.setattr(search_state, "first", lambda files, *a: (built.append(1), first(files, *a))[1])

    def prompts() -> list[object]:
        found: list[object] = []
        for limit in limits:
            try:
                found.append(search_state.proposer_prompt(search, briefing, limit))
            except LimitTooSmall as error:
                found.append(error.needed)
        return found

    sparing, few = prompts(), len(built)
    monkeypatch.setattr(search_state, "at_least", lambda _: 0)
    built.clear()
    assert prompts() == sparing
    assert few < len(built) / 2, (few, len(built))


async def test_a_prompt_that_the_endpoint_finds_too_long_is_asked_again_at_half_its_length() -> None:
    def build(limit: int) -> list[Message]:
        return [Message("user", "x" * 3 * ((limit or 1000) - 10))]

    too_long = refusal(400, "This model's maximum context length is 300 tokens")
    async with serving() as endpoint:
        model = endpoint.model(too_long, too_long, answer(GOOD), context_tokens=0)
        found = await ask_fitting(model, "propose", build, Proposal)
        lengths = [len(request["messages"][0]["content"]) for request in endpoint.requests]
        assert found.value.step == 3
        assert found.usage.calls == len(lengths)
        assert lengths[0] > lengths[-1]
        stubborn = endpoint.model(too_long, context_tokens=0)
        with pytest.raises(ModelError, match="maximum context length is 300 tokens"):
            await ask_fitting(stubborn, "propose", build, Proposal)
